"use strict";
// How the search went: the best so far with the width of its noise, and every candidate, kept or rejected, with why.

/** The best objective of other seeds of the same search, where they are on the page. */
function sameSearches(run) {
  return STATE.ready.filter((o) => o && o !== run && o.task === run.task && o.rows_digest === run.rows_digest && o.proposer === run.proposer && o.seed !== run.seed);
}

/** The best objective of a run at each of the given numbers of candidates. */
function bestAt(run, numbers) {
  let k = 0;
  return numbers.map((n) => {
    while (k + 1 < run.steps.length && run.steps[k + 1] <= n) k++;
    return run.steps.length && run.steps[k] <= n ? run.entries.objective[run.steps[k]] : null;
  });
}

/** The band of seeds around the best so far: their range, else one standard error of an objective. */
function noiseBand(run) {
  const n = run.entries.id.length;
  const numbers = sweep(0, Math.max(n - 1, 1), Math.min(n, 200) || 1, false).map(Math.round);
  const others = sameSearches(run);
  const mine = bestAt(run, numbers);
  if (!others.length) {
    return { x: numbers, low: mine.map((v) => v === null ? null : v - run.noise), high: mine.map((v) => v === null ? null : v + run.noise), words: `Grey: ± ${fmt(run.noise, 3)} nats, one standard error of an objective if the ${fmt(run.rows)} rows were drawn anew (residuals taken for normal). Open runs of other seeds beside this one for their range instead.` };
  }
  const all = [mine, ...others.map((o) => bestAt(o, numbers))];
  const pick = (f) => numbers.map((_, i) => all.every((s) => s[i] === null) ? null : f(...all.map((s) => s[i]).filter((v) => v !== null)));
  return { x: numbers, low: pick(Math.min), high: pick(Math.max), words: `Grey: the range over ${others.length + 1} seeds of the same search.` };
}

const MOST_POINTS = 12000;
const MOST_STEPS = 60;

/** How much of the heights is drawn: most candidates, or those that noise cannot tell from the best by far. */
const HEIGHTS = [["most", "most candidates"], ["near", "near the best"], ["all", "all candidates"]];

function searchChart(run, place, height = 360) {
  let heights = "most";
  const make = () => {
    const { entries, steps } = run;
    const { x, low, high } = noiseBand(run);
    const line = steps.map((i) => [i, entries.objective[i]]);
    if (steps.length) line.push([entries.id.length - 1, entries.objective[steps[steps.length - 1]]]);
    const worst = topOf(run, heights);
    const stride = Math.ceil(entries.id.length / MOST_POINTS);
    const points = entries.objective.flatMap((o, i) => (o === null || o > worst || i % stride ? [] : [[i, o]]));
    const best = steps.map((i) => ({ value: [i, entries.objective[i]], entry: i }));
    const formatter = (p) => p.value && tip(`entry ${entries.id[p.value[0]]}`, [["objective", `${fmt(p.value[1], 6)} nats`], ["", entries.program[p.value[0]] ? "a program" : entries.formula[p.value[0]]]]);
    return {
      xAxis: { type: "value", name: "candidates", min: 0, max: Math.max(entries.id.length - 1, 1), minInterval: 1 },
      yAxis: { type: "value", name: "objective (nats)", max: worst === Infinity ? undefined : worst, nameGap: 58, axisLabel: { showMaxLabel: false } },
      series: [
        band("noise", x, low, high, ink("quiet"), 0.22),
        { type: "scatter", name: "candidates", data: points, symbolSize: 4, large: points.length > 2000, itemStyle: { color: COLOURS[4], opacity: 0.55 } },
        { type: "line", name: "best so far", step: "end", data: line, symbol: "none", lineStyle: { color: COLOURS[0], width: 2 }, itemStyle: { color: COLOURS[0] } },
        { type: "scatter", name: "steps", data: best, symbol: "diamond", symbolSize: 11, itemStyle: { color: COLOURS[5] }, z: 5 },
      ],
      tooltip: { formatter },
    };
  };
  const click = (p) => p.value && go(runHash(place, "family", { entry: run.entries.id[p.value[0]] }));
  const drawn = chart("The best objective so far, by candidates", make, { height, click });
  return el("div", {}, el("div", { class: "bar" }, choice("Heights", HEIGHTS, heights, (h) => ((heights = h), drawn.chart.update()))), drawn);
}

