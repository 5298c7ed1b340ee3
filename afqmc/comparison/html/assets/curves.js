// Learning curves: runs of the selected settings in colour, all others in one grey trace if requested.
const GREY_POINTS = 60000; // as many as a browser draws without delay
const curveSteps = page.curves.steps.map(decodeSteps);
const hiddenRuns = new Set();

// learning_curves.py encodes steps as increases, and values as fractions of the range between the first two numbers.
function decodeSteps([needs32Bits, base64]) {
  let step = 0;
  return Int32Array.from(decodeArray(base64, needs32Bits ? Int32Array : Uint16Array), (more) => (step += more));
}

function decodeValues(base64) {
  const words = decodeArray(base64, Uint16Array);
  const [low, high] = new Float32Array(words.buffer, 0, 2);
  return Float32Array.from(words.subarray(4), (fraction) => low + ((high - low) * fraction) / 65535);
}

function curve(run, metric) {
  const { curves, epochs_per_step } = page.curves.runs[run];
  if (!curves[metric]) return null;
  const [stepsIndex, values] = curves[metric];
  const steps = curveSteps[stepsIndex];
  const scale = byId("curve-over").value === "epoch" ? epochs_per_step : 1;
  return {
    x: scale === null ? steps : Array.from(steps, (step) => step * scale),
    y: decodeValues(values),
    scale,
  };
}

const sortedSelection = () => [...selectedSettings].sort((a, b) => a - b);

function colouredCurve(run, style, metric) {
  const points = curve(run, metric);
  if (!points) return [];
  const name = plotText(runName(run), 80);
  const line = { color: colour(style), dash: dash(style), width: 1.7 };
  const hover = `%{y:.4f}, ${byId("curve-over").value} %{x:.4~g}<extra></extra>`;
  const traces = [
    {
      x: points.x,
      y: points.y,
      mode: points.y.length < 30 ? "lines+markers" : "lines",
      marker: { size: 4 },
      line,
      text: name,
      hovertemplate: `%{text}<br>${hover}`,
    },
  ];
  const { best } = page.runs[run];
  if (best !== null && page.curves.names[metric].startsWith("dev/")) {
    const index = points.x.findIndex((x) => x >= best * (points.scale ?? 1));
    if (index >= 0)
      traces.push({
        x: [points.x[index]],
        y: [points.y[index]],
        mode: "markers",
        marker: { size: 10, symbol: "star", color: line.color },
        text: name,
        hovertemplate: `%{text}<br>${plotText(t("best on dev"))}: ${hover}`,
      });
  }
  return traces;
}

// All runs but the excluded ones in one trace with gaps between runs, downsampled if there are many points.
function greyCurves(metric, excluded) {
  const others = page.runs.map((_, run) => run).filter((run) => !excluded.has(run));
  const curves = others.map((run) => curve(run, metric)).filter(Boolean);
  const limit = Math.max(4, Math.floor(GREY_POINTS / Math.max(1, curves.length)));
  const [x, y] = [[], []];
  for (const points of curves) {
    const last = points.y.length - 1;
    const stride = Math.ceil(points.y.length / limit);
    for (let i = 0; i <= last; i += stride) (x.push(points.x[i]), y.push(points.y[i]));
    if (last % stride) (x.push(points.x[last]), y.push(points.y[last]));
    (x.push(null), y.push(null));
  }
  return { x, y, mode: "lines", line: { color: css("grey"), width: 0.8 }, opacity: 0.45, hoverinfo: "skip" };
}

function drawCurves() {
  const metric = Number(byId("curve-metric").value);
  const over = byId("curve-over").value;
  const styles = new Map(sortedSelection().map((row, style) => [row, style]));
  const selectedRuns = sortedSelection().flatMap((row) => runsBySetting[row]);
  byId("curve-runs").replaceChildren(
    ...selectedRuns.map((run) =>
      toggleButton(runName(run), styles.get(page.runs[run].setting), !hiddenRuns.has(run), () => {
        hiddenRuns.has(run) ? hiddenRuns.delete(run) : hiddenRuns.add(run);
        drawCurves();
        byId("curve-runs").children[selectedRuns.indexOf(run)].focus();
      }),
    ),
  );
  plot(byId("curve-plot"), () => {
    const visible = selectedRuns.filter((run) => !hiddenRuns.has(run));
    const background = byId("curve-others").checked ? [greyCurves(metric, new Set(selectedRuns))] : [];
    const traces = visible.flatMap((run) => colouredCurve(run, styles.get(page.runs[run].setting), metric));
    return {
      traces: [...background, ...traces],
      layout: layout({
        xaxis: axis(over === "epoch" ? t("epochs") : t("steps")),
        yaxis: axis(plotText(page.curves.names[metric] ?? "")),
      }),
    };
  });
  describeCurves(metric, selectedRuns.length);
}

function toggleButton(name, style, pressed, onclick) {
  const swatch = element("span", {
    class: "swatch",
    style: {
      borderTopColor: colour(style),
      borderTopStyle: { solid: "solid", dash: "dashed", dot: "dotted", dashdot: "dashed" }[dash(style)],
    },
  });
  return element("button", { type: "button", "aria-pressed": String(pressed), onclick }, swatch, name);
}

function describeCurves(metric, drawn) {
  const available = page.curves.runs.filter(({ curves }) => curves[metric]).length;
  const sentences = [
    t("In colour: {drawn} of {all} runs. Select more settings in the ranking.", { drawn, all: page.runs.length }),
    t("Runs of a setting share a colour. The star marks the best evaluation on dev, whose weights were kept."),
  ];
  if (available < page.runs.length)
    sentences.push(t("{missing} runs do not have this metric.", { missing: page.runs.length - available }));
  if (page.curves.max_points)
    sentences.push(
      t(
        "Downsampled from {points} points to at most {max_points} per curve: first, last, and minima and maxima.",
        page.curves,
      ),
    );
  if (byId("curve-others").checked) sentences.push(t("Grey curves may be downsampled further."));
  if (page.curves.omitted) sentences.push(t("{omitted} less frequent metrics are left out.", page.curves));
  byId("curve-note").textContent = sentences.join(state.chinese ? "" : " ");
}

setOptions(byId("curve-metric"), page.curves.names, Math.max(0, page.curves.names.indexOf(page.metric)));
for (const id of ["curve-metric", "curve-over", "curve-others"]) byId(id).addEventListener("change", drawCurves);
byId("curve-best").addEventListener("click", () => select(runsBySetting.slice(0, SELECTED_AT_START).keys()));
byId("curve-none").addEventListener("click", () => select([]));

function select(rows) {
  selectedSettings.clear();
  hiddenRuns.clear();
  for (const row of rows) selectedSettings.add(row);
  onSelect.forEach((call) => call());
}

onDraw(drawCurves);
onSelect.push(drawCurves);
