// Parallel coordinates: each run is a line across the settings. Dragging a box on an axis keeps the runs inside it.
const categoriesOf = new Map(
  page.axes
    .filter((axis) => !axis.is_number)
    .map((axis) => [axis, categories(scoredRuns.map((run) => axis.values[run]))]),
);
const metricAxis = { name: page.metric, keys: [], is_number: true, is_log: false, values: page.runs.map((run) => run.value) };
const dimensions = [...axisOrder.map((index) => page.axes[index]), metricAxis];
let draggedRuns = null; // indices in scoredRuns of the runs selected by dragging; null for all
const limits = new Map(); // dimension: values selected in the lists, [from, to] or one category
const MAX_CHOICES = 40; // values per list

function isSelected(index) {
  const isInside = ([dimension, limit]) => {
    const value = dimension.values[scoredRuns[index]];
    return dimension.is_number ? limit[0] <= value && value <= limit[1] : value === limit;
  };
  return (!draggedRuns || draggedRuns.has(index)) && [...limits].every(isInside);
}

// Distinct values in ascending order; evenly spaced ones if there are too many to list.
function choices(dimension) {
  if (!dimension.is_number) return categoriesOf.get(dimension).names;
  const values = scoredRuns.map((run) => dimension.values[run]);
  const distinct = [...new Set(values)].sort((a, b) => a - b);
  if (distinct.length <= MAX_CHOICES) return distinct;
  const last = distinct.length - 1;
  return [...Array(MAX_CHOICES)].map((_, index) => distinct[Math.round((index * last) / (MAX_CHOICES - 1))]);
}

// Lists to select values from: two for the range of a number, one for a category.
function limitLists(dimension) {
  const [values, limit] = [choices(dimension), limits.get(dimension)];
  const list = (title, texts, selected, onChange) => {
    const select = element("select", { "aria-label": title, onchange: () => onChange(Number(select.value)) });
    setOptions(select, texts, selected);
    return select;
  };
  const setLimit = (limit) => {
    if (limit === null) limits.delete(dimension);
    else limits.set(dimension, limit);
    selectRuns(draggedRuns);
  };
  const name = axisTitleText(dimension);
  if (!dimension.is_number) {
    const selected = limit === undefined ? 0 : 1 + values.indexOf(limit);
    const onChange = (index) => setLimit(index ? values[index - 1] : null);
    return [list(name, [t("any"), ...values.map((text) => shorten(text, 40))], selected, onChange)];
  }
  const [low, high] = (limit ?? [values[0], values.at(-1)]).map((value) => values.indexOf(value));
  const range = () => limits.get(dimension) ?? [values[0], values.at(-1)];
  const texts = values.map(formatNumber);
  return [
    list(t("{name}, from", { name }), texts, low, (index) => setLimit([values[index], range()[1]])),
    "–",
    list(t("{name}, to", { name }), texts, high, (index) => setLimit([range()[0], values[index]])),
  ];
}

function drawLimits() {
  byId("parallel-limits").replaceChildren(
    ...dimensions.map((dimension) =>
      element("div", { class: "limit" }, element("span", {}, axisTitleText(dimension)), ...limitLists(dimension)),
    ),
  );
}

byId("parallel-choice").open = matchMedia("(pointer: coarse)").matches;

// A vertical axis with positions from 0 at the bottom to 1 at the top.
function verticalAxis(dimension, label) {
  const values = scoredRuns.map((run) => dimension.values[run]);
  const scale = dimension.is_log ? Math.log10 : Number;
  const numbers = dimension.is_number ? values : values.map((value) => categoriesOf.get(dimension).index.get(value));
  const scaled = numbers.map(scale);
  const [low, high] = [Math.min(...scaled), Math.max(...scaled)];
  const position = (number) => (high > low ? (scale(number) - low) / (high - low) : 0.5);
  const ends = [Math.min(...numbers), Math.max(...numbers)].map((number) => [position(number), formatNumber(number)]);
  const valueTicks = ticks(dimension, values);
  const withoutTicks = dimension.is_number ? ends : []; // too many values for a tick each
  return {
    label,
    positions: numbers.map(position),
    texts: values.map((value) => plotText(value, 24)),
    ticks: valueTicks
      ? valueTicks.tickvals.map((number, index) => [position(number), valueTicks.ticktext[index]])
      : withoutTicks,
  };
}

