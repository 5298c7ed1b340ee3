// Which settings matter, and each by itself.
const [FEW, RUNS_A_MEAN] = [12, 3]; // values whose means are joined by a line, however few runs each has; runs a value of more

function importances() {
  const rising = [...axisOrder].reverse();
  const names = rising.map((place) => axisTitle(page.axes[place]));
  const bars = {
    type: "bar",
    orientation: "h",
    x: rising.map((place) => shares[place]),
    y: names.map((_, at) => at),
    text: rising.map((place) => shares[place].toFixed(3)),
    textposition: "outside",
    cliponaxis: false,
    marker: { color: colour(0) },
    hoverinfo: "skip",
  };
  return {
    traces: [bars],
    layout: layout({
      xaxis: axis(t("share"), { rangemode: "tozero" }),
      yaxis: axis("", { tickvals: names.map((_, at) => at), ticktext: names }),
      margin: { l: 20, r: 50, t: 6, b: 40 },
      dragmode: false,
    }),
  };
}

function marginal(one) {
  const values = known.map((number) => one.values[number]);
  const groups = one.is_number ? null : categories(values);
  const x = groups ? values.map((value) => groups.place.get(value)) : values;
  const sums = new Map();
  x.forEach((value, at) => sums.set(value, [...(sums.get(value) ?? []), figures[at]]));
  const means = [...sums]
    .sort((a, b) => a[0] - b[0])
    .map(([value, of]) => [value, of.reduce((a, b) => a + b, 0) / of.length]);
  const dots = {
    x,
    y: figures,
    mode: "markers",
    marker: { size: 6, opacity: 0.55, color: colour(0) },
    text: known.map((number) => plain(runName(number), 80)),
    hovertemplate: "%{text}<br>%{y:.4f}<extra></extra>",
  };
  const line = {
    x: means.map(([value]) => value),
    y: means.map(([, mean]) => mean),
    mode: "lines+markers",
    line: { color: colour(1), width: 2 },
    marker: { size: 8, symbol: "diamond" },
    hovertemplate: `${plain(t("mean"))} %{y:.4f}<extra></extra>`,
  };
  const own = ticks(one, values) ?? {};
  const log = one.is_log ? { type: "log", ...(own.tickvals ? {} : { dtick: 1, exponentformat: "e" }) } : {};
  const repeated = means.length <= FEW || RUNS_A_MEAN * means.length <= known.length;
  return {
    traces: repeated ? [dots, line] : [dots],
    layout: layout({ xaxis: axis(axisTitle(one), { ...own, ...log }), yaxis: axis(plain(page.metric)) }),
  };
}

const marginalPlots = axisOrder.map(() => element("div", { class: "plot" }));
byId("marginals").append(...marginalPlots);

shown(() => {
  const nothing = !page.axes.length || !known.length;
  byId("sweep-box").hidden = nothing;
  byId("sweep-note").textContent = nothing ? t("The runs differ in no setting but the seed and the fold.") : "";
  if (nothing) return;
  if (page.axes.length > KEPT_AXES)
    byId("sweep-note").textContent = t("Drawn: {kept} of {all} settings that differ.", {
      kept: KEPT_AXES,
      all: page.axes.length,
    });
  drawLimits();
  keep(kept);
  byId("importance-note").textContent = either(page.importance.why);
  byId("importance-plot").hidden = !shares;
  byId("importance-plot").style.height = `${70 + 28 * axisOrder.length}px`;
  if (shares) plot(byId("importance-plot"), importances);
  axisOrder.forEach((place, at) => plot(marginalPlots[at], () => marginal(page.axes[place])));
});
