// The findings, and the ranking of the settings with checkboxes that select learning curves.
const SELECTED_AT_START = 5; // settings
const COLLAPSED_FINDINGS = 8; // sentences
const selectedSettings = new Set(page.ranking.rows.slice(0, SELECTED_AT_START).keys());
const onSelect = []; // called when a checkbox changes

const runsBySetting = page.ranking.rows.map(() => []); // indices of runs
page.runs.forEach((run, index) => runsBySetting[run.setting].push(index));

let showsAllFindings = false;
const setItems = (list, texts) => list.replaceChildren(...texts.map((text) => element("li", {}, text)));

onDraw(() => {
  const count = { runs: page.runs.length, settings: page.ranking.rows.length, metric: page.metric };
  const isSingle = count.settings === 1;
  byId("title").textContent =
    isSingle && count.runs === 1
      ? t("1 run by {metric}", count)
      : isSingle
        ? t("{runs} runs of one setting by {metric}", count)
        : t("{runs} runs of {settings} settings by {metric}", count);
  document.title = byId("title").textContent;
  byId("about").textContent = t(
    "created {created} by afqmc {version}; this page works offline and sends no data",
    page,
  );
  const findings = page.findings.map((sentence, index) =>
    element("li", { class: page.significant[index] ? "significant" : null }, inLanguage(sentence)),
  );
  const isLong = findings.length > COLLAPSED_FINDINGS;
  byId("findings").replaceChildren(...(showsAllFindings ? findings : findings.slice(0, COLLAPSED_FINDINGS)));
  byId("headline").hidden = !isLong;
  byId("headline").textContent = page.headline ? inLanguage(page.headline) : "";
  byId("more-findings").hidden = !isLong;
  byId("more-findings").textContent = showsAllFindings
    ? t("show fewer")
    : t("show all {count}", { count: findings.length });
  if (!findings.length) setItems(byId("findings"), [t("There are fewer than two comparable settings.")]);
  setItems(byId("caveats"), page.caveats.map(inLanguage));
  setItems(byId("incomparable"), page.incomparable.map(inLanguage));
  byId("incomparable-box").hidden = !page.incomparable.length;
});

byId("more-findings").addEventListener("click", () => {
  showsAllFindings = !showsAllFindings;
  drawAll();
});

function checkbox(row) {
  const change = (event) => {
    if (event.target.checked) selectedSettings.add(row);
    else selectedSettings.delete(row);
    onSelect.forEach((call) => call());
  };
  const box = element("input", {
    type: "checkbox",
    onchange: change,
    "aria-label": t("curves of {name}", { name: settingName(row) }),
  });
  box.checked = selectedSettings.has(row);
  return box;
}

const rankingColumns = [
  { title: () => t("curves"), fixed: true },
  ...page.ranking.headers.map(([header, number, descending]) => ({
    title: () => translateIfKnown(header),
    number,
    wrap: !number,
    descending,
  })),
];

const ranking = new SortableTable(byId("ranking-table"), rankingColumns);
ranking.rows = page.ranking.rows.map((cells, row) => ({
  cells: ["", ...cells],
  nodes: { 0: () => checkbox(row) },
  searchText: [page.ranking.names[row], ...cells, ...runsBySetting[row].map((index) => page.runs[index].name)]
    .join(" ")
    .toLowerCase(),
  className: row === 0 ? "best" : null,
}));

function countRanking() {
  byId("ranking-count").textContent = t("{shown} of {all}", { shown: ranking.matchingRows, all: ranking.rows.length });
}

byId("ranking-filter").addEventListener("input", (event) => {
  ranking.filter(event.target.value);
  countRanking();
});

onDraw(() => {
  ranking.draw();
  countRanking();
});
onSelect.push(() => {
  for (const box of byId("ranking-table").querySelectorAll("input")) box.checked = false;
  ranking.draw();
});
