// The median runs of the best settings: curves of a class, and confusion matrices.
const bestRuns = page.best_runs;
const hiddenBestRuns = new Set();
const MAX_BANDS = 2; // more of them hide each other

const bestRunName = (index) => {
  const { name, setting, folds } = bestRuns.runs[index];
  return page.ranking.keys || folds ? settingName(setting) : name;
};

function classCurves(name, xTitle, yTitle, hasDiagonal) {
  const label = Number(byId("curve-class").value); // index in curve_classes
  const traces = bestRuns.results.flatMap(({ by_class }, run) => {
    const curves = by_class[label];
    if (!curves || hiddenBestRuns.has(run)) return [];
    const [x, y] = curves[name];
    const more = name === "calibration" ? ` · Brier ${curves.brier.toFixed(4)}` : "";
    return [
      {
        x,
        y,
        mode: name === "calibration" ? "lines+markers" : "lines",
        line: { color: colour(run), dash: dash(run), width: 1.8 },
        ...(name === "calibration" ? { error_y: calibrationErrors(curves, run) } : {}),
        text: plotText(bestRunName(run) + more, 90),
        hovertemplate: "%{text}<br>%{x:.3f}, %{y:.3f}<extra></extra>",
      },
    ];
  });
  const guide = { mode: "lines", line: { color: css("grey"), width: 1, dash: "dot" }, hoverinfo: "skip" };
  const base = bestRuns.results[0].by_class[label]?.base_rate ?? 0;
  const shown = bestRuns.runs.map((_, run) => run).filter((run) => !hiddenBestRuns.has(run));
  const bands = shown.slice(0, MAX_BANDS).flatMap((run) => bandTraces(bestRuns.results[run].by_class[label], name, run));
  const dotted = { x: [0, 1], y: hasDiagonal ? [0, 1] : [base, base], ...guide };
  const range = { range: [-0.02, 1.02] };
  return { traces: [dotted, ...traces, ...bands], layout: layout({ xaxis: axis(xTitle, range), yaxis: axis(yTitle, range) }) };
}

// The 95% band of a curve: its lower end, and the area from there to its upper end.
function bandTraces(curves, name, run) {
  const band = curves?.[`${name}_band`];
  if (!band?.length) return [];
  const [low, high] = band;
  const x = low.map((_, index) => index / (low.length - 1));
  const line = { mode: "lines", line: { width: 0 }, hoverinfo: "skip" };
  return [
    { x, y: low, ...line },
    { x, y: high, ...line, fill: "tonexty", fillcolor: `${colour(run)}26` },
  ];
}

// The 95% interval of the observed share of each group of pairs.
function calibrationErrors({ calibration, calibration_interval }, run) {
  const [low, high] = calibration_interval;
  return {
    type: "data",
    symmetric: false,
    array: high.map((value, index) => value - calibration[1][index]),
    arrayminus: low.map((value, index) => calibration[1][index] - value),
    thickness: 1,
    width: 2,
    color: colour(run),
  };
}

function sliceTable() {
  const { settings, rows, significant } = bestRuns.slices;
  const header = (text, isNumber) => element("th", { scope: "col", class: isNumber ? "number" : "" }, text);
  const texts = [t("slice"), t("pairs"), t("difference"), t("95% CI"), "p"];
  const titles = texts.map((text, index) => header(text, index > 0));
  const lines = rows.map((cells, row) =>
    element(
      "tr",
      { style: { fontWeight: significant[row] ? "bold" : "" } },
      ...cells.map((cell, index) => element("td", { class: index ? "number" : "" }, inLanguage(cell))),
    ),
  );
  byId("slices-caption").textContent = t("Accuracy of {a} minus that of {b}, by slice of the pairs", {
    a: settingName(settings[0]),
    b: settingName(settings[1]),
  });
  byId("slices-table").replaceChildren(
    element("table", {}, element("thead", {}, element("tr", {}, ...titles)), element("tbody", {}, ...lines)),
  );
}