const SHADES = 8;
const MANY_RUNS = 200; // lines are thin if there are more
const mix = (from, to, share) =>
  `rgb(${from.map((value, channel) => Math.round(value + share * (to[channel] - value))).join(",")})`;
const shade = (level) =>
  state.dark
    ? mix([74, 92, 134], [255, 226, 80], level / (SHADES - 1))
    : mix([168, 196, 224], [66, 10, 104], level / (SHADES - 1));

const verticalAxes = () =>
  dimensions.map((dimension) =>
    verticalAxis(dimension, dimension === metricAxis ? plotText(page.metric) : axisTitle(dimension)),
  );

// One trace per shade, with gaps between runs. The best runs are drawn last.
function runLines(axes) {
  const quality = axes.at(-1).positions.map((position) => (page.higher_is_better ? position : 1 - position));
  const groups = [...Array(SHADES + 1)].map(() => []); // the first one has the runs that are not selected
  scoredRuns.forEach((_, run) => groups[isSelected(run) ? 1 + Math.round(quality[run] * (SHADES - 1)) : 0].push(run));
  const isCrowded = scoredRuns.length > MANY_RUNS;
  const texts = (run) =>
    axes.map(({ label, texts }) => `${plotText(runName(scoredRuns[run]), 80)}<br>${label}: ${texts[run]}`);
  return groups
    .map((runs, level) => ({
      x: runs.flatMap(() => [...axes.keys(), null]),
      y: runs.flatMap((run) => [...axes.map(({ positions }) => positions[run]), null]),
      customdata: runs.flatMap((run) => [...axes.map(() => run), null]),
      text: runs.flatMap((run) => [...texts(run), ""]),
      mode: "lines+markers",
      marker: { size: isCrowded ? 3 : 5 },
      hovertemplate: "%{text}<extra></extra>",
      line: { color: level ? shade(level - 1) : css("grey"), width: isCrowded ? 0.5 : 1.3 },
      opacity: level ? 0.85 : 0.25,
      selected: { marker: { opacity: 1 } },
      unselected: { marker: { opacity: 1 } },
    }))
    .filter(({ x }) => x.length);
}

// Names above the axes, values beside them.
function labels(axes) {
  const annotation = (x, y, text, more) => ({ x, y, text, showarrow: false, font: { size: 11 }, ...more });
  const beside = { xanchor: "right", xshift: -5, bgcolor: css("ground"), opacity: 0.85 };
  return axes.flatMap(({ label, ticks }, x) => [
    annotation(x, 1.12, `<b>${label}</b>`, { yanchor: "middle" }),
    ...ticks.map(([y, text]) => annotation(x, y, text, beside)),
  ]);
}

function parallel() {
  const axes = verticalAxes();
  byId("parallel-plot").style.minWidth = `${100 * axes.length}px`;
  const line = { type: "line", y0: 0, y1: 1, line: { color: css("quiet"), width: 1 }, layer: "below" };
  const hidden = { visible: false, fixedrange: true };
  return {
    traces: runLines(axes),
    layout: layout({
      annotations: labels(axes),
      shapes: axes.map((_, x) => ({ x0: x, x1: x, ...line })),
      selections: [],
      margin: { l: 10, r: 10, t: 6, b: 14 },
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "select",
      xaxis: { ...hidden, range: [-0.6, axes.length - 0.6] },
      yaxis: { ...hidden, range: [-0.05, 1.2] },
    }),
    onselected: (event) => {
      const insideBox = (event?.points ?? []).map((point) => point.customdata);
      const runs = new Set(insideBox.filter(isSelected));
      if (runs.size) selectRuns(runs);
    },
  };
}

function selectRuns(runs) {
  draggedRuns = runs;
  byId("parallel-count").textContent = t("{shown} of {all}", {
    shown: scoredRuns.filter((_, run) => isSelected(run)).length,
    all: scoredRuns.length,
  });
  plot(byId("parallel-plot"), parallel);
}

byId("parallel-all").addEventListener("click", () => {
  limits.clear();
  drawLimits();
  selectRuns(null);
});
