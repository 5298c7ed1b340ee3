// How the runs were made: two configs side by side, machines and versions, and the runs that came to nothing.
const { shared, varying } = page.configs;
const configTable = new SortedTable(byId("config-table"), [
  { title: () => t("setting") },
  { title: () => "A", wrap: true },
  { title: () => "B", wrap: true },
]);

function drawConfigs() {
  const [a, b] = [Number(byId("config-a").value), Number(byId("config-b").value)];
  const all = byId("config-all").checked;
  const value = (text) => text ?? "-";
  const differing = Object.entries(varying).map(([key, { values, of }]) => [
    key,
    value(values[of[a]]),
    value(values[of[b]]),
  ]);
  const kept = differing.filter(([, one, other]) => all || one !== other);
  const equal = all ? Object.entries(shared).map(([key, text]) => [key, value(text), value(text)]) : [];
  configTable.rows = [...kept, ...equal].map((cells) => ({ cells, searched: cells.join(" ").toLowerCase() }));
  configTable.filter(byId("config-filter").value);
  byId("config-count").textContent = 
    configTable.shownRows === 1 ? t("1 setting") : t("{count} settings", { count: configTable.shownRows });
}

// The best run, and the first that has another setting.
const second = page.runs.findIndex((run) => run.setting === 1);
for (const [id, chosen] of [
  ["config-a", 0],
  ["config-b", second < 0 ? page.runs.length - 1 : second],
]) {
  options(
    byId(id),
    page.runs.map((_, number) => short(runName(number), 90)),
    chosen,
  );
  byId(id).addEventListener("change", drawConfigs);
}
byId("config-all").addEventListener("change", drawConfigs);
byId("config-filter").addEventListener("input", drawConfigs);
byId("configs").hidden = page.runs.length < 2;
shown(drawConfigs);

const plainTable = (id, columns, rows) => {
  const table = new SortedTable(byId(id), columns);
  table.rows = rows;
  shown(() => table.draw());
};

const facts = page.machines.flatMap(({ fact, values }) =>
  values.map(([value, count]) => ({ cells: [fact, value, String(count)] })),
);
plainTable(
  "machines-table",
  [
    { title: () => t("what"), text: own },
    { title: () => t("value"), wrap: true },
    { title: () => t("runs"), number: true, down: true },
  ],
  facts,
);
byId("machines").hidden = !facts.length;

plainTable(
  "unfinished-table",
  [
    { title: () => t("run"), wrap: true },
    { title: () => t("status"), text: own },
    { title: () => t("why"), wrap: true },
  ],
  page.unfinished.map(([name, status, why]) => ({
    cells: [name, status, why[0]],
    nodes: { 2: () => either(why) },
  })),
);
byId("unfinished").hidden = !page.unfinished.length;
