// The sweep: every run as a line over the settings, which of these matter, and each by itself.
const KEPT_AXES = 12; // more are not legible; the most important first
const PLACES = 40; // values of an axis with a tick of their own
const [FEW, RUNS_A_MEAN] = [12, 3]; // values whose means are joined by a line, however few runs each has; runs a value of more

// A number as a person would type it.
function typed(value) {
  const size = Math.abs(value);
  return size && (size < 1e-3 || size >= 1e6) ? Number(value.toPrecision(3)).toExponential() : String(Number(value.toPrecision(4)));
}

const known = page.runs.map((run, number) => number).filter((number) => page.runs[number].value !== null);
const figures = known.map((number) => page.runs[number].value);
const shares = page.importance.shares;
const axisOrder = page.axes.map((_, place) => place).sort((one, other) => (shares ? shares[other] - shares[one] : 0)).slice(0, KEPT_AXES);

const axisTitle = ({ name, keys }) => plain(keys.length > 1 ? `${name} ${t("(and {more} more)", { more: keys.length - 1 })}` : name, 40);

function categories(values) {
  const names = [...new Set(values)].sort((one, other) => compared(rank(one), rank(other), 1));
  return { names, place: new Map(names.map((name, at) => [name, at])) };
}

// Values with a tick of their own, and its text; none where the plot chooses better.
function ticks(one, values) {
  if (!one.is_number) {
    const names = categories(values).names;
    return names.length > PLACES ? null : { tickvals: names.map((_, at) => at), ticktext: names.map((name) => plain(name, 18)) };
  }
  const distinct = [...new Set(values)].sort((a, b) => a - b);
  return distinct.length > 8 ? null : { tickvals: distinct, ticktext: distinct.map(typed) };
}

// An axis of the parallel coordinates, from 0 at its foot to 1.
function upright(one, label) {
  const values = known.map((number) => one.values[number]);
  const scale = one.is_number ? (one.is_log ? Math.log10 : Number) : (at) => at;
  const at = one.is_number ? values : values.map((value) => categoriesOf.get(one).place.get(value));
  const placed = at.map(scale);
  const [low, high] = [Math.min(...placed), Math.max(...placed)];
  const place = (value) => (high > low ? (scale(value) - low) / (high - low) : 0.5);
  const ends = [Math.min(...at), Math.max(...at)].map((value) => [place(value), typed(value)]);
  const own = ticks(one, values);
  const crowded = !own && !one.is_number;
  return { label, at: at.map(place), texts: values.map((value) => plain(value, 24)), ticks: own ? own.tickvals.map((value, n) => [place(value), own.ticktext[n]]) : crowded ? [] : ends };
}

const categoriesOf = new Map(page.axes.filter((one) => !one.is_number).map((one) => [one, categories(known.map((number) => one.values[number]))]));
let kept = null; // places in known of the runs that were chosen by dragging; null for all

const SHADES = 8;
const mix = (one, other, share) => `rgb(${one.map((value, at) => Math.round(value + share * (other[at] - value))).join(",")})`;
const shade = (level) => (state.dark ? mix([74, 92, 134], [255, 226, 80], level / (SHADES - 1)) : mix([168, 196, 224], [66, 10, 104], level / (SHADES - 1)));

// One trace a shade, broken between runs; the best are drawn last.
function parallel() {
  const own = axisOrder.map((place) => upright(page.axes[place], axisTitle(page.axes[place])));
  const metric = { is_number: true, is_log: false, values: page.runs.map((run) => run.value) };
  const all = [...own, upright(metric, plain(page.metric))];
  byId("parallel-plot").style.minWidth = `${100 * all.length}px`;
  const goodness = all.at(-1).at.map((place) => (page.higher_is_better ? place : 1 - place));
  const groups = [...Array(SHADES + 1)].map(() => []); // the first: what is not kept
  known.forEach((_, run) => groups[kept && !kept.has(run) ? 0 : 1 + Math.round(goodness[run] * (SHADES - 1))].push(run));
  const traces = groups.map((runs, level) => ({
    x: runs.flatMap(() => [...all.keys(), null]),
    y: runs.flatMap((run) => [...all.map((one) => one.at[run]), null]),
    customdata: runs.flatMap((run) => [...all.map(() => run), null]),
    text: runs.flatMap((run) => [...all.map((one) => `${plain(runName(known[run]), 80)}<br>${one.label}: ${one.texts[run]}`), ""]),
    mode: "lines+markers", marker: { size: known.length > 200 ? 3 : 5 }, hovertemplate: "%{text}<extra></extra>",
    line: { color: level ? shade(level - 1) : css("grey"), width: known.length > 200 ? 0.5 : 1.3 }, opacity: level ? 0.85 : 0.25,
    selected: { marker: { opacity: 1 } }, unselected: { marker: { opacity: 1 } },
  })).filter(({ x }) => x.length);
  const note = (x, y, text, more) => ({ x, y, text, showarrow: false, font: { size: 11 }, ...more });
  const annotations = all.flatMap((one, x) => [
    note(x, 1.12, `<b>${one.label}</b>`, { yanchor: "middle" }),
    ...one.ticks.map(([y, text]) => note(x, y, text, { xanchor: "right", xshift: -5, bgcolor: css("ground"), opacity: 0.85 })),
  ]);
  const shapes = all.map((_, x) => ({ type: "line", x0: x, x1: x, y0: 0, y1: 1, line: { color: css("quiet"), width: 1 }, layer: "below" }));
  const hidden = { visible: false, fixedrange: true };
  return {
    traces,
    layout: layout({ annotations, shapes, selections: [], margin: { l: 10, r: 10, t: 6, b: 14 }, dragmode: matchMedia("(pointer: coarse)").matches ? false : "select", xaxis: { ...hidden, range: [-0.6, all.length - 0.6] }, yaxis: { ...hidden, range: [-0.05, 1.2] } }),
    onselected: (event) => {
      const touched = new Set((event?.points ?? []).map((point) => point.customdata).filter((run) => !kept || kept.has(run)));
      if (touched.size) keep(touched);
    },
  };
}

