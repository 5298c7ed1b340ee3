// Plotly, in the page's colours; a plot is drawn when it comes near the window.
const COLOURS = {
  // told apart by colour-blind readers too; after Okabe and Ito
  light: ["#0072b2", "#d55e00", "#009e73", "#b4518f", "#8a6d00", "#3a3fb5", "#7f4f24", "#5c6770"],
  dark: ["#56b4e9", "#ff8c42", "#2fc79a", "#e59ac8", "#f0e442", "#9d9dff", "#d4a276", "#b7c0c9"],
};
const DASHES = ["solid", "dash", "dot", "dashdot"];

const colour = (place) => COLOURS[state.dark ? "dark" : "light"][place % 8];
const dash = (place) => DASHES[Math.floor(place / 8) % DASHES.length];
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// Plotly reads some tags and entities in texts; a stranger's text has none.
const plain = (text, most = 48) =>
  short(String(text), most).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

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

const waiting = new Map(); // element to what draws it
const near = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) if (isIntersecting) drawNow(target);
  },
  { rootMargin: "300px" },
);

function drawNow(target) {
  const make = waiting.get(target);
  if (!make) return;
  waiting.delete(target);
  const { traces, layout: how, onselected } = make();
  Plotly.react(target, traces, how, { responsive: true, displaylogo: false, displayModeBar: false });
  if (onselected && !("drawn" in target.dataset)) target.on("plotly_selected", onselected);
  target.dataset.drawn = "";
}

// Draw or redraw; what() gives {traces, layout}, and onselected where dragging means something.
function plot(target, what) {
  waiting.set(target, what);
  const { top, bottom } = target.getBoundingClientRect();
  if (top < innerHeight + 300 && bottom > -300) drawNow(target);
  else near.observe(target);
}
