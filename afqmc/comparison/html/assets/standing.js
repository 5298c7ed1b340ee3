// Where settings stand: intervals with a dot per run, differences from the first one, cost, and expected best results.
const standingRows = page.standing.settings;
const ROW_HEIGHT = 26;

const rowNames = () => standingRows.map(({ row }) => plotText(settingName(row), 36));

function rowLayout(title) {
  return layout({
    xaxis: axis(title),
    yaxis: axis("", {
      tickvals: standingRows.map((_, index) => -index),
      ticktext: rowNames(),
      range: [-standingRows.length + 0.4, 0.6],
    }),
    margin: { l: 20, r: 16, t: 6, b: 44 },
    dragmode: false,
  });
}

// Horizontal intervals, a row per setting; those that may be the best are filled.
function intervalTrace(middle, low, high, text) {
  return {
    x: middle,
    y: standingRows.map((_, index) => -index),
    mode: "markers",
    error_x: {
      type: "data",
      symmetric: false,
      array: high.map((value, index) => value - middle[index]),
      arrayminus: low.map((value, index) => middle[index] - value),
      thickness: 2,
      color: colour(0),
    },
    marker: {
      size: 10,
      color: standingRows.map(({ may_be_best }) => (may_be_best ? colour(0) : css("panel"))),
      line: { width: 2, color: colour(0) },
    },
    text,
    hovertemplate: "%{text}<extra></extra>",
  };
}

function standingPlot() {
  const fixed = (value) => value.toFixed(4);
  const text = standingRows.map(({ mean, low, high, best_share }) =>
    plotText(`${fixed(mean)} (${fixed(low)} – ${fixed(high)}); ${t("best in {share}% of the samples", { share: Math.round(100 * best_share) })}`, 90),
  );
  const dots = {
    x: standingRows.flatMap(({ values }) => values),
    y: standingRows.flatMap(({ values }, index) => values.map(() => -index - 0.25)),
    mode: "markers",
    marker: { size: 5, opacity: 0.7, color: colour(1) },
    hovertemplate: "%{x:.4f}<extra></extra>",
  };
  const column = (key) => standingRows.map((row) => row[key]);
  return {
    traces: [dots, intervalTrace(column("mean"), column("low"), column("high"), text)],
    layout: rowLayout(plotText(page.metric)),
  };
}

function differencePlot() {
  const [value, low, high] = [0, 1, 2].map((part) => standingRows.map(({ difference }) => difference[part]));
  const text = value.map((_, index) => `${value[index].toFixed(2)} (${low[index].toFixed(2)} – ${high[index].toFixed(2)})`);
  const plotLayout = rowLayout(page.standing.unit ? t("points") : plotText(page.metric));
  plotLayout.shapes = [
    { type: "line", x0: 0, x1: 0, yref: "paper", y0: 0, y1: 1, line: { color: css("text"), width: 1, dash: "dot" } },
  ];
  return { traces: [intervalTrace(value, low, high, text)], layout: plotLayout };
}

function costPlot() {
  const minutes = ({ seconds }) => seconds / 60;
  const efficient = page.costs.filter(({ is_efficient }) => is_efficient).sort((a, b) => a.seconds - b.seconds);
  const trace = (points, more) => ({
    x: points.map(minutes),
    y: points.map(({ mean }) => mean),
    text: points.map(({ row }) => plotText(settingName(row), 80)),
    hovertemplate: "%{text}<br>%{y:.4f}<extra></extra>",
    ...more,
  });
  return {
    traces: [
      trace(page.costs, { mode: "markers", marker: { size: 7, opacity: 0.6, color: colour(0) } }),
      trace(efficient, { mode: "lines+markers", line: { color: colour(1) }, marker: { size: 8, color: colour(1) } }),
    ],
    layout: layout({ xaxis: axis(t("minutes per run"), { rangemode: "tozero" }), yaxis: axis(plotText(page.metric)) }),
  };
}

function trialsPlot() {
  const { best, hours } = page.trials;
  const line = {
    x: best.map((_, index) => index + 1),
    y: best,
    mode: "lines",
    line: { color: colour(0), width: 2 },
    text: best.map((_, index) => (hours === null ? "" : t("{hours} hours", { hours: (hours * (index + 1)).toFixed(1) }))),
    hovertemplate: "n = %{x}: %{y:.4f}<br>%{text}<extra></extra>",
  };
  return { traces: [line], layout: layout({ xaxis: axis("n"), yaxis: axis(plotText(page.metric)) }) };
}

onDraw(() => {
  byId("standing-box").hidden = standingRows.length < 2;
  byId("standing").hidden = standingRows.length < 2 && page.trials.best.length < 2;
  const list = (id, sentences) =>
    byId(id).replaceChildren(...sentences.map((sentence) => element("li", {}, inLanguage(sentence))));
  list("changes", page.changes);
  list("published", page.published);
  byId("published-box").hidden = !page.published.length;
  for (const [id, isEmpty, build] of [
    ["standing-plot", standingRows.length < 2, standingPlot],
    ["difference-plot", standingRows.length < 2, differencePlot],
    ["cost-plot", page.costs.length < 2, costPlot],
    ["trials-plot", page.trials.best.length < 2, trialsPlot],
  ]) {
    const target = byId(id);
    target.parentElement.hidden = isEmpty;
    if (isEmpty) continue;
    if (build === standingPlot || build === differencePlot) target.style.height = `${70 + ROW_HEIGHT * standingRows.length}px`;
    plot(target, build);
  }
  if (standingRows.length > 1)
    byId("difference-caption").textContent = t("Difference from {name}, with its 95% interval", { name: settingName(standingRows[0].row) });
});