function confusionMatrix(run) {
  const labels = bestRuns.matrix_classes.map((label) => bestRuns.classes[label]);
  const head = element(
    "tr",
    {},
    element("th", {}, ""),
    ...labels.map((label) => element("th", { scope: "col", class: "number" }, label)),
  );
  const rows = bestRuns.results[run].confusion.map((counts, row) => {
    const total = counts.reduce((a, b) => a + b, 0) || 1;
    const cells = counts.map((count) => {
      const share = count / total;
      return element(
        "td",
        {
          style: { background: `color-mix(in srgb, ${css("accent")} ${Math.round(share * 40)}%, transparent)` },
          title: `${(100 * share).toFixed(1)}%`,
        },
        `${count} (${(100 * share).toFixed(0)}%)`,
      );
    });
    return element("tr", {}, element("th", { scope: "row" }, labels[row]), ...cells);
  });
  const table = element(
    "div",
    { class: "scroll", tabindex: "0" },
    element(
      "table",
      { style: { minWidth: `${84 * (labels.length + 1)}px` } },
      element("thead", {}, head),
      element("tbody", {}, ...rows),
    ),
  );
  return element("figure", {}, element("figcaption", {}, bestRunName(run)), table);
}

function drawClassCurves() {
  byId("best-run-names").replaceChildren(
    ...bestRuns.runs.map((_, run) =>
      toggleButton(bestRunName(run), run, !hiddenBestRuns.has(run), () => {
        hiddenBestRuns.has(run) ? hiddenBestRuns.delete(run) : hiddenBestRuns.add(run);
        drawClassCurves();
        byId("best-run-names").children[run].focus();
      }),
    ),
  );
  plot(byId("pr-plot"), () => classCurves("pr", t("recall"), t("precision (of a class)"), false));
  plot(byId("roc-plot"), () => classCurves("roc", t("false positive rate"), t("true positive rate"), true));
  plot(byId("calibration-plot"), () => classCurves("calibration", t("predicted probability"), t("observed share"), true));
}

if (bestRuns) {
  const names = bestRuns.curve_classes.map((label) => bestRuns.classes[label]);
  setOptions(byId("curve-class"), names, 0);
  byId("curve-class-box").hidden = names.length < 2;
  byId("curve-class").addEventListener("change", drawClassCurves);
}

onDraw(() => {
  byId("best-runs-box").hidden = !bestRuns;
  byId("no-best-runs").hidden = Boolean(bestRuns);
  if (!bestRuns) return;
  const values = {
    count: bestRuns.runs.length,
    all: page.ranking.rows.length,
    split: page.split,
    examples: bestRuns.examples,
    label: bestRuns.classes[bestRuns.curve_classes[0]],
  };
  const sentences = [
    t("The median run of each of the best {count} of {all} settings, on {examples} {split} pairs.", values),
  ];
  if (bestRuns.runs.some(({ folds }) => folds))
    sentences.push(t("For settings with folds: all folds of the median seed."));
  if (bestRuns.curve_classes.length === 1) sentences.push(t("The curves are for class {label}.", values));
  else if (bestRuns.curve_classes.length < bestRuns.classes.length)
    sentences.push(t("Only the most frequent classes are shown."));
  sentences.push(
    t("Calibration: ten groups of pairs by probability. On the dotted line, predicted and observed shares are equal."),
  );
  sentences.push(
    t("Bands and bars are 95% intervals for other pairs, at each point; bands are drawn for the first two runs shown."),
  );
  byId("best-runs-note").textContent = sentences.join(state.chinese ? "" : " ");
  byId("slices-box").hidden = !bestRuns.slices?.rows.length;
  if (bestRuns.slices?.rows.length) sliceTable();
  byId("confusions").replaceChildren(...bestRuns.runs.map((_, run) => confusionMatrix(run)));
  drawClassCurves();
});
