// The summary, and the table of settings; ticks choose whose curves are drawn.
const FIRST = 5; // settings drawn at first
const SENTENCES = 8; // shown at first
const drawnSettings = new Set(page.ranking.rows.slice(0, FIRST).keys());
const afterTick = []; // called when a tick changes

const runsOf = page.ranking.rows.map(() => []); // their numbers, by setting
page.runs.forEach((run, number) => runsOf[run.setting].push(number));

let allSaid = false;
const items = (list, texts) => list.replaceChildren(...texts.map((text) => element("li", {}, text)));

shown(() => {
  const count = { runs: page.runs.length, settings: page.ranking.rows.length, metric: page.metric };
  const one = count.settings === 1;
  byId("title").textContent =
    one && count.runs === 1
      ? t("1 run by {metric}", count)
      : one
        ? t("{runs} runs of one setting by {metric}", count)
        : t("{runs} runs of {settings} settings by {metric}", count);
  document.title = byId("title").textContent;
  byId("about").textContent = t(
    "made {made} by afqmc {version}; nothing on this page comes from or goes to a network",
    page,
  );
  const said = page.said.map((pair, place) =>
    element("li", { class: page.found[place] ? "found" : null }, either(pair)),
  );
  byId("said").replaceChildren(...(allSaid ? said : said.slice(0, SENTENCES)));
  byId("headline").hidden = said.length <= SENTENCES;
  byId("headline").textContent = page.headline ? either(page.headline) : "";
  byId("more-said").hidden = said.length <= SENTENCES;
  byId("more-said").textContent = allSaid ? t("fewer") : t("all {count} sentences", { count: said.length });
  if (!said.length) items(byId("said"), [t("There are no two settings to tell apart.")]);
  items(byId("notes"), page.notes.map(either));
  items(byId("refused"), page.refused.map(either));
  byId("refused-box").hidden = !page.refused.length;
});

byId("more-said").addEventListener("click", () => {
  allSaid = !allSaid;
  drawAll();
});

function tick(row) {
  const change = (event) => {
    if (event.target.checked) drawnSettings.add(row);
    else drawnSettings.delete(row);
    afterTick.forEach((call) => call());
  };
  const box = element("input", {
    type: "checkbox",
    onchange: change,
    "aria-label": t("curves of {name}", { name: settingName(row) }),
  });
  box.checked = drawnSettings.has(row);
  return box;
}

const rankingColumns = [
  { title: () => t("curves"), fixed: true },
  ...page.ranking.headers.map(([header, number, down]) => ({ title: () => own(header), number, wrap: !number, down })),
];

const ranking = new SortedTable(byId("ranking-table"), rankingColumns);
ranking.rows = page.ranking.rows.map((cells, row) => ({
  cells: ["", ...cells],
  nodes: { 0: () => tick(row) },
  searched: [page.ranking.names[row], ...cells, ...runsOf[row].map((number) => page.runs[number].name)]
    .join(" ")
    .toLowerCase(),
  className: row === 0 ? "best" : null,
}));

function countRanking() {
  byId("ranking-count").textContent = t("{shown} of {all}", { shown: ranking.shownRows, all: ranking.rows.length });
}

byId("ranking-filter").addEventListener("input", (event) => {
  ranking.filter(event.target.value);
  countRanking();
});

shown(() => {
  ranking.draw();
  countRanking();
});
afterTick.push(() => {
  for (const box of byId("ranking-table").querySelectorAll("input")) box.checked = false;
  ranking.draw();
});
