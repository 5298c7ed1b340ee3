// Language and theme switches, the table of contents, and the first drawing.
byId("language").addEventListener("click", () => {
  state.chinese = !state.chinese;
  drawAll();
});
byId("theme").addEventListener("click", () => {
  state.dark = !state.dark;
  drawAll();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", ({ matches }) => {
  state.dark = matches;
  drawAll();
});

for (const id of ["ranking", "curves", "sweep", "best-runs", "pairs"]) byId(id).hidden = !page.runs.length;

onDraw(() => {
  for (const box of document.querySelectorAll("section > .scroll, section > div > .scroll")) {
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", box.closest("section").querySelector("h2").textContent);
  }
  const sections = [...document.querySelectorAll("main section:not([hidden])")];
  byId("contents").replaceChildren(
    ...sections.map((section) => element("a", { href: `#${section.id}` }, section.querySelector("h2").textContent)),
  );
});
drawAll();
