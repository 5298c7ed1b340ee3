// The pairs of which two runs think most differently.
const MOST_LINES = 200; // of the table at once; the search looks at all
const disputed = page.closer && page.closer.runs.length > 1 ? page.closer.pairs : null;

function pairsTable() {
  const given = unpacked(disputed.given, Float32Array);
  const said = unpacked(disputed.said, Int32Array);
  const rows = disputed.ids.length;
  const name = (number) => page.closer.classes[number];
  const texts = disputed.sentences
    ? [
        { title: () => t("first sentence"), wrap: true },
        { title: () => t("second sentence"), wrap: true },
      ]
    : [];
  const columns = [
    { title: () => "id" },
    ...texts,
    { title: () => t("label") },
    { title: () => "A" },
    { title: () => "B" },
    { title: () => t("A: p(label)"), number: true },
    { title: () => t("B: p(label)"), number: true },
    { title: () => t("apart"), number: true, down: true },
  ];
  const table = new SortedTable(byId("pairs-table"), columns, MOST_LINES);

  function row(at, a, b) {
    const [one, other] = [said[a * rows + at], said[b * rows + at]];
    const [p, q] = [given[a * rows + at], given[b * rows + at]];
    const gold = disputed.gold[at];
    const cells = [
      disputed.ids[at],
      ...(disputed.sentences?.[at] ?? []),
      name(gold),
      name(one),
      name(other),
      p.toFixed(3),
      q.toFixed(3),
      Math.abs(p - q).toFixed(3),
    ];
    const first = texts.length + 2; // the place of A's prediction
    const marks = { [first]: one === gold ? "" : "wrong", [first + 1]: other === gold ? "" : "wrong" };
    return {
      cells,
      marks,
      searched: cells.join(" ").toLowerCase(),
      a: one === gold,
      b: other === gold,
      apart: Math.abs(p - q),
    };
  }

  const kinds = {
    all: () => true,
    a: (row) => row.a && !row.b,
    b: (row) => row.b && !row.a,
    wrong: (row) => !row.a && !row.b,
  };

  return () => {
    const [a, b] = [Number(byId("pairs-a").value), Number(byId("pairs-b").value)];
    const found = disputed.ids.map((_, at) => row(at, a, b)).filter(kinds[byId("pairs-kind").value]);
    table.rows = found.sort((one, other) => other.apart - one.apart);
    table.filter(byId("pairs-filter").value);
    const count = { found: table.shownRows, shown: Math.min(table.shownRows, MOST_LINES) };
    byId("pairs-count").textContent = t("{found} found, {shown} shown", count);
  };
}

if (disputed) {
  const draw = pairsTable();
  for (const id of ["pairs-a", "pairs-b", "pairs-kind"]) byId(id).addEventListener("change", draw);
  byId("pairs-filter").addEventListener("input", draw);
  options(
    byId("pairs-a"),
    page.closer.runs.map((_, run) => closerName(run)),
    0,
  );
  options(
    byId("pairs-b"),
    page.closer.runs.map((_, run) => closerName(run)),
    1,
  );
  shown(() => {
    const told = [t("Underlined: wrong.")];
    if (disputed.ids.length < page.closer.examples)
      told.push(
        t("Held here: the {kept} of {all} pairs on which these runs differ most.", {
          kept: disputed.ids.length,
          all: page.closer.examples,
        }),
      );
    if (disputed.sentences) told.push(t("This page holds the sentences of your data: think before you hand it on."));
    else
      told.push(
        disputed.why ? `${t("Without sentences:")} ${either(disputed.why)}` : t("Without sentences, as was asked."),
      );
    byId("pairs-note").textContent = told.join(" ");
    draw();
  });
} else {
  byId("pairs-box").hidden = true;
  byId("pairs").append(element("p", { class: "quiet", "data-t": true }, "It takes two settings that can be compared."));
}
