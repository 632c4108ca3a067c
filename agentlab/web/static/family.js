"use strict";
// The family of a candidate: what it was made of, back to the seeds, and what was made of it.

const [NODE_W, NODE_H, GAP_X, GAP_Y] = [158, 46, 24, 34];
const MOST_NODES = 90;

function familyTab(run, place, query) {
  const { entries: e, places } = run;
  if (!e.id.length) return panel("Family", quiet("No candidate is on record yet."));
  const law = standing(run);
  const asked = query.get("entry");
  const chosen = places.has(Number(asked)) && asked !== null ? Number(asked) : law && places.has(law.entry) ? law.entry : e.id[0];
  const detail = el("div", { "aria-live": "polite", id: "entry" }, entryPanel(run, place, places.get(chosen)));
  const tree = familyTree(run, chosen, (id) => {
    tree.querySelectorAll("[aria-pressed]").forEach((n) => n.setAttribute("aria-pressed", String(n.dataset.id === String(id))));
    detail.replaceChildren(entryPanel(run, place, places.get(id)));
  });
  const find = el("input", { type: "number", min: 0, value: chosen, "aria-label": "Entry number", class: "filter" });
  find.addEventListener("change", () => places.has(Number(find.value)) && go(runHash(place, "family", { entry: find.value })));
  const bar = el("div", { class: "bar" }, el("label", { class: "field" }, el("span", { text: "Entry" }), find));
  return [panel(`Family of entry ${chosen}`, bar, tree, quiet("Above: what it was made of. Below: what was made of it. Choose one to see what it changed.")), detail];
}

/** Ancestors by how many steps above, then the candidate, then its children. */
function generationsOf({ entries: e, places }, chosen) {
  const depth = new Map([[chosen, 0]]);
  let front = [chosen];
  while (front.length && depth.size < MOST_NODES) {
    const next = [];
    for (const id of front) {
      for (const parent of e.parents[places.get(id)]) {
        if (!places.has(parent) || depth.has(parent)) continue;
        depth.set(parent, depth.get(id) - 1);
        next.push(parent);
      }
    }
    front = next;
  }
  const children = e.id.filter((_, i) => e.parents[i].includes(chosen));
  const ranked = children.sort((a, b) => rank(e, places, a) - rank(e, places, b)).slice(0, 10);
  ranked.forEach((id) => depth.set(id, 1));
  return { depth, more: children.length - ranked.length };
}

function rank(e, places, id) {
  return e.objective[places.get(id)] ?? Infinity;
}

function familyTree(run, chosen, choose) {
  const { depth, more } = generationsOf(run, chosen);
  const top = Math.min(...depth.values());
  const levels = [];
  for (const [id, d] of depth) (levels[d - top] ??= []).push(id);
  const width = Math.max(...levels.map((l) => l.length)) * (NODE_W + GAP_X) + GAP_X;
  const height = levels.length * (NODE_H + GAP_Y) + GAP_Y;
  const at = new Map();
  levels.forEach((ids, j) => {
    const start = (width - ids.length * (NODE_W + GAP_X) + GAP_X) / 2;
    ids.sort((a, b) => a - b).forEach((id, i) => at.set(id, [start + i * (NODE_W + GAP_X), GAP_Y / 2 + j * (NODE_H + GAP_Y)]));
  });
  const links = [...at].flatMap(([id, [x, y]]) => run.entries.parents[run.places.get(id)].filter((p) => at.has(p)).map((p) => linkPath(at.get(p), [x, y])));
  const nodes = [...at].map(([id, place]) => familyNode(run, id, place, id === chosen, choose));
  const drawing = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `Family tree of entry ${chosen}` }, links, nodes);
  const note = more > 0 ? quiet(`${fmt(more)} more were made of it; the ten best are drawn.`) : null;
  return el("div", {}, el("div", { class: "scroll tree", tabindex: "0", "aria-label": "Family tree" }, drawing), note);
}

function linkPath([ax, ay], [bx, by]) {
  const [x, y, u, v] = [ax + NODE_W / 2, ay + NODE_H, bx + NODE_W / 2, by];
  const middle = (y + v) / 2;
  return svg("path", { d: `M${x},${y} C${x},${middle} ${u},${middle} ${u},${v}`, class: "link" });
}

function familyNode(run, id, [x, y], chosen, choose) {
  const { entries: e, places } = run;
  const i = places.get(id);
  const kind = e.ok[i] ? (run.steps.includes(i) ? "step" : "kept") : "gone";
  const key = (event) => (event.key === "Enter" || event.key === " ") && (event.preventDefault(), event.stopPropagation(), choose(id));
  const props = { class: `node ${kind}`, role: "button", tabindex: "0", "data-id": id, "aria-pressed": String(chosen), transform: `translate(${x},${y})`, "aria-label": `Entry ${id}: ${e.program[i] ? "a program" : e.formula[i]}` };
  const law = e.program[i] ? "program" : e.formula[i];
  return svg("g", { ...props, on: { click: () => choose(id), keydown: key } },
    svg("rect", { width: NODE_W, height: NODE_H, rx: 6 }),
    svg("text", { x: 8, y: 18 }, `${id} · ${e.operator[i]}`.slice(0, 22)),
    svg("text", { x: 8, y: 36, class: "law-small" }, law.length > 24 ? `${law.slice(0, 23)}…` : law),
    svg("title", { text: `${law}\nobjective ${fmt(e.objective[i], 6)}` }));
}
