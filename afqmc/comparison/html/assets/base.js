// What every part needs: the data, elements, both languages, both themes, and what is drawn again when these change.
const page = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

// An element; texts become text nodes, never markup.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(made.style, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.map((child) => (child == null ? "" : child)));
  return made;
}

// Numbers as embedding.py packs them.
function unpacked(text, type) {
  const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
  return new type(bytes.buffer);
}

const state = {
  chinese: (navigator.language || "").toLowerCase().startsWith("zh"),
  dark: matchMedia("(prefers-color-scheme: dark)").matches,
};

// A text of the page in its language: the English one is its name in the catalogue.
function t(english, values = {}) {
  const template = state.chinese ? page.chinese[english] : english;
  const text = (value) => (typeof value === "number" ? value.toLocaleString("en-US") : value);
  return template.replace(/\{(\w+)\}/g, (_, name) => text(values[name]));
}

// A word of ours in the page's language; what the catalogue does not know, as a setting's name, as it is.
const own = (word) => (Object.hasOwn(page.chinese, word) ? t(word) : word);

const either = ([english, chinese]) => (state.chinese ? chinese : english);

const drawers = []; // called at the start, and when the language or the theme changes

function shown(draw) {
  drawers.push(draw);
}

function drawAll() {
  document.documentElement.lang = state.chinese ? "zh" : "en";
  document.documentElement.dataset.theme = state.dark ? "dark" : "light";
  for (const one of document.querySelectorAll("[data-t]")) {
    one.dataset.t ||= one.textContent;
    one.textContent = t(one.dataset.t);
  }
  byId("language").textContent = state.chinese ? "English" : "中文";
  byId("language").lang = state.chinese ? "en" : "zh";
  byId("theme").textContent = state.dark ? t("light") : t("dark");
  for (const draw of drawers) draw();
}

const short = (text, most = 48) => (text.length > most ? text.slice(0, most - 1) + "…" : text);

// The name of a setting by its row, as the sentences call it.
const settingName = (row) => (page.ranking.names[row].length > 60 ? `#${row + 1}` : page.ranking.names[row]);

function runName(number) {
  const run = page.runs[number];
  const seed = (run.seed === null ? "" : ` · seed ${run.seed}`) + (run.fold === null ? "" : ` · fold ${run.fold}`);
  return page.ranking.keys ? settingName(run.setting) + seed : run.name + seed;
}

function options(select, names, chosen) {
  select.replaceChildren(...names.map((name, place) => element("option", { value: place }, name)));
  select.value = chosen;
}
