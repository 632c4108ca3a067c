"use strict";
// What the law decides: its value over two inputs, with the best configuration at every compute.

function decisionTab(run) {
  const told = run.decision;
  if (!told) return panel("Decision", quiet(run.notes?.decision || "This is made when the run is done."));
  const state = { at: told.path.reduce((best, p, i) => (Math.abs(Math.log(p.compute / told.asked)) < Math.abs(Math.log(told.path[best].compute / told.asked)) ? i : best), 0) };
  const host = el("div");
  const drawn = chart("The law over two inputs, with the best configuration", () => decisionOption(run, told, told.path[state.at]), { height: 460 });
  const tell = () => {
    host.replaceChildren(decisionTable(run, told, told.path[state.at]));
    drawn.chart.update();
  };
  const input = el("input", { type: "range", min: 0, max: told.path.length - 1, step: 1, value: state.at, "aria-label": "Compute" });
  const shown = el("output", { text: computeWords(told, told.path[state.at]) });
  input.addEventListener("input", () => {
    state.at = Number(input.value);
    shown.textContent = computeWords(told, told.path[state.at]);
    input.setAttribute("aria-valuetext", shown.textContent);
    tell();
  });
  tell();
  const move = told.path.length > 1 ? el("div", { class: "slider wide" }, el("span", { text: "compute" }), input, shown) : null;
  const where = `For ${run.groups.length > 1 ? `group ${told.group}, ` : ""}target ${told.target}: ${told.question}.`;
  return panel("Decision", quiet(where), move, el("div", { class: "two wide-left" }, drawn, host));
}

function computeWords(told, point) {
  return told.cost ? `${told.cost} = ${fmt(point.compute, 3)}` : "";
}

function decisionTable(run, told, point) {
  const rows = Object.entries(point.config).map(([n, v]) => [point.edge.includes(n) ? `${n}, at the end of its range` : n, fmt(v), point.config90[n] ? `${fmt(point.config90[n][0])} to ${fmt(point.config90[n][1])}` : "–"]);
  rows.push([`${told.target} there`, fmt(point.value), `${fmt(point.value90[0])} to ${fmt(point.value90[1])}`]);
  const [a, b] = told.axes.map((x) => x.name);
  const ratio = told.solved && point.config[a] && point.config[b] && told.cost?.includes(a) ? quiet(`${b} per ${a}: ${fmt(point.config[b] / point.config[a], 3)}`) : null;
  return el("div", {}, grid(["input", "best", "90% of refitted laws"], rows, "Best configuration", [1, 2]), ratio, quiet("Cross: the best configuration. Orange line: the best at every compute, from the cheapest row to a hundred times the dearest. Thick white line: all that costs this much. Blue dots: the rows. Dark is low, yellow is high."));
}

const CELLS = 56;

/** The law on a grid over the two inputs; the other inputs as in the best configuration. */
function surface(run, told, point) {
  const [across, up] = told.axes;
  const xs = sweep(across.low, across.high, CELLS, across.log);
  const ys = sweep(up.low, up.high, CELLS, up.log);
  const law = compiled(run.laws[0].tree);
  const values = { ...run.laws[0].params[told.group][told.target], ...told.others };
  for (const [n, v] of Object.entries(point.config)) if (n !== across.name && n !== up.name) values[n] = v;
  const at = (f, x, y) => ((values[across.name] = x), (values[up.name] = y), f(values));
  const z = ys.map((y) => xs.map((x) => at(law, x, y)));
  const cost = told.cost_tree && told.cost_tree.length ? compiled(told.cost_tree) : null;
  const spent = cost ? ys.map((y) => xs.map((x) => Math.log(at(cost, x, y) / point.compute))) : null;
  return { xs, ys, z, spent };
}

