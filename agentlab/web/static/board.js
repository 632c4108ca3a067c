"use strict";
// The leaderboard: a table to sort and filter, errors beside what they cost, and which method did how on which task.

const BOARD_STATE = { text: "", task: "", across: "complexity" };

const ACROSS = [["complexity", "complexity (nodes)"], ["n_params", "parameters"], ["usd", "cost (USD)"], ["seconds", "seconds"], ["flops", "FLOPs"]];

async function boardView(main) {
  const board = await readBoard();
  main.append(el("h1", { text: "Leaderboard" }));
  if (!board.rows.length) return main.append(emptyBoard(board.missing));
  const host = el("div");
  const tasks = [...new Set(board.rows.map((r) => r.task))].sort();
  const redraw = () => host.replaceChildren(...boardParts(board.rows.filter(boardKept)));
  main.append(
    el("div", { class: "bar" },
      filterBox("Filter laws, methods, submitters", (text) => ((BOARD_STATE.text = text), redraw()), BOARD_STATE.text),
      choice("Task", [["", "all tasks"], ...tasks.map((t) => [t, t])], BOARD_STATE.task, (t) => ((BOARD_STATE.task = t), redraw())),
      choice("Across", ACROSS, BOARD_STATE.across, (a) => ((BOARD_STATE.across = a), redraw()))),
    host);
  redraw();
}

function emptyBoard(missing) {
  const words = missing || "Nobody has submitted a law to this board yet.";
  const how = el("pre", { text: "agentlab leaderboard submit RUN\nagentlab leaderboard verify" });
  return panel("Nothing here yet", el("p", { text: words }), quiet("A row is a submission that the board scores itself:"), how);
}

function boardKept(row) {
  const text = `${row.task} ${row.law} ${row.method} ${row.submitter} ${row.level}`.toLowerCase();
  return (!BOARD_STATE.task || row.task === BOARD_STATE.task) && text.includes(BOARD_STATE.text);
}

function boardParts(rows) {
  const detail = el("div", { "aria-live": "polite" });
  const open = (row) => detail.replaceChildren(submission(row));
  const table = new Table({ label: "Submissions", columns: BOARD_COLUMNS, rows, open, sort: "holdout_are", height: 380 });
  return [table.node, detail, panel("Error beside what it takes", paretoChart(rows), quiet("The line joins submissions that nothing beats on both axes; only rows of one task can be compared, so choose a task.")), panel("Task by method", heatMap(rows), quiet("Median error on the hold-out over the submissions of a method; nothing is picked by its best."))];
}

const figure = (key, title, width, show = (v) => fmt(v, 3)) => ({ key, title, width, num: true, get: (r) => r[key], show: (r) => show(r[key]) });
const word = (key, title, width) => ({ key, title, width, get: (r) => r[key], show: (r) => r[key] ?? "–" });

const BOARD_COLUMNS = [
  word("task", "task", "minmax(130px, 1fr)"),
  word("law", "law", "minmax(180px, 2fr)"),
  word("method", "method", "minmax(150px, 1fr)"),
  figure("holdout_are", "hold-out error", "112px", percent),
  figure("holdout_se", "± s.e.", "74px", percent),
  figure("difference", "to reference", "100px", percent),
  figure("coverage", "coverage", "84px", percent),
  figure("regret", "regret", "74px"),
  figure("n_params", "params", "72px"),
  figure("complexity", "nodes", "70px"),
  figure("usd", "USD", "74px"),
  figure("looks", "looks", "66px"),
  { key: "runs", title: "runs", width: "76px", num: true, get: (r) => r.runs_finished, show: (r) => `${fmt(r.runs_finished)}/${fmt(r.runs_declared)}` },
  word("level", "level", "100px"),
  word("date", "date", "104px"),
];

