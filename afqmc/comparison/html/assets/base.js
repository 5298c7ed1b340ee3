// Shared by all scripts: the data, DOM elements, language and theme, and redrawing when these change.
const page = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

// Create an element. Children that are texts become text nodes, never markup.
function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(node.style, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.map((child) => (child == null ? "" : child)));
  return node;
}

// Decode an array that json_embedding.py encoded.
function decodeArray(base64, type) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new type(bytes.buffer);
}

const state = {
  chinese: (navigator.language || "").toLowerCase().startsWith("zh"),
  dark: matchMedia("(prefers-color-scheme: dark)").matches,
};

// Return a text in the language of the page. The English template is its key in the catalogue.
function t(english, values = {}) {
  const template = state.chinese ? page.chinese[english] : english;
  const text = (value) => (typeof value === "number" ? value.toLocaleString("en-US") : value);
  return template.replace(/\{(\w+)\}/g, (_, name) => text(values[name]));
}

// Translate a word if it is in the catalogue; names from the runs stay unchanged.
const translateIfKnown = (word) => (Object.hasOwn(page.chinese, word) ? t(word) : word);

const inLanguage = ([english, chinese]) => (state.chinese ? chinese : english);

const drawers = []; // called at the start, and when the language or the theme changes

function onDraw(draw) {
  drawers.push(draw);
}

function drawAll() {
  document.documentElement.lang = state.chinese ? "zh" : "en";
  document.documentElement.dataset.theme = state.dark ? "dark" : "light";
  for (const node of document.querySelectorAll("[data-t]")) {
    node.dataset.t ||= node.textContent;
    node.textContent = t(node.dataset.t);
  }
  byId("language").textContent = state.chinese ? "English" : "中文";
  byId("language").lang = state.chinese ? "en" : "zh";
  byId("theme").textContent = state.dark ? t("light") : t("dark");
  for (const draw of drawers) draw();
}

const shorten = (text, limit = 48) => (text.length > limit ? text.slice(0, limit - 1) + "…" : text);

// The name of a setting, or its rank if the name is long.
const settingName = (row) => (page.ranking.names[row].length > 60 ? `#${row + 1}` : page.ranking.names[row]);

function runName(index) {
  const run = page.runs[index];
  const seed = (run.seed === null ? "" : ` · seed ${run.seed}`) + (run.fold === null ? "" : ` · fold ${run.fold}`);
  return page.ranking.keys ? settingName(run.setting) + seed : run.name + seed;
}

function setOptions(select, names, selected) {
  select.replaceChildren(...names.map((name, index) => element("option", { value: index }, name)));
  select.value = selected;
}
