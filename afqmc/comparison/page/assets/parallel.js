// Parallel coordinates: a run as a line over the settings; a box dragged on an axis keeps the runs in it.
const categoriesOf = new Map(
  page.axes.filter((one) => !one.is_number).map((one) => [one, categories(known.map((number) => one.values[number]))]),
);
let kept = null; // places in known of the runs that were chosen by dragging; null for all

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
  return {
    label,
    at: at.map(place),
    texts: values.map((value) => plain(value, 24)),
    ticks: own ? own.tickvals.map((value, n) => [place(value), own.ticktext[n]]) : crowded ? [] : ends,
  };
}

const SHADES = 8;
const MANY = 200; // runs, beyond which lines are thin
const mix = (one, other, share) =>
  `rgb(${one.map((value, at) => Math.round(value + share * (other[at] - value))).join(",")})`;
const shade = (level) =>
  state.dark
    ? mix([74, 92, 134], [255, 226, 80], level / (SHADES - 1))
    : mix([168, 196, 224], [66, 10, 104], level / (SHADES - 1));

// The settings and, last, the metric.
function uprights() {
  const own = axisOrder.map((place) => upright(page.axes[place], axisTitle(page.axes[place])));
  const metric = { is_number: true, is_log: false, values: page.runs.map((run) => run.value) };
  return [...own, upright(metric, plain(page.metric))];
}

// One trace a shade, broken between runs; the best are drawn last.
function polylines(all) {
  const goodness = all.at(-1).at.map((place) => (page.higher_is_better ? place : 1 - place));
  const groups = [...Array(SHADES + 1)].map(() => []); // the first: what is not kept
  known.forEach((_, run) =>
    groups[kept && !kept.has(run) ? 0 : 1 + Math.round(goodness[run] * (SHADES - 1))].push(run),
  );
  const many = known.length > MANY;
  const texts = (run) => all.map((one) => `${plain(runName(known[run]), 80)}<br>${one.label}: ${one.texts[run]}`);
  return groups
    .map((runs, level) => ({
      x: runs.flatMap(() => [...all.keys(), null]),
      y: runs.flatMap((run) => [...all.map((one) => one.at[run]), null]),
      customdata: runs.flatMap((run) => [...all.map(() => run), null]),
      text: runs.flatMap((run) => [...texts(run), ""]),
      mode: "lines+markers",
      marker: { size: many ? 3 : 5 },
      hovertemplate: "%{text}<extra></extra>",
      line: { color: level ? shade(level - 1) : css("grey"), width: many ? 0.5 : 1.3 },
      opacity: level ? 0.85 : 0.25,
      selected: { marker: { opacity: 1 } },
      unselected: { marker: { opacity: 1 } },
    }))
    .filter(({ x }) => x.length);
}

// Names above the axes, values beside them.
function labels(all) {
  const note = (x, y, text, more) => ({ x, y, text, showarrow: false, font: { size: 11 }, ...more });
  const beside = { xanchor: "right", xshift: -5, bgcolor: css("ground"), opacity: 0.85 };
  return all.flatMap((one, x) => [
    note(x, 1.12, `<b>${one.label}</b>`, { yanchor: "middle" }),
    ...one.ticks.map(([y, text]) => note(x, y, text, beside)),
  ]);
}

function parallel() {
  const all = uprights();
  byId("parallel-plot").style.minWidth = `${100 * all.length}px`;
  const line = { type: "line", y0: 0, y1: 1, line: { color: css("quiet"), width: 1 }, layer: "below" };
  const hidden = { visible: false, fixedrange: true };
  return {
    traces: polylines(all),
    layout: layout({
      annotations: labels(all),
      shapes: all.map((_, x) => ({ x0: x, x1: x, ...line })),
      selections: [],
      margin: { l: 10, r: 10, t: 6, b: 14 },
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "select",
      xaxis: { ...hidden, range: [-0.6, all.length - 0.6] },
      yaxis: { ...hidden, range: [-0.05, 1.2] },
    }),
    onselected: (event) => {
      const touched = (event?.points ?? []).map((point) => point.customdata);
      const runs = new Set(touched.filter((run) => !kept || kept.has(run)));
      if (runs.size) keep(runs);
    },
  };
}

function keep(runs) {
  kept = runs;
  byId("parallel-count").textContent = t("{shown} of {all}", {
    shown: kept ? kept.size : known.length,
    all: known.length,
  });
  plot(byId("parallel-plot"), parallel);
}

byId("parallel-all").addEventListener("click", () => keep(null));
