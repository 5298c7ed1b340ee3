// The importance of the settings, and the metric against each setting.
// The means of values are joined by a line if there are few values, or several runs per value.
const [FEW_VALUES, RUNS_PER_MEAN] = [12, 3];

function importancePlot() {
  const ascending = [...axisOrder].reverse();
  const names = ascending.map((index) => axisTitle(page.axes[index]));
  const bars = {
    type: "bar",
    orientation: "h",
    x: ascending.map((index) => shares[index]),
    y: names.map((_, row) => row),
    text: ascending.map((index) => shares[index].toFixed(3)),
    textposition: "outside",
    cliponaxis: false,
    marker: { color: colour(0) },
    hoverinfo: "skip",
  };
  return {
    traces: [bars],
    layout: layout({
      xaxis: axis(t("share"), { rangemode: "tozero" }),
      yaxis: axis("", { tickvals: names.map((_, row) => row), ticktext: names }),
      margin: { l: 20, r: 50, t: 6, b: 40 },
      dragmode: false,
    }),
  };
}

function settingPlot(dimension) {
  const values = scoredRuns.map((run) => dimension.values[run]);
  const groups = dimension.is_number ? null : categories(values);
  const x = groups ? values.map((value) => groups.index.get(value)) : values;
  const scoresByValue = new Map();
  x.forEach((value, index) => scoresByValue.set(value, [...(scoresByValue.get(value) ?? []), scores[index]]));
  const means = [...scoresByValue]
    .sort(([a], [b]) => a - b)
    .map(([value, group]) => [value, group.reduce((a, b) => a + b, 0) / group.length]);
  const dots = {
    x,
    y: scores,
    mode: "markers",
    marker: { size: 6, opacity: 0.55, color: colour(0) },
    text: scoredRuns.map((run) => plotText(runName(run), 80)),
    hovertemplate: "%{text}<br>%{y:.4f}<extra></extra>",
  };
  const line = {
    x: means.map(([value]) => value),
    y: means.map(([, mean]) => mean),
    mode: "lines+markers",
    line: { color: colour(1), width: 2 },
    marker: { size: 8, symbol: "diamond" },
    hovertemplate: `${plotText(t("mean"))} %{y:.4f}<extra></extra>`,
  };
  const valueTicks = ticks(dimension, values) ?? {};
  const logTicks = valueTicks.tickvals ? {} : { dtick: 1, exponentformat: "e" };
  const log = dimension.is_log ? { type: "log", ...logTicks } : {};
  const hasMeans = means.length <= FEW_VALUES || RUNS_PER_MEAN * means.length <= scoredRuns.length;
  return {
    traces: hasMeans ? [dots, line] : [dots],
    layout: layout({
      xaxis: axis(axisTitle(dimension), { ...valueTicks, ...log }),
      yaxis: axis(plotText(page.metric)),
    }),
  };
}

const settingPlots = axisOrder.map(() => element("div", { class: "plot" }));
byId("setting-plots").append(...settingPlots);

onDraw(() => {
  const isEmpty = !page.axes.length || !scoredRuns.length;
  byId("sweep-box").hidden = isEmpty;
  byId("sweep-note").textContent = isEmpty ? t("The runs differ only in the seed and the fold.") : "";
  if (isEmpty) return;
  if (page.axes.length > MAX_AXES)
    byId("sweep-note").textContent = t("Only {shown} of the {all} varying settings are drawn.", {
      shown: MAX_AXES,
      all: page.axes.length,
    });
  drawLimits();
  selectRuns(draggedRuns);
  byId("importance-note").textContent = inLanguage(page.importance.note);
  byId("importance-plot").hidden = !shares;
  byId("importance-plot").style.height = `${70 + 28 * axisOrder.length}px`;
  if (shares) plot(byId("importance-plot"), importancePlot);
  axisOrder.forEach((index, i) => plot(settingPlots[i], () => settingPlot(page.axes[index])));
});
