// Axes of the plots of a sweep: the values of a setting, numbers or categories, ordered by importance.
const MAX_AXES = 12; // the most important ones; more are not legible
const MAX_TICKS = 40; // categories with a tick each

// Format a number as it is typed in a config.
function formatNumber(value) {
  const size = Math.abs(value);
  return size && (size < 1e-3 || size >= 1e6)
    ? Number(value.toPrecision(3)).toExponential()
    : String(Number(value.toPrecision(4)));
}

const scoredRuns = page.runs.map((run, index) => index).filter((index) => page.runs[index].value !== null);
const scores = scoredRuns.map((index) => page.runs[index].value);
const shares = page.importance.shares;
const axisOrder = page.axes
  .map((_, index) => index)
  .sort((a, b) => (shares ? shares[b] - shares[a] : 0))
  .slice(0, MAX_AXES);

const axisTitleText = ({ name, keys }) =>
  keys.length > 1 ? `${name} ${t("(and {more} more)", { more: keys.length - 1 })}` : name;
const axisTitle = (dimension) => plotText(axisTitleText(dimension), 40);

function categories(values) {
  const names = [...new Set(values)].sort((a, b) => compareKeys(sortKey(a), sortKey(b), 1));
  return { names, index: new Map(names.map((name, index) => [name, index])) };
}

// Ticks for each value; null if Plotly's automatic ticks are better.
function ticks(dimension, values) {
  if (!dimension.is_number) {
    const names = categories(values).names;
    return names.length > MAX_TICKS
      ? null
      : { tickvals: names.map((_, index) => index), ticktext: names.map((name) => plotText(name, 18)) };
  }
  const distinct = [...new Set(values)].sort((a, b) => a - b);
  return distinct.length > 8 ? null : { tickvals: distinct, ticktext: distinct.map(formatNumber) };
}