function decisionOption(run, told, point) {
  const [across, up] = told.axes;
  const { xs, ys, z, spent } = surface(run, told, point);
  const log = [across.log, up.log];
  const known = z.flat().filter((v) => Number.isFinite(v)).sort((a, b) => a - b);
  const at = (q) => known[Math.min(Math.floor(q * known.length), known.length - 1)];
  const [low, high] = [at(0), at(0.97)];
  const levels = [0.03, 0.08, 0.16, 0.27, 0.4, 0.55, 0.7, 0.85, 0.95].map(at);
  const shade = (v) => blend(CIVIDIS, (v - low) / (high - low || 1));
  const inside = (p) => p.every((v, i) => v !== null && v !== undefined && v >= told.axes[i].low && v <= told.axes[i].high);
  const best = told.path.map((p) => told.axes.map((a) => p.config[a.name] ?? told.others[a.name])).filter(inside);
  const here = told.axes.map((a) => point.config[a.name]);
  const rows = rowsOf(run.points, told.group).map((i) => told.axes.map((a) => run.points.columns[a.name][i]));
  const axis = (a) => ({ type: a.log ? "log" : "value", name: a.name, min: a.low, max: a.high, splitLine: { show: false } });
  return {
    legend: false,
    xAxis: axis(across),
    yAxis: axis(up),
    series: [
      cellsSeries(xs, ys, z, shade),
      ...levels.map((level) => contourSeries(contour(xs, ys, z, level, log), "#ffffff", fmt(level, 3), 1)),
      ...(spent ? [contourSeries(contour(xs, ys, spent, 0, log), "#ffffff", "", 2.5, "dashed")] : []),
      { type: "scatter", data: rows, symbolSize: 5, itemStyle: { color: COLOURS[4], borderColor: "#000", borderWidth: 0.5 }, tooltip: { formatter: (p) => tip("a row", [[across.name, fmt(p.value[0])], [up.name, fmt(p.value[1])]]) } },
      { type: "line", data: best, symbol: "diamond", symbolSize: 5, lineStyle: { color: COLOURS[5], width: 2 }, itemStyle: { color: COLOURS[5] } },
      { type: "scatter", data: inside(here) ? [here] : [], symbol: CROSS, symbolSize: 20, itemStyle: { color: COLOURS[5], borderColor: "#fff", borderWidth: 1.5 }, z: 9 },
    ],
    tooltip: { formatter: (p) => p.value && tip("best by compute", [[across.name, fmt(p.value[0])], [up.name, fmt(p.value[1])]]) },
  };
}

/** The colour at a share of the way through a list of colours. */
function blend(colours, share) {
  const place = Math.max(0, Math.min(share, 1)) * (colours.length - 1);
  const [a, b] = [Math.floor(place), Math.min(Math.floor(place) + 1, colours.length - 1)].map((i) => colours[i].match(/[0-9a-f]{2}/g).map((h) => parseInt(h, 16)));
  return `rgb(${a.map((v, i) => Math.round(v + (b[i] - v) * (place % 1))).join(",")})`;
}

const CROSS = "path://M4 0h2v4h4v2h-4v4h-2v-4h-4v-2h4z";

/** The cells of a grid, coloured by value. */
function cellsSeries(xs, ys, z, shade) {
  const data = [];
  for (let j = 0; j + 1 < ys.length; j++) for (let i = 0; i + 1 < xs.length; i++) data.push([xs[i], ys[j], xs[i + 1], ys[j + 1], z[j][i]]);
  const renderItem = (_, api) => {
    const [x, y] = api.coord([api.value(0), api.value(1)]).map(Math.round);
    const [u, v] = api.coord([api.value(2), api.value(3)]).map(Math.round);
    const value = api.value(4);
    const fill = Number.isFinite(value) ? shade(value) : "transparent";
    return { type: "rect", shape: { x, y: v, width: u - x, height: y - v }, style: { fill } };
  };
  return { type: "custom", data, renderItem, silent: true, clip: true, z: 0, progressive: 0 };
}

/** Segments of a contour, with its level written once. */
function contourSeries(segments, color, words, width, type = "solid") {
  const middle = segments[Math.floor(segments.length / 2)];
  const label = middle && words ? { markPoint: { symbol: "rect", symbolSize: [1, 1], silent: true, itemStyle: { color: "transparent" }, label: { show: true, formatter: words, color: "#fff", textBorderColor: "#000", textBorderWidth: 2.5, fontSize: 11 }, data: [{ coord: middle[0] }] } } : {};
  return { type: "line", silent: true, symbol: "none", z: 2, lineStyle: { color, width, type, opacity: 0.8 }, data: segments.flatMap(([a, b]) => [a, b, [null, null]]), ...label };
}
