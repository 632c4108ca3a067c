"use strict";
// A table of any length: only the rows in sight are elements. Arrows move, Enter opens, a head sorts.

const ROW = 32;

/**
 * Columns are {key, title, width, num, get(row), show(row)}; `get` sorts, `show` is what stands in the cell (text or an
 * element). `rows` are any values; `open` is told of the row that Enter or a click chose.
 */
class Table {
  constructor({ columns, rows, open, label, height = 420, sort = null, down = false }) {
    Object.assign(this, { columns, open, sort, down, at: 0 });
    this.head = el("div", { class: "t-head", role: "row" });
    this.body = el("div", { class: "t-body", role: "rowgroup" });
    this.space = el("div", { class: "t-space", role: "presentation" }, this.body);
    this.box = el("div", { class: "t-box", role: "grid", tabindex: "0", "aria-label": label }, this.head, this.space);
    this.box.style.maxHeight = `${height}px`;
    this.status = el("p", { class: "quiet", role: "status" });
    this.node = el("div", { class: "t" }, this.box, this.status);
    this.box.addEventListener("scroll", () => this.draw());
    this.box.addEventListener("keydown", (e) => this.key(e));
    this.template = columns.map((c) => c.width || "minmax(90px, 1fr)").join(" ");
    const least = sum(columns.map((c) => Number(/\d+/.exec(c.width || "90")[0]))) + 12 * (columns.length - 1) + 22;
    for (const part of [this.head, this.space]) part.style.minWidth = `${least}px`;
    this.set(rows);
  }

  set(rows) {
    this.all = rows;
    this.rows = [...rows];
    this.order();
    this.at = Math.min(this.at, Math.max(this.rows.length - 1, 0));
    this.status.textContent = this.rows.length ? count(this.rows.length, "row") : "Nothing to show.";
    this.box.setAttribute("aria-rowcount", this.rows.length + 1);
    this.heads();
    this.draw();
  }

  order() {
    const column = this.columns.find((c) => c.key === this.sort);
    if (!column) return;
    const sign = this.down ? -1 : 1;
    const value = new Map(this.rows.map((r) => [r, column.get(r)]));
    this.rows.sort((a, b) => {
      const [x, y] = [value.get(a), value.get(b)];
      if (x === y) return 0;
      if (x === null || x === undefined) return 1;
      if (y === null || y === undefined) return -1;
      return sign * (x < y ? -1 : 1);
    });
  }

  heads() {
    this.head.style.gridTemplateColumns = this.template;
    this.head.replaceChildren(...this.columns.map((c) => this.headOf(c)));
  }

  headOf(column) {
    const mine = this.sort === column.key;
    const order = mine ? (this.down ? "descending" : "ascending") : "none";
    const button = el("button", { type: "button", on: { click: () => this.sortBy(column.key) } }, column.title);
    button.append(el("span", { class: "arrow", "aria-hidden": "true", text: mine ? (this.down ? " ▾" : " ▴") : "" }));
    return el("div", { role: "columnheader", class: column.num ? "num" : null, "aria-sort": order }, button);
  }

  sortBy(key) {
    this.down = this.sort === key ? !this.down : false;
    this.sort = key;
    this.set(this.all);
    [...this.head.children].find((h) => h.getAttribute("aria-sort") !== "none")?.firstChild.focus();
  }

  draw() {
    const first = Math.max(Math.floor(this.box.scrollTop / ROW) - 8, 0);
    const last = Math.min(first + Math.ceil((this.box.clientHeight || 420) / ROW) + 16, this.rows.length);
    this.space.style.height = `${this.rows.length * ROW}px`;
    this.body.style.transform = `translateY(${first * ROW}px)`;
    this.body.replaceChildren(...this.rows.slice(first, last).map((row, i) => this.line(row, first + i)));
    const active = document.getElementById(this.name(this.at));
    if (active) this.box.setAttribute("aria-activedescendant", active.id);
  }

  name(i) {
    this.id ??= `t${(Table.made = (Table.made || 0) + 1)}`;
    return `${this.id}-${i}`;
  }

  line(row, i) {
    const cells = this.columns.map((c) => {
      const shown = c.show(row);
      const props = { role: "gridcell", class: c.num ? "num" : null };
      return shown instanceof Node ? el("div", props, shown) : el("div", { ...props, text: shown, title: shown });
    });
    const props = { role: "row", id: this.name(i), class: i === this.at ? "t-row at" : "t-row", "aria-rowindex": i + 2 };
    const node = el("div", { ...props, "aria-selected": String(i === this.at) }, ...cells);
    node.style.gridTemplateColumns = this.template;
    node.addEventListener("click", () => this.go(i, true));
    return node;
  }

  go(i, open = false) {
    if (!this.rows.length) return;
    this.at = Math.min(Math.max(i, 0), this.rows.length - 1);
    const top = this.at * ROW;
    const height = this.box.clientHeight - this.head.offsetHeight;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    if (top + ROW > this.box.scrollTop + height) this.box.scrollTop = top + ROW - height;
    this.draw();
    if (open) this.open(this.rows[this.at]);
  }

  key(event) {
    if (event.target.closest("button")) return;
    const page = Math.floor(this.box.clientHeight / ROW) - 1;
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key in moves) this.go(this.at + moves[event.key]);
    else if (event.key === "Enter") this.go(this.at, true);
    else return;
    event.preventDefault();
  }
}
