// How the runs were made: two configs side by side, machines and versions, and the unfinished runs.
const { shared, varying } = page.configs;
const configTable = new SortableTable(byId("config-table"), [
  { title: () => t("setting") },
  { title: () => "A", wrap: true },
  { title: () => "B", wrap: true },
]);

function drawConfigs() {
  const [a, b] = [Number(byId("config-a").value), Number(byId("config-b").value)];
  const showsEqual = byId("config-all").checked;
  const text = (value) => value ?? "-";
  const rows = Object.entries(varying)
    .map(([key, { values, index_by_run }]) => [key, text(values[index_by_run[a]]), text(values[index_by_run[b]])])
    .filter(([, valueA, valueB]) => showsEqual || valueA !== valueB);
  if (showsEqual) rows.push(...Object.entries(shared).map(([key, value]) => [key, text(value), text(value)]));
  configTable.rows = rows.map((cells) => ({ cells, searchText: cells.join(" ").toLowerCase() }));
  configTable.filter(byId("config-filter").value);
  const count = configTable.matchingRows;
  byId("config-count").textContent = count === 1 ? t("1 setting") : t("{count} settings", { count });
}

// At first, compare the best run with the first run of the second-best setting.
const secondSetting = page.runs.findIndex((run) => run.setting === 1);
for (const [id, selected] of [
  ["config-a", 0],
  ["config-b", secondSetting < 0 ? page.runs.length - 1 : secondSetting],
]) {
  const names = page.runs.map((_, index) => shorten(runName(index), 90));
  setOptions(byId(id), names, selected);
  byId(id).addEventListener("change", drawConfigs);
}
byId("config-all").addEventListener("change", drawConfigs);
byId("config-filter").addEventListener("input", drawConfigs);
byId("configs").hidden = page.runs.length < 2;
onDraw(drawConfigs);

const staticTable = (id, columns, rows) => {
  const table = new SortableTable(byId(id), columns);
  table.rows = rows;
  onDraw(() => table.draw());
};

const facts = page.machines.flatMap(({ fact, values }) =>
  values.map(([value, count]) => ({ cells: [fact, value, String(count)] })),
);
staticTable(
  "machines-table",
  [
    { title: () => t("item"), text: translateIfKnown },
    { title: () => t("value"), wrap: true },
    { title: () => t("runs"), number: true, descending: true },
  ],
  facts,
);
byId("machines").hidden = !facts.length;

staticTable(
  "unfinished-table",
  [
    { title: () => t("run"), wrap: true },
    { title: () => t("status"), text: translateIfKnown },
    { title: () => t("why"), wrap: true },
  ],
  page.unfinished.map(([name, status, why]) => ({
    cells: [name, status, why[0]],
    nodes: { 2: () => inLanguage(why) },
  })),
);
byId("unfinished").hidden = !page.unfinished.length;
