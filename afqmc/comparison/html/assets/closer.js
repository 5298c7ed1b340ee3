// The median run of each of the best settings: curves of a class, and confusion.
const near_ = page.closer;
const hiddenCloser = new Set();

const closerName = (place) => {
  const { name, setting, folds } = near_.runs[place];
  return page.ranking.keys || folds ? settingName(setting) : name;
};

function classCurves(name, xTitle, yTitle, diagonal) {
  const place = Number(byId("closer-class").value);
  const traces = near_.of.flatMap(({ by_class }, run) => {
    const found = by_class[place];
    if (!found || hiddenCloser.has(run)) return [];
    const [x, y] = found[name];
    const more = name === "calibration" ? ` · Brier ${found.brier.toFixed(4)}` : "";
    return [
      {
        x,
        y,
        mode: name === "calibration" ? "lines+markers" : "lines",
        line: { color: colour(run), dash: dash(run), width: 1.8 },
        text: plain(closerName(run) + more, 90),
        hovertemplate: "%{text}<br>%{x:.3f}, %{y:.3f}<extra></extra>",
      },
    ];
  });
  const guide = { mode: "lines", line: { color: css("grey"), width: 1, dash: "dot" }, hoverinfo: "skip" };
  const base = near_.of[0].by_class[place]?.base ?? 0;
  const dotted = diagonal ? { x: [0, 1], y: [0, 1], ...guide } : { x: [0, 1], y: [base, base], ...guide };
  const range = { range: [-0.02, 1.02] };
  return { traces: [dotted, ...traces], layout: layout({ xaxis: axis(xTitle, range), yaxis: axis(yTitle, range) }) };
}

function confusion(place) {
  const labels = near_.shown.map((number) => near_.classes[number]);
  const head = element(
    "tr",
    {},
    element("th", {}, ""),
    ...labels.map((label) => element("th", { scope: "col", class: "number" }, label)),
  );
  const lines = near_.of[place].confusion.map((row, at) => {
    const whole = row.reduce((a, b) => a + b, 0) || 1;
    const cells = row.map((count) => {
      const share = count / whole;
      return element(
        "td",
        {
          style: { background: `color-mix(in srgb, ${css("accent")} ${Math.round(share * 40)}%, transparent)` },
          title: `${(100 * share).toFixed(1)}%`,
        },
        `${count} (${(100 * share).toFixed(0)}%)`,
      );
    });
    return element("tr", {}, element("th", { scope: "row" }, labels[at]), ...cells);
  });
  const table = element(
    "div",
    { class: "scroll", tabindex: "0" },
    element(
      "table",
      { style: { minWidth: `${84 * (labels.length + 1)}px` } },
      element("thead", {}, head),
      element("tbody", {}, ...lines),
    ),
  );
  return element("figure", {}, element("figcaption", {}, closerName(place)), table);
}

function drawCloser() {
  byId("closer-runs").replaceChildren(
    ...near_.runs.map((_, run) =>
      chip(closerName(run), run, !hiddenCloser.has(run), () => {
        hiddenCloser.has(run) ? hiddenCloser.delete(run) : hiddenCloser.add(run);
        drawCloser();
        byId("closer-runs").children[run].focus();
      }),
    ),
  );
  plot(byId("pr-plot"), () => classCurves("pr", t("recall"), t("precision (of a class)"), false));
  plot(byId("roc-plot"), () => classCurves("roc", t("false positive rate"), t("true positive rate"), true));
  plot(byId("calibration-plot"), () => classCurves("calibration", t("probability given"), t("share that is so"), true));
}

if (near_) {
  options(
    byId("closer-class"),
    near_.drawn.map((number) => near_.classes[number]),
    0,
  );
  byId("closer-class-box").hidden = near_.drawn.length < 2;
  byId("closer-class").addEventListener("change", drawCloser);
}

shown(() => {
  byId("closer-box").hidden = !near_;
  byId("closer-none").hidden = Boolean(near_);
  if (!near_) return;
  const values = {
    count: near_.runs.length,
    compared: page.ranking.rows.length,
    split: page.split,
    examples: near_.examples,
    label: near_.classes[near_.drawn[0]],
  };
  const told = [t("The median run of each of {count} settings (of {compared}), on {examples} {split} pairs.", values)];
  if (near_.runs.some(({ folds }) => folds)) told.push(t("Where there are folds: those of the median seed together."));
  if (near_.drawn.length === 1) told.push(t("Curves are of class {label}.", values));
  else if (near_.drawn.length < near_.classes.length) told.push(t("Only the commonest classes are shown."));
  told.push(t("Calibration: tenths of the pairs by probability; on the dotted line, what is given is what happens."));
  byId("closer-note").textContent = told.join(state.chinese ? "" : " ");
  byId("confusions").replaceChildren(...near_.runs.map((_, run) => confusion(run)));
  drawCloser();
});