/** An objective above which points are left out of sight: far worse ones would squeeze the rest flat. */
function topOf(run, heights) {
  const known = run.entries.objective.filter((o) => o !== null).sort((a, b) => a - b);
  if (known.length < 8 || heights === "all") return Infinity;
  const [best, most] = [known[0], known[Math.floor(known.length * 0.75)]];
  return heights === "near" ? best + 3 * run.noise : most + 0.3 * (most - best) + run.noise;
}

function searchTab(run, place) {
  if (!run.entries.id.length) return panel("Search", quiet("No candidate is on record yet."));
  const { entries } = run;
  const shown = run.steps.slice(-MOST_STEPS);
  const step = (i) => [el("a", { href: runHash(place, "family", { entry: entries.id[i] }), text: String(entries.id[i]) }), fmt(entries.objective[i], 6), percent(entries.are[i]), entries.operator[i], entries.program[i] ? el("code", { text: essence(entries.formula[i]).split("\n")[0] }) : formula(run.formulas[entries.id[i]], entries.formula[i])];
  const steps = grid(["entry", "objective", "error beyond", "how", "law"], shown.map(step), "Steps of the search", [0, 1, 2]);
  const rounds = run.in_rounds ? quiet(`The candidates are those of the last of ${run.in_rounds} searches; the others are runs of their own, under rounds/.`) : null;
  return [panel("Best so far", searchChart(run, place), quiet(noiseBand(run).words), rounds), panel("Each time something better came", steps, run.steps.length > shown.length ? quiet(`The last ${shown.length} of ${fmt(run.steps.length)}.`) : null), finalistsPanel(run)];
}

function finalistsPanel(run) {
  if (!run.finalists.length) return null;
  const rows = run.finalists.map((f) => [String(f.entry), f.status === "ok" ? fmt(f.objective, 6) : f.reason, percent(f.are), fmt(f.n_params), f.violations || "none", el("code", { text: f.formula.includes("\n") ? essence(f.formula).split("\n")[0] : f.formula })]);
  return panel("Finalists, judged again with more starts and more cuts", grid(["entry", "objective", "error beyond", "params", "broken constraints", "law"], rows, "Finalists", [0, 1, 2, 3]));
}

const UNFILTERED = { text: "", status: "", reason: "", operator: "" };
const FILTER = { ...UNFILTERED, place: 0 };

function candidatesTab(run, place) {
  if (FILTER.place !== place) Object.assign(FILTER, UNFILTERED, { place });
  const { entries } = run;
  const columns = candidateColumns(entries);
  const places = entries.id.map((_, i) => i);
  const detail = el("div", { "aria-live": "polite" });
  const open = (i) => detail.replaceChildren(entryPanel(run, place, i));
  const table = new Table({ label: "Candidates", columns, rows: places.filter((i) => keptEntry(run, i)), open, sort: "objective", height: 460 });
  const redraw = () => table.set(places.filter((i) => keptEntry(run, i)));
  const set = (key) => (value) => ((FILTER[key] = value), redraw());
  const distinct = (column) => [...new Set(column)].filter((w) => w).sort().map((w) => [w, w]);
  const reasons = rejections(run).map(([why, n]) => [why, `${why} (${n})`]);
  const bar = el("div", { class: "bar" },
    filterBox("Filter formulas", set("text"), FILTER.text),
    choice("Status", [["", "all"], ["ok", "kept"], ["rejected", "rejected"]], FILTER.status, set("status")),
    choice("Reason", [["", "any"], ...reasons], FILTER.reason, set("reason")),
    choice("How", [["", "any"], ...distinct(entries.operator)], FILTER.operator, set("operator")));
  return panel("Candidates, kept and rejected", bar, table.node, detail);
}

