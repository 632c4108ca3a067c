"use strict";
// The page of one run: the verdict first, then eight more tabs, which the keys 1 to 9 open.

const TABS = [
  ["verdict", "Verdict", (...of) => verdictTab(...of)],
  ["search", "Search", (...of) => searchTab(...of)],
  ["candidates", "Candidates", (...of) => candidatesTab(...of)],
  ["family", "Family", (...of) => familyTab(...of)],
  ["law", "Law", (...of) => lawTab(...of)],
  ["fit", "Fit", (...of) => fitTab(...of)],
  ["decision", "Decision", (...of) => decisionTab(...of)],
  ["training", "Training runs", (...of) => trainingTab(...of)],
  ["models", "Votes and prompts", (...of) => modelsTab(...of)],
];

async function runView(main, place, tab, query) {
  const run = await readRun(place);
  await readPeers(place);
  const [name, , view] = TABS.find(([n]) => n === tab) || TABS[0];
  main.append(runHead(run, place), tabList(place, name));
  const host = el("div", { id: "tab", role: "tabpanel", "aria-labelledby": `tab-${name}` });
  main.append(host);
  host.append(...[view(run, place, query)].flat().filter((n) => n));
}

function runHead(run, place) {
  const state = { open: "still going", done: "done", failed: "no law" }[run.state];
  const chip = el("span", { class: `chip ${run.state}`, id: "state", text: state });
  const words = `${run.task} · ${count(run.rows, "row")} · seed ${run.seed} · ${run.proposer}`;
  const line = el("p", { class: "quiet" }, words, " · ", el("span", { id: "progress", text: progressOf(run) }));
  return el("div", { class: "run-head" }, el("h1", {}, run.id, " ", chip), line);
}

function progressOf(run) {
  const rejected = run.entries.ok.filter((ok) => !ok).length;
  return `${count(run.entries.id.length, "candidate")}, ${fmt(rejected)} rejected`;
}

function tabList(place, chosen) {
  const link = ([name, title], i) =>
    el("a", { role: "tab", id: `tab-${name}`, href: runHash(place, name), "aria-selected": String(name === chosen), title: `${title} (key ${i + 1})`, text: title });
  return el("nav", { class: "tabs", role: "tablist", "aria-label": "Parts of the run" }, TABS.map(link));
}

function runHash(place, tab = "verdict", query = {}) {
  const words = new URLSearchParams(query).toString();
  return `#/run/${encodeURIComponent(STATE.setup.runs[place].id)}/${tab}${words ? `?${words}` : ""}`;
}

/** The verdict, the law with its intervals, the errors, what it was compared with, and how to get it again. */
function verdictTab(run, place) {
  const told = run.result;
  const law = standing(run);
  const words = told ? told.verdict : run.failed || "This run is still going on: its law is chosen at the end, among the best of the candidates.";
  const head = el("section", { class: "panel verdict" },
    el("h2", { text: "Verdict" }),
    el("p", { class: "big", id: "verdict", text: capital(words) }),
    law ? el("div", { class: "law", id: "law" }, law.program ? el("pre", { text: law.text }) : formula(law.mathml, law.text, true)) : null,
    law ? el("p", { class: "quiet" }, el("code", { id: "law-text", text: law.program ? essence(law.text) : law.text }), ` (entry ${law.entry}${run.state === "done" ? "" : ", the best so far"})`) : null);
  if (!told) return [head, run.state === "open" ? panel("Best so far", searchChart(run, place)) : null, rejectedPanel(run)];
  return [head, tiles(told, run), el("div", { class: "two" }, parametersPanel(run), comparedPanel(run)), el("div", { class: "two" }, rejectedPanel(run), costPanel(run)), againPanel(run)];
}

function capital(text) {
  return text ? `${text[0].toUpperCase()}${text.slice(1)}.` : "";
}

function tiles({ score, law, counts }, run) {
  const found = [tile(percent(score.dev.are), "error beyond the cut", `R2 ${fmt(score.dev.r2)}, ${count(score.dev.n, "hidden row")}`)];
  if (score.holdout) found.push(tile(percent(score.holdout.are), "error on the sealed hold-out", `R2 ${fmt(score.holdout.r2)}, ${count(score.holdout.n, "row")}; copied`));
  const reference = score.refitted_reference_holdout || score.reference_holdout;
  if (reference) found.push(tile(percent(reference.are), "published form, same rows", `R2 ${fmt(reference.r2)}; copied`));
  found.push(tile(fmt(law.n_params), "parameters", `${count(run.groups.length, "group")}, ${count(run.targets.length, "target")}`));
  found.push(tile(fmt(counts.evaluated), "candidates judged", `${fmt(sum(Object.values(counts.rejected)))} rejected`));
  return el("div", { class: "tiles" }, found);
}

function parametersPanel(run) {
  const law = run.laws[0];
  const rows = [];
  for (const [group, targets] of Object.entries(law.params)) {
    for (const [target, named] of Object.entries(targets)) {
      for (const [name, value] of Object.entries(named)) {
        const ends = law.intervals[group]?.[target]?.[name];
        rows.push([group, target, name, fmt(value, 5), ends ? `${fmt(ends[0])} to ${fmt(ends[1])}` : "–"]);
      }
    }
  }
  return panel("Parameters", grid(["group", "target", "name", "value", "90% interval"], rows, "Parameters", [3, 4]), quiet(`As on record at entry ${law.entry}.`));
}

function comparedPanel(run) {
  const { baselines, luck, score } = run.result;
  const rows = [["this law", percent(score.dev.are), fmt(score.dev.r2)], ...Object.entries(baselines.dev).map(([name, dev]) => [name, percent(dev.are), fmt(dev.r2)])];
  const chance = luck ? `On shuffled targets the best of ${fmt(luck.candidates)} candidates gained ${fmt(luck.gain, 3)} nats a row; this law gains ${fmt(luck.law_gain, 3)} on the real ones.` : "";
  return panel("Beside what needs no law", grid(["on the hidden rows", "error", "R2"], rows, "Baselines", [1, 2]), chance ? quiet(chance) : null);
}

function rejectedPanel(run) {
  const rows = rejections(run).map(([why, n]) => [why, fmt(n)]);
  if (!rows.length) return panel("Rejected", quiet("No candidate on record was rejected."));
  return panel("Rejected", grid(["reason", "candidates"], rows, "Reasons for rejection", [1]));
}

function costPanel(run) {
  const { cost, counts } = run.result;
  const rows = [["time", seconds(cost.seconds)], ["models", `${fmt(cost.usd)} USD${cost.tokens ? `, ${fmt(cost.tokens)} tokens` : ""}`], ["training", `${fmt(cost.flops)} FLOPs`]];
  if (counts.experiments) rows.push(["training runs", `${counts.experiments.made}${counts.experiments.simulated ? " (simulated)" : ""}`]);
  if (run.stop) rows.push(["stopped for", run.stop]);
  return panel("Cost", pairs(rows, "Cost"));
}

function againPanel(run) {
  const lines = [`agentlab runs replay ${run.id}      # the same trace, to the byte`, `agentlab audit ${run.id}            # the Law Card`, `agentlab report ${run.id}           # as a document`];
  return panel("Get it again", el("pre", { text: lines.join("\n") }));
}
