// Parallel coordinates: a run as a line over the settings; a box dragged on an axis keeps the runs in it.
const categoriesOf = new Map(
  page.axes.filter((one) => !one.is_number).map((one) => [one, categories(known.map((number) => one.values[number]))]),
);
const theMetric = { name: page.metric, keys: [], is_number: true, is_log: false, values: page.runs.map((run) => run.value) };
const dimensions = [...axisOrder.map((place) => page.axes[place]), theMetric]; // the settings and, last, the metric
let kept = null; // places in known of the runs that were chosen by dragging; null for all
const limits = new Map(); // by dimension: what was chosen by value, [from, to] or one category
const LISTED = 40; // values to choose from

function isKept(run) {
  const inside = ([one, wanted]) => {
    const value = one.values[known[run]];
    return one.is_number ? wanted[0] <= value && value <= wanted[1] : value === wanted;
  };
  return (!kept || kept.has(run)) && [...limits].every(inside);
}

// Distinct values, rising; evenly many runs apart where there are too many to list.
function choices(one) {
  if (!one.is_number) return categoriesOf.get(one).names;
  const values = known.map((number) => one.values[number]);
  const distinct = [...new Set(values)].sort((a, b) => a - b);
  if (distinct.length <= LISTED) return distinct;
  const last = distinct.length - 1;
  return [...Array(LISTED)].map((_, at) => distinct[Math.round((at * last) / (LISTED - 1))]);
}

// Lists to choose from: of numbers from and to, else one value.
function limit(one) {
  const [found, chosen] = [choices(one), limits.get(one)];
  const list = (title, texts, at, change) => {
    const select = element("select", { "aria-label": title, onchange: () => change(Number(select.value)) });
    options(select, texts, at);
    return select;
  };
  const set = (wanted) => {
    if (wanted === null) limits.delete(one);
    else limits.set(one, wanted);
    keep(kept);
  };
  const name = axisTitleText(one);
  if (!one.is_number) {
    const at = chosen === undefined ? 0 : 1 + found.indexOf(chosen);
    const change = (place) => set(place ? found[place - 1] : null);
    return [list(name, [t("any"), ...found.map((text) => short(text, 40))], at, change)];
  }
  const [low, high] = (chosen ?? [found[0], found.at(-1)]).map((value) => found.indexOf(value));
  const between = () => limits.get(one) ?? [found[0], found.at(-1)];
  return [
    list(t("{name}, from", { name }), found.map(typed), low, (place) => set([found[place], between()[1]])),
    "–",
    list(t("{name}, to", { name }), found.map(typed), high, (place) => set([between()[0], found[place]])),
  ];
}

function drawLimits() {
  byId("parallel-limits").replaceChildren(
    ...dimensions.map((one) => element("div", { class: "limit" }, element("span", {}, axisTitleText(one)), ...limit(one))),
  );
}

byId("parallel-choice").open = matchMedia("(pointer: coarse)").matches;

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

const uprights = () =>
  dimensions.map((one) => upright(one, one === theMetric ? plain(page.metric) : axisTitle(one)));

// One trace a shade, broken between runs; the best are drawn last.
function polylines(all) {
  const goodness = all.at(-1).at.map((place) => (page.higher_is_better ? place : 1 - place));
  const groups = [...Array(SHADES + 1)].map(() => []); // the first: what is not kept
  known.forEach((_, run) =>
    groups[!isKept(run) ? 0 : 1 + Math.round(goodness[run] * (SHADES - 1))].push(run),
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
      const runs = new Set(touched.filter(isKept));
      if (runs.size) keep(runs);
    },
  };
}

function keep(runs) {
  kept = runs;
  byId("parallel-count").textContent = t("{shown} of {all}", {
    shown: known.filter((_, run) => isKept(run)).length,
    all: known.length,
  });
  plot(byId("parallel-plot"), parallel);
}

byId("parallel-all").addEventListener("click", () => {
  limits.clear();
  drawLimits();
  keep(null);
});
