// Plotly plots in the colours of the page. A plot is drawn when it is scrolled near the visible area.
const COLOURS = {
  // based on Okabe and Ito, distinguishable with colour blindness too
  light: ["#0072b2", "#d55e00", "#009e73", "#b4518f", "#8a6d00", "#3a3fb5", "#7f4f24", "#5c6770"],
  dark: ["#56b4e9", "#ff8c42", "#2fc79a", "#e59ac8", "#f0e442", "#9d9dff", "#d4a276", "#b7c0c9"],
};
const DASHES = ["solid", "dash", "dot", "dashdot"];

const colour = (index) => COLOURS[state.dark ? "dark" : "light"][index % 8];
const dash = (index) => DASHES[Math.floor(index / 8) % DASHES.length];
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// Escape text for Plotly, which interprets some tags and entities. The texts may come from untrusted runs.
const plotText = (text, limit = 48) =>
  shorten(String(text), limit).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function axis(title, more = {}) {
  return {
    title: { text: title, standoff: 8 },
    gridcolor: css("line"),
    linecolor: css("line"),
    zeroline: false,
    automargin: true,
    ...more,
  };
}

function layout(more = {}) {
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    showlegend: false,
    hovermode: "closest",
    font: { color: css("text"), size: 12, family: getComputedStyle(document.body).fontFamily },
    hoverlabel: { bgcolor: css("panel"), bordercolor: css("line"), font: { color: css("text") }, align: "left" },
    margin: { l: 56, r: 12, t: 10, b: 44 },
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    ...more,
  };
}

const waiting = new Map(); // element: function that returns its plot
const near = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) if (isIntersecting) drawNow(target);
  },
  { rootMargin: "300px" },
);

function drawNow(target) {
  const build = waiting.get(target);
  if (!build) return;
  waiting.delete(target);
  const { traces, layout, onselected } = build();
  Plotly.react(target, traces, layout, { responsive: true, displaylogo: false, displayModeBar: false });
  if (onselected && !("drawn" in target.dataset)) target.on("plotly_selected", onselected);
  target.dataset.drawn = "";
}

// Draw or redraw a plot; build() returns {traces, layout}, and onselected if the user can select points.
function plot(target, build) {
  waiting.set(target, build);
  const { top, bottom } = target.getBoundingClientRect();
  if (top < innerHeight + 300 && bottom > -300) drawNow(target);
  else near.observe(target);
}
