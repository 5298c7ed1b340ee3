// Learning curves: runs of the settings ticked in colour, all others in one grey trace if wanted.
const GREY_POINTS = 60000; // what a browser draws at once without delay
const curveSteps = page.curves.steps.map((text) => unpacked(text, Int32Array));
const hiddenRuns = new Set();

function curve(number, place) {
  const { of, epoch } = page.curves.runs[number];
  if (!of[place]) return null;
  const steps = curveSteps[of[place][0]];
  const pace = byId("curve-over").value === "epoch" ? epoch : 1;
  return {
    x: pace === null ? steps : Array.from(steps, (step) => step * pace),
    y: unpacked(of[place][1], Float32Array),
    pace,
  };
}

const drawnRuns = () => [...drawnSettings].sort((one, other) => one - other).flatMap((row) => runsOf[row]);

function coloured(number, order, place) {
  const found = curve(number, place);
  if (!found) return [];
  const name = plain(runName(number), 80);
  const line = { color: colour(order), dash: dash(order), width: 1.7 };
  const hover = `%{y:.4f}, ${byId("curve-over").value} %{x:.4~g}<extra></extra>`;
  const few = found.y.length < 30;
  const traces = [
    {
      x: found.x,
      y: found.y,
      mode: few ? "lines+markers" : "lines",
      marker: { size: 4 },
      line,
      text: name,
      hovertemplate: `%{text}<br>${hover}`,
    },
  ];
  const { best } = page.runs[number];
  if (best !== null && page.curves.names[place].startsWith("dev/")) {
    const at = found.x.findIndex((x) => x >= best * (found.pace ?? 1));
    if (at >= 0)
      traces.push({
        x: [found.x[at]],
        y: [found.y[at]],
        mode: "markers",
        marker: { size: 10, symbol: "star", color: line.color },
        text: name,
        hovertemplate: `%{text}<br>${plain(t("best on dev"))}: ${hover}`,
      });
  }
  return traces;
}

// One trace, broken between runs; fewer points of each where together they would be too many.
function grey(place, but) {
  const others = page.runs.map((_, number) => number).filter((number) => !but.has(number));
  const found = others.map((number) => curve(number, place)).filter(Boolean);
  const most = Math.max(4, Math.floor(GREY_POINTS / Math.max(1, found.length)));
  const [x, y] = [[], []];
  for (const one of found) {
    const stride = Math.ceil(one.y.length / most);
    for (let at = 0; at < one.y.length; at += stride) (x.push(one.x[at]), y.push(one.y[at]));
    if ((one.y.length - 1) % stride) (x.push(one.x[one.y.length - 1]), y.push(one.y[one.y.length - 1]));
    (x.push(null), y.push(null));
  }
  return { x, y, mode: "lines", line: { color: css("grey"), width: 0.8 }, opacity: 0.45, hoverinfo: "skip" };
}

function drawCurves() {
  const place = Number(byId("curve-metric").value);
  const over = byId("curve-over").value;
  const orders = new Map([...drawnSettings].sort((one, other) => one - other).map((row, order) => [row, order]));
  const drawn = drawnRuns();
  byId("curve-runs").replaceChildren(
    ...drawn.map((number) =>
      chip(runName(number), orders.get(page.runs[number].setting), !hiddenRuns.has(number), () => {
        hiddenRuns.has(number) ? hiddenRuns.delete(number) : hiddenRuns.add(number);
        drawCurves();
        byId("curve-runs").children[drawn.indexOf(number)].focus();
      }),
    ),
  );
  plot(byId("curve-plot"), () => {
    const visible = drawn.filter((number) => !hiddenRuns.has(number));
    const back = byId("curve-others").checked ? [grey(place, new Set(drawn))] : [];
    const traces = visible.flatMap((number) => coloured(number, orders.get(page.runs[number].setting), place));
    return {
      traces: [...back, ...traces],
      layout: layout({
        xaxis: axis(over === "epoch" ? t("epochs") : t("steps")),
        yaxis: axis(plain(page.curves.names[place] ?? "")),
      }),
    };
  });
  noteCurves(place, drawn.length);
}

function chip(name, order, pressed, onclick) {
  const swatch = element("span", {
    class: "swatch",
    style: {
      borderTopColor: colour(order),
      borderTopStyle: { solid: "solid", dash: "dashed", dot: "dotted", dashdot: "dashed" }[dash(order)],
    },
  });
  return element("button", { type: "button", "aria-pressed": String(pressed), onclick }, swatch, name);
}

function noteCurves(place, drawn) {
  const with_ = page.curves.runs.filter(({ of }) => of[place]).length;
  const told = [
    t("In colour: {drawn} of {all} runs; any other is drawn by a tick in the ranking.", {
      drawn,
      all: page.runs.length,
    }),
  ];
  told.push(t("Runs of a setting share a colour. A star: the weights kept, the best on dev."));
  if (with_ < page.runs.length)
    told.push(t("{missing} runs have no such figure.", { missing: page.runs.length - with_ }));
  if (page.curves.most)
    told.push(
      t(
        "Of {points} points the page holds at most {most} a curve: first, last, and highs and lows between.",
        page.curves,
      ),
    );
  if (byId("curve-others").checked) told.push(t("Grey curves are drawn with fewer points where there are many."));
  if (page.curves.left_out) told.push(t("{left_out} rarer metrics are left out.", page.curves));
  byId("curve-note").textContent = told.join(state.chinese ? "" : " ");
}

options(byId("curve-metric"), page.curves.names, Math.max(0, page.curves.names.indexOf(page.metric)));
for (const id of ["curve-metric", "curve-over", "curve-others"]) byId(id).addEventListener("change", drawCurves);
byId("curve-best").addEventListener("click", () => choose(runsOf.slice(0, FIRST).keys()));
byId("curve-none").addEventListener("click", () => choose([]));

function choose(rows) {
  drawnSettings.clear();
  hiddenRuns.clear();
  for (const row of rows) drawnSettings.add(row);
  afterTick.forEach((call) => call());
}

shown(drawCurves);
afterTick.push(drawCurves);
