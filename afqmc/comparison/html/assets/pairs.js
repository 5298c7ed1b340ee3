// The pairs on which two runs disagree most.
const MAX_ROWS = 200; // displayed at once; the search covers all
const disagreements = bestRuns && bestRuns.runs.length > 1 ? bestRuns.pairs : null;

function pairsTable() {
  const probabilities = decodeArray(disagreements.probabilities, Float32Array); // (runs, pairs), of the true label
  const predicted = decodeArray(disagreements.predicted, Uint16Array); // (runs, pairs)
  const count = disagreements.ids.length;
  const className = (label) => bestRuns.classes[label];
  const textColumns = disagreements.sentences
    ? [
        { title: () => t("sentence 1"), wrap: true },
        { title: () => t("sentence 2"), wrap: true },
      ]
    : [];
  const columns = [
    { title: () => "id" },
    ...textColumns,
    { title: () => t("label") },
    { title: () => "A" },
    { title: () => "B" },
    { title: () => t("A: p(label)"), number: true },
    { title: () => t("B: p(label)"), number: true },
    { title: () => t("difference"), number: true, descending: true },
  ];
  const table = new SortableTable(byId("pairs-table"), columns, MAX_ROWS);

  function row(pair, a, b) {
    const [labelA, labelB] = [predicted[a * count + pair], predicted[b * count + pair]];
    const [pA, pB] = [probabilities[a * count + pair], probabilities[b * count + pair]];
    const gold = disagreements.gold[pair];
    const difference = Math.abs(pA - pB);
    const cells = [
      disagreements.ids[pair],
      ...(disagreements.sentences?.[pair] ?? []),
      className(gold),
      className(labelA),
      className(labelB),
      pA.toFixed(3),
      pB.toFixed(3),
      difference.toFixed(3),
    ];
    const columnA = textColumns.length + 2; // index of A's prediction
    const marks = { [columnA]: labelA === gold ? "" : "wrong", [columnA + 1]: labelB === gold ? "" : "wrong" };
    return {
      cells,
      marks,
      searchText: cells.join(" ").toLowerCase(),
      isCorrectA: labelA === gold,
      isCorrectB: labelB === gold,
      difference,
    };
  }

  const kinds = {
    all: () => true,
    a: (row) => row.isCorrectA && !row.isCorrectB,
    b: (row) => row.isCorrectB && !row.isCorrectA,
    wrong: (row) => !row.isCorrectA && !row.isCorrectB,
  };

  return () => {
    const [a, b] = [Number(byId("pairs-a").value), Number(byId("pairs-b").value)];
    const rows = disagreements.ids.map((_, pair) => row(pair, a, b)).filter(kinds[byId("pairs-kind").value]);
    table.rows = rows.sort((a, b) => b.difference - a.difference);
    table.filter(byId("pairs-filter").value);
    const counts = { found: table.matchingRows, shown: Math.min(table.matchingRows, MAX_ROWS) };
    byId("pairs-count").textContent = t("{found} found, {shown} shown", counts);
  };
}

if (disagreements) {
  const draw = pairsTable();
  for (const id of ["pairs-a", "pairs-b", "pairs-kind"]) byId(id).addEventListener("change", draw);
  byId("pairs-filter").addEventListener("input", draw);
  const names = bestRuns.runs.map((_, run) => bestRunName(run));
  setOptions(byId("pairs-a"), names, 0);
  setOptions(byId("pairs-b"), names, 1);
  onDraw(() => {
    const [shown, all] = [disagreements.ids.length, bestRuns.examples];
    const sentences = [t("Underlined: wrong.")];
    if (shown < all)
      sentences.push(t("Only the {shown} of {all} pairs on which these runs disagree most.", { shown, all }));
    if (disagreements.sentences)
      sentences.push(t("This page contains sentences from your data: think before you share it."));
    else if (disagreements.why) sentences.push(`${t("Without sentences:")} ${inLanguage(disagreements.why)}`);
    else sentences.push(t("Without sentences, as requested."));
    byId("pairs-note").textContent = sentences.join(" ");
    draw();
  });
} else {
  byId("pairs-box").hidden = true;
  byId("pairs").append(element("p", { class: "quiet", "data-t": true }, "This requires two comparable settings."));
}
