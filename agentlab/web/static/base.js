"use strict";
// Elements, numbers and words that every view uses. What comes from a run is only ever set as text, never as HTML.

const MATHML_SPACE = "http://www.w3.org/1998/Math/MathML";
const SVG_SPACE = "http://www.w3.org/2000/svg";

/** An element with properties ("text", "class", "on" for listeners, anything else as an attribute) and children. */
function el(tag, props = {}, ...children) {
  return filled(document.createElement(tag), props, children);
}

/** The same for a drawing. */
function svg(tag, props = {}, ...children) {
  return filled(document.createElementNS(SVG_SPACE, tag), props, children);
}

function filled(node, props, children) {
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "text") node.textContent = value;
    else if (key === "on") for (const [kind, listen] of Object.entries(value)) node.addEventListener(kind, listen);
    else node.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined) node.append(child);
  }
  return node;
}

/** A formula: as MathML where there is one ([tag, text, child, ..]), else its text. */
function formula(mathml, text, display = false) {
  if (!mathml) return el("code", { text, class: "formula" });
  const node = mathNode(mathml);
  if (display) node.setAttribute("display", "block");
  node.setAttribute("aria-label", text);
  return node;
}

function mathNode([tag, text, ...children]) {
  const node = document.createElementNS(MATHML_SPACE, tag);
  if (text) node.textContent = text;
  node.append(...children.map(mathNode));
  return node;
}

/** A number in a few digits: 1.234, 5.68e+12; "-" where there is none. */
function fmt(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (typeof value !== "number") return String(value);
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return value.toExponential(Math.max(digits - 2, 1)).replace(/\.?0*e\+?/, "e");
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return Number(value.toPrecision(digits)).toString();
}

function percent(value, digits = 2) {
  return value === null || value === undefined ? "–" : `${fmt(100 * value, digits)}%`;
}

function count(n, one, many = `${one}s`) {
  return `${fmt(n)} ${n === 1 ? one : many}`;
}

function seconds(value) {
  if (value === null || value === undefined) return "–";
  return value < 120 ? `${fmt(value, 3)} s` : value < 7200 ? `${fmt(value / 60, 3)} min` : `${fmt(value / 3600, 3)} h`;
}

/** A titled part of a view. */
function panel(title, ...children) {
  return el("section", { class: "panel" }, title ? el("h2", { text: title }) : null, ...children);
}

function quiet(text) {
  return el("p", { class: "quiet", text });
}

/** A small table of cells: strings, numbers or elements; `numeric` names the columns that are figures. */
function grid(heads, rows, label, numeric = []) {
  const side = (i) => (numeric.includes(i) ? "num" : null);
  const head = el("tr", {}, heads.map((h, i) => el("th", { text: h, scope: "col", class: side(i) })));
  const line = (row) =>
    el("tr", {}, row.map((c, i) => (c instanceof Node ? el("td", { class: side(i) }, c) : el("td", { text: c, class: side(i) }))));
  const table = el("table", { class: "grid", "aria-label": label }, el("thead", {}, head), el("tbody", {}, rows.map(line)));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, table);
}

/** Names with what they are, a line each. */
function pairs(lines, label) {
  const cell = (c) => (c instanceof Node ? el("dd", {}, c) : el("dd", { text: c }));
  return el("dl", { class: "pairs", "aria-label": label }, lines.flatMap(([name, value]) => [el("dt", { text: name }), cell(value)]));
}

/** A figure with its name below. */
function tile(value, name, note = "") {
  const children = [el("b", { text: value }), el("span", { text: name })];
  return el("div", { class: "tile" }, ...children, note ? el("small", { text: note }) : null);
}

/** A labelled choice; `change` gets the chosen value. */
function choice(label, values, chosen, change) {
  const options = values.map(([value, text]) => el("option", { value, text, selected: value === chosen }));
  const select = el("select", { "aria-label": label, on: { change: (e) => change(e.target.value) } }, ...options);
  return el("label", { class: "field" }, el("span", { text: label }), select);
}

/** A labelled text to filter by, which the key / goes to. */
function filterBox(label, change, value = "") {
  const input = el("input", { type: "search", placeholder: "filter", class: "filter", "aria-label": label, value });
  input.addEventListener("input", () => change(input.value.trim().toLowerCase()));
  return el("label", { class: "field" }, el("span", { text: label }), input);
}

function sum(values) {
  return values.reduce((a, b) => a + b, 0);
}

function median(values) {
  const known = values.filter((v) => v !== null && v !== undefined).sort((a, b) => a - b);
  if (!known.length) return null;
  const half = known.length >> 1;
  return known.length % 2 ? known[half] : (known[half - 1] + known[half]) / 2;
}
