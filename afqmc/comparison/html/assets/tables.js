// A table that is sorted by clicking on a header, and that shows the rows that contain every word of a filter.

// Sort numbers and durations by size, then texts, then missing values.
function sortKey(cell) {
  if (cell === "-" || cell === "") return [2, ""];
  if (/^\d+(:\d\d)+$/.test(cell)) return [0, cell.split(":").reduce((sum, part) => 60 * sum + Number(part), 0)];
  const number = /^[-+]?(\d|\.\d)/.test(cell) ? parseFloat(cell) : NaN;
  return Number.isNaN(number) ? [1, cell] : [0, number];
}

function compareKeys([kindA, a], [kindB, b], sign) {
  if (kindA !== kindB) return kindA - kindB;
  return sign * (kindA === 0 ? a - b : a.localeCompare(b));
}

// columns: {title(), number, wrap, fixed: cannot be sorted, descending: highest first, text(cell): displayed text}
// rows: {cells: [text], nodes: {index: () => node}, marks: {index: class}, searchText, className}
const MAX_UNWRAPPED = 24; // characters of a cell that is never wrapped
const ROWS_AT_ONCE = 100; // a browser takes long to lay out a thousand; more are added when the last one is in sight

class SortableTable {
  constructor(box, columns, maxRows = Infinity) {
    Object.assign(this, { columns, maxRows, rows: [], words: [], sortedColumn: null, sign: 1, waiting: [] });
    this.lines = new Map(); // of the rows drawn so far, which sorting and filtering reuse
    this.body = element("tbody");
    this.head = element("tr");
    this.observer = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) this.addRows();
    });
    box.replaceChildren(element("table", {}, element("thead", {}, this.head), this.body));
  }

  filter(text) {
    this.words = text.toLowerCase().split(/\s+/).filter(Boolean);
    this.drawHead();
    this.arrange();
  }

  // The first click sorts in the natural order of the column, a second click reverses it.
  sort(index) {
    const natural = this.columns[index].descending ? -1 : 1;
    this.sign = this.sortedColumn === index ? -this.sign : natural;
    this.sortedColumn = index;
    this.drawHead();
    this.arrange();
    this.head.children[index].querySelector("button").focus();
  }

  visibleRows() {
    const matches = (row) => this.words.every((word) => row.searchText.includes(word));
    const rows = this.words.length ? this.rows.filter(matches) : [...this.rows];
    if (this.sortedColumn === null) return rows;
    const keyed = rows.map((row) => [sortKey(row.cells[this.sortedColumn]), row]);
    return keyed.sort(([a], [b]) => compareKeys(a, b, this.sign)).map(([, row]) => row);
  }

  draw() {
    this.lines.clear();
    this.drawHead();
    this.arrange();
  }

  drawHead() {
    this.head.replaceChildren(...this.columns.map((column, index) => this.header(column, index)));
  }

  arrange() {
    const rows = this.visibleRows();
    this.matchingRows = rows.length;
    this.waiting = rows.slice(0, this.maxRows);
    this.body.replaceChildren();
    this.addRows();
  }

  addRows() {
    const added = this.waiting.splice(0, ROWS_AT_ONCE);
    for (const row of added) if (!this.lines.has(row)) this.lines.set(row, this.line(row));
    this.body.append(...added.map((row) => this.lines.get(row)));
    this.observer.disconnect();
    if (this.waiting.length) this.observer.observe(this.body.lastElementChild);
  }

  header(column, index) {
    const order = this.sortedColumn === index ? (this.sign > 0 ? "ascending" : "descending") : "none";
    const title = column.title();
    const content = column.fixed
      ? title
      : element("button", { type: "button", onclick: () => this.sort(index) }, title);
    return element(
      "th",
      { scope: "col", class: column.number ? "number" : null, "aria-sort": column.fixed ? null : order },
      content,
    );
  }

  line(row) {
    const cells = this.columns.map((column, index) => {
      const classes = [
        column.number && "number",
        column.wrap && row.cells[index].length > MAX_UNWRAPPED && "wrap",
        row.marks?.[index],
      ]
        .filter(Boolean)
        .join(" ");
      return element(
        "td",
        { class: classes || null },
        row.nodes?.[index] ? row.nodes[index]() : column.text ? column.text(row.cells[index]) : row.cells[index],
      );
    });
    return element("tr", { class: row.className }, ...cells);
  }
}