function keep(runs) {
  kept = runs;
  byId("parallel-count").textContent = t("{shown} of {all}", { shown: kept ? kept.size : known.length, all: known.length });
  plot(byId("parallel-plot"), parallel);
}

byId("parallel-all").addEventListener("click", () => keep(null));

function importances() {
  const rising = [...axisOrder].reverse();
  const names = rising.map((place) => axisTitle(page.axes[place]));
  const bars = { type: "bar", orientation: "h", x: rising.map((place) => shares[place]), y: names.map((_, at) => at), text: rising.map((place) => shares[place].toFixed(3)), textposition: "outside", cliponaxis: false, marker: { color: colour(0) }, hoverinfo: "skip" };
  return { traces: [bars], layout: layout({ xaxis: axis(t("share"), { rangemode: "tozero" }), yaxis: axis("", { tickvals: names.map((_, at) => at), ticktext: names }), margin: { l: 20, r: 50, t: 6, b: 40 }, dragmode: false }) };
}

function marginal(one) {
  const values = known.map((number) => one.values[number]);
  const groups = one.is_number ? null : categories(values);
  const x = groups ? values.map((value) => groups.place.get(value)) : values;
  const sums = new Map();
  x.forEach((value, at) => sums.set(value, [...(sums.get(value) ?? []), figures[at]]));
  const means = [...sums].sort((a, b) => a[0] - b[0]).map(([value, of]) => [value, of.reduce((a, b) => a + b, 0) / of.length]);
  const dots = { x, y: figures, mode: "markers", marker: { size: 6, opacity: 0.55, color: colour(0) }, text: known.map((number) => plain(runName(number), 80)), hovertemplate: "%{text}<br>%{y:.4f}<extra></extra>" };
  const line = { x: means.map(([value]) => value), y: means.map(([, mean]) => mean), mode: "lines+markers", line: { color: colour(1), width: 2 }, marker: { size: 8, symbol: "diamond" }, hovertemplate: `${plain(t("mean"))} %{y:.4f}<extra></extra>` };
  const own = ticks(one, values) ?? {};
  const log = one.is_log ? { type: "log", ...(own.tickvals ? {} : { dtick: 1, exponentformat: "e" }) } : {};
  const repeated = means.length <= FEW || RUNS_A_MEAN * means.length <= known.length;
  return { traces: repeated ? [dots, line] : [dots], layout: layout({ xaxis: axis(axisTitle(one), { ...own, ...log }), yaxis: axis(plain(page.metric)) }) };
}

const marginalPlots = axisOrder.map(() => element("div", { class: "plot" }));
byId("marginals").append(...marginalPlots);

shown(() => {
  const nothing = !page.axes.length || !known.length;
  byId("sweep-box").hidden = nothing;
  byId("sweep-note").textContent = nothing ? t("The runs differ in no setting but the seed.") : "";
  if (nothing) return;
  if (page.axes.length > KEPT_AXES) byId("sweep-note").textContent = t("Drawn: {kept} of {all} settings that differ.", { kept: KEPT_AXES, all: page.axes.length });
  keep(kept);
  byId("importance-note").textContent = either(page.importance.why);
  byId("importance-plot").hidden = !shares;
  byId("importance-plot").style.height = `${70 + 28 * axisOrder.length}px`;
  if (shares) plot(byId("importance-plot"), importances);
  axisOrder.forEach((place, at) => plot(marginalPlots[at], () => marginal(page.axes[place])));
});
