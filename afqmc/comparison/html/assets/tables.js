// A table that sorts by a click on a header, and shows the rows that hold every word of a filter.

// Numbers first and by size, clock times too; then texts; then what is not there.
function rank(cell) {
  if (cell === "-" || cell === "") return [2, ""];
  if (/^\d+(:\d\d)+$/.test(cell)) return [0, cell.split(":").reduce((sum, part) => 60 * sum + Number(part), 0)];
  const number = /^[-+]?(\d|\.\d)/.test(cell) ? parseFloat(cell) : NaN;
  return Number.isNaN(number) ? [1, cell] : [0, number];
}

function compared(one, other, sign) {
  const [[kind, value], [otherKind, otherValue]] = [one, other];
  if (kind !== otherKind) return kind - otherKind;
  return sign * (kind === 0 ? value - otherValue : value.localeCompare(otherValue));
}

// columns: {title(), number, wrap, fixed: not sorted, down: highest first, text(cell): as it is shown};
// rows: {cells: [text], nodes: {place: () => node}, marks: {place: class}, searched: text, className}
const SHORT = 24; // characters of a cell that is not broken

class SortedTable {
  constructor(box, columns, most = Infinity) {
    Object.assign(this, { box, columns, most, rows: [], words: [], sorted: null, sign: 1 });
    this.body = element("tbody");
    this.head = element("tr");
    box.replaceChildren(element("table", {}, element("thead", {}, this.head), this.body));
  }

  set(rows) {
    this.rows = rows;
    this.draw();
  }

  filter(text) {
    this.words = text.toLowerCase().split(/\s+/).filter(Boolean);
    this.draw();
  }

  sort(place) {
    // first click: as one reads the column, small texts up and large figures down
    const first = this.columns[place].down ? -1 : 1;
    this.sign = this.sorted === place ? -this.sign : first;
    this.sorted = place;
    this.draw();
  }

  found() {
    const holds = (row) => this.words.every((word) => row.searched.includes(word));
    const rows = this.words.length ? this.rows.filter(holds) : [...this.rows];
    if (this.sorted === null) return rows;
    const keyed = rows.map((row) => [rank(row.cells[this.sorted]), row]);
    return keyed.sort(([one], [other]) => compared(one, other, this.sign)).map(([, row]) => row);
  }

  draw() {
    this.head.replaceChildren(...this.columns.map((column, place) => this.header(column, place)));
    const rows = this.found();
    this.body.replaceChildren(...rows.slice(0, this.most).map((row) => this.line(row)));
    this.shownRows = rows.length;
  }

  header(column, place) {
    const order = this.sorted === place ? (this.sign > 0 ? "ascending" : "descending") : "none";
    const title = column.title();
    const inside = column.fixed
      ? title
      : element("button", { type: "button", onclick: () => this.resort(place) }, title);
    return element(
      "th",
      { scope: "col", class: column.number ? "number" : null, "aria-sort": column.fixed ? null : order },
      inside,
    );
  }

  resort(place) {
    this.sort(place);
    this.head.children[place].querySelector("button").focus();
  }

  line(row) {
    const cells = this.columns.map((column, place) => {
      const kind = [
        column.number && "number",
        column.wrap && row.cells[place].length > SHORT && "wrap",
        row.marks?.[place],
      ]
        .filter(Boolean)
        .join(" ");
      return element(
        "td",
        { class: kind || null },
        row.nodes?.[place] ? row.nodes[place]() : column.text ? column.text(row.cells[place]) : row.cells[place],
      );
    });
    return element("tr", { class: row.className }, ...cells);
  }
}
