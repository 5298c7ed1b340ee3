// The axes of a sweep: a setting's values, numbers or categories, in the order of importance.
const KEPT_AXES = 12; // more are not legible; the most important first
const PLACES = 40; // values of an axis with a tick of their own

// A number as a person would type it.
function typed(value) {
  const size = Math.abs(value);
  return size && (size < 1e-3 || size >= 1e6)
    ? Number(value.toPrecision(3)).toExponential()
    : String(Number(value.toPrecision(4)));
}

const known = page.runs.map((run, number) => number).filter((number) => page.runs[number].value !== null);
const figures = known.map((number) => page.runs[number].value);
const shares = page.importance.shares;
const axisOrder = page.axes
  .map((_, place) => place)
  .sort((one, other) => (shares ? shares[other] - shares[one] : 0))
  .slice(0, KEPT_AXES);

const axisTitleText = ({ name, keys }) =>
  keys.length > 1 ? `${name} ${t("(and {more} more)", { more: keys.length - 1 })}` : name;
const axisTitle = (one) => plain(axisTitleText(one), 40);

function categories(values) {
  const names = [...new Set(values)].sort((one, other) => compared(rank(one), rank(other), 1));
  return { names, place: new Map(names.map((name, at) => [name, at])) };
}

// Values with a tick of their own, and its text; none where the plot chooses better.
function ticks(one, values) {
  if (!one.is_number) {
    const names = categories(values).names;
    return names.length > PLACES
      ? null
      : { tickvals: names.map((_, at) => at), ticktext: names.map((name) => plain(name, 18)) };
  }
  const distinct = [...new Set(values)].sort((a, b) => a - b);
  return distinct.length > 8 ? null : { tickvals: distinct, ticktext: distinct.map(typed) };
}