function keptEntry({ entries }, i) {
  if (FILTER.status && (FILTER.status === "ok") !== !!entries.ok[i]) return false;
  if (FILTER.reason && entries.reason[i].split(":")[0] !== FILTER.reason) return false;
  if (FILTER.operator && entries.operator[i] !== FILTER.operator) return false;
  return !FILTER.text || entries.formula[i].toLowerCase().includes(FILTER.text) || String(entries.id[i]) === FILTER.text;
}

function candidateColumns(e) {
  const of = (key, title, width, show, num = true) => ({ key, title, width, num, get: (i) => e[key][i], show: (i) => show(e[key][i], i) });
  return [
    of("id", "entry", "70px", String),
    of("formula", "law", "minmax(170px, 3fr)", (f, i) => (e.program[i] ? essence(f).split("\n").slice(-1)[0].trim() : f), false),
    of("objective", "objective", "104px", (v) => fmt(v, 6)),
    of("are", "error beyond", "108px", (v) => percent(v)),
    of("n_params", "params", "76px", (v) => fmt(v)),
    of("complexity", "nodes", "72px", (v) => fmt(v)),
    of("operator", "how", "110px", String, false),
    { key: "reason", title: "rejected for", width: "minmax(150px, 1.4fr)", get: (i) => e.reason[i] || e.violations[i] || null, show: (i) => e.reason[i] || (e.violations[i] ? `breaks ${e.violations[i]}` : "") },
  ];
}

/** One candidate: its law, its figures, where its line stands, and what it changed. */
function entryPanel(run, place, i) {
  const { entries: e } = run;
  const figures = [["status", e.ok[i] ? "kept" : `rejected: ${e.reason[i]}`], ["objective", `${fmt(e.objective[i], 8)} nats`], ["description length", `${fmt(e.mdl[i], 8)} nats`], ["error beyond the cut", `${percent(e.are[i])}, R2 ${fmt(e.r2[i])}`], ["made by", `${e.proposer[i]}, ${e.operator[i]}${e.parents[i].length ? ` of ${e.parents[i].join(", ")}` : ""}`], ["kind of terms", e.structure[i] || "–"], ["breaks", e.violations[i] || "nothing"], ["on record", `line ${e.line[i]} of ${run.in_rounds ? "the last round's " : ""}trace.jsonl`]];
  const law = e.program[i] ? el("pre", { text: e.formula[i] }) : el("div", { class: "law" }, formula(run.formulas[e.id[i]], e.formula[i], true));
  const changes = e.parents[i].filter((p) => run.places.has(p)).map((p) => changePanel(run, run.places.get(p), i));
  const link = el("a", { href: runHash(place, "family", { entry: e.id[i] }), text: "its family" });
  return panel(`Entry ${e.id[i]}`, law, pairs(figures, `Entry ${e.id[i]}`), changes, el("p", {}, link));
}

/** What a candidate changed of a parent: the formula above the program. */
function changePanel(run, from, to) {
  const { entries: e } = run;
  const head = el("h3", { text: `What changed from entry ${e.id[from]}` });
  if (!e.program[from] && !e.program[to]) return el("div", {}, head, formulaDifference(e.formula[from], e.formula[to]));
  const short = (i) => (e.program[i] ? lawLine(e.formula[i]) : e.formula[i]);
  return el("div", {}, head, formulaDifference(short(from), short(to)), codeDifference(e.formula[from], e.formula[to]));
}

/** What a program's law returns, on one line. */
function lawLine(program) {
  const found = essence(program).split("\n").filter((l) => l.trim().startsWith("return"));
  return found.length ? found[found.length - 1].trim().replace(/^return\s*/, "") : essence(program).split("\n")[0];
}