function submission(row) {
  const lines = [
    ["task", `${row.task} (version ${row.task_version})`], ["method", row.method], ["submitter", row.submitter],
    ["hold-out error", `${percent(row.holdout_are)} ± ${percent(row.holdout_se)} over ${fmt(row.runs_finished)} of ${fmt(row.runs_declared)} declared runs`],
    ["reference law", percent(row.reference_are)], ["R2 on the hold-out", fmt(row.holdout_r2)], ["interval coverage", percent(row.coverage)],
    ["decision regret", fmt(row.regret)], ["identifiable", row.identifiable === null ? "–" : row.identifiable ? "yes" : "no"],
    ["looks at the hold-out", fmt(row.looks)], ["cost", `${fmt(row.usd)} USD, ${seconds(row.seconds)}, ${fmt(row.flops)} FLOPs`],
    ["level", row.level], ["same law as", (row.merged || []).join(", ") || "no other"], ["note", row.note || "none"],
  ];
  return panel("Submission", el("div", { class: "law" }, formula(row.mathml, row.law, true)), pairs(lines, "Submission"));
}

/** Rows that no other beats on both figures. */
function paretoFront(points) {
  const found = [];
  for (const p of [...points].sort((a, b) => a[0] - b[0] || a[1] - b[1])) {
    if (!found.length || p[1] < found[found.length - 1][1]) found.push(p);
  }
  return found;
}

function paretoChart(rows) {
  const across = BOARD_STATE.across;
  const known = rows.filter((r) => Number.isFinite(r[across]) && Number.isFinite(r.holdout_are));
  if (!known.length) return quiet("No row has both figures.");
  const methods = [...new Set(known.map((r) => r.method))];
  const make = () => {
    const series = methods.map((m, i) => ({ type: "scatter", name: m, symbol: SYMBOLS[i % SYMBOLS.length], symbolSize: 11, data: known.filter((r) => r.method === m).map((r) => ({ value: [r[across], r.holdout_are], row: r })) }));
    const line = { type: "line", step: "end", name: "not beaten", symbol: "none", silent: true, lineStyle: { color: ink("quiet"), type: "dashed" }, itemStyle: { color: ink("quiet") }, data: paretoFront(known.map((r) => [r[across], r.holdout_are])) };
    const formatter = ({ data }) => data.row && tip(data.row.law, [["method", data.row.method], ["task", data.row.task], ["error", percent(data.row.holdout_are)], [across, fmt(data.row[across])]]);
    const title = ACROSS.find(([k]) => k === across)[1];
    return { xAxis: { ...axisOf(title, known.map((r) => r[across])), boundaryGap: ["6%", "6%"] }, yAxis: { ...axisOf("hold-out error", known.map((r) => r.holdout_are)), boundaryGap: ["8%", "8%"], axisLabel: { formatter: (v) => percent(v) } }, series: [...series, line], tooltip: { formatter } };
  };
  return chart(`Hold-out error by ${across}`, make, { height: 340 });
}

function heatMap(rows) {
  const [tasks, methods] = ["task", "method"].map((k) => [...new Set(rows.map((r) => r[k]))].sort());
  const cells = tasks.flatMap((t, j) => methods.flatMap((m, i) => {
    const mine = rows.filter((r) => r.task === t && r.method === m);
    const middle = median(mine.map((r) => r.holdout_are));
    return middle === null ? [] : [{ value: [i, j, middle], n: mine.length }];
  }));
  if (!cells.length) return quiet("No row has a hold-out error.");
  const errors = cells.map((c) => c.value[2]);
  const make = () => ({
    grid: { right: 20, bottom: 60, top: 10 },
    xAxis: { type: "category", data: methods, axisLabel: { rotate: methods.length > 3 ? 24 : 0, width: 110, overflow: "truncate" } },
    yAxis: { type: "category", data: tasks, splitLine: { show: false }, axisLabel: { width: 130, overflow: "truncate" } },
    visualMap: { type: "continuous", min: Math.min(...errors), max: Math.max(...errors), inRange: { color: [...CIVIDIS].reverse() }, orient: "horizontal", left: "center", bottom: 0, itemHeight: 120, itemWidth: 12, precision: 3, text: ["more", "less"], textStyle: { color: ink("quiet") }, formatter: (v) => percent(v) },
    tooltip: { formatter: ({ data }) => tip(methods[data.value[0]], [["task", tasks[data.value[1]]], ["median error", percent(data.value[2])], ["submissions", data.n]]) },
    series: [{ type: "heatmap", data: cells, label: { show: true, fontSize: 13, formatter: ({ data }) => percent(data.value[2]), color: "#fff", textBorderColor: "#000", textBorderWidth: 3 } }],
  });
  return chart("Median hold-out error by task and method", make, { height: 110 + 44 * tasks.length });
}
