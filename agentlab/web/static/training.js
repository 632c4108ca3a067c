"use strict";
// The training runs that the loop made: what was asked for, what came of it, and what each round learned.

function trainingTab(run) {
  if (!run.experiments.length) return panel("Training runs", quiet(`This run fitted ${count(run.rows, "row")} that it was given and made no training runs; experiments=N lets it make some.`));
  const parts = [panel("Training runs", el("div", { class: "tiles" }, trainingTiles(run)), trainingTable(run))];
  const curves = run.experiments.filter((e) => e.curve?.length > 1);
  if (curves.length) parts.push(panel("Losses, segment by segment", curvesChart(curves), quiet("Validation loss after each segment, by the share of the run's budget that was spent. Read from the trace, never made again.")));
  return [...parts, roundsPanel(run)];
}

function trainingTiles(run) {
  const made = run.experiments.filter((e) => e.status === "ok");
  const simulated = made.some((e) => e.simulated);
  return [
    tile(fmt(made.length), simulated ? "simulated runs" : "runs made", simulated ? "nothing was trained" : ""),
    tile(fmt(run.experiments.length - made.length), "rejected"),
    tile(fmt(sum(run.experiments.map((e) => e.flops || 0)), 3), "FLOPs spent"),
    tile(fmt(run.rounds.length), "rounds"),
    ...(run.stop ? [tile(run.stop, "why it stopped")] : []),
  ];
}

function trainingTable(run) {
  const inputs = Object.keys(run.experiments[0].columns || {});
  const targets = [...new Set(run.experiments.flatMap((e) => Object.keys(e.targets || {})))];
  const columns = [
    figure("id", "run", "60px", String), figure("round", "round", "70px", String), word("design", "design", "90px"), word("status", "status", "90px"),
    ...inputs.map((n) => ({ key: n, title: n, width: "minmax(80px, 1fr)", num: true, get: (e) => e.columns[n], show: (e) => fmt(e.columns[n]) })),
    ...targets.map((n) => ({ key: n, title: n, width: "minmax(90px, 1fr)", num: true, get: (e) => e.targets?.[n], show: (e) => fmt(e.targets?.[n], 5) })),
    figure("flops", "FLOPs", "90px"),
    { key: "reason", title: "why not", width: "minmax(120px, 1.5fr)", get: (e) => e.reason || null, show: (e) => e.reason || "" },
  ];
  const detail = el("div", { "aria-live": "polite" });
  const open = (e) => detail.replaceChildren(panel(`Run ${e.id}`, grid(["setting", "value"], Object.entries(e.config || {}).map(([k, v]) => [k, String(v)]), `Settings of run ${e.id}`), quiet(`Asked for on line ${e.asked_line} of trace.jsonl, measured on line ${e.trace_line}; state digest ${e.digest || "none"}.`)));
  return el("div", {}, new Table({ label: "Training runs", columns, rows: run.experiments, open, sort: "id", height: 360 }).node, detail);
}

function curvesChart(experiments) {
  const make = () => ({
    legend: experiments.length <= 12 ? {} : false,
    xAxis: { type: "value", name: "share of the run's budget", min: 0, max: 1 },
    yAxis: axisOf("validation loss", experiments.flatMap((e) => e.curve.map((p) => p[1])), false),
    series: experiments.map((e, i) => ({ type: "line", name: `run ${e.id}`, data: e.curve, symbol: SYMBOLS[i % SYMBOLS.length], symbolSize: 6, lineStyle: { type: i < COLOURS.length ? "solid" : "dashed", width: 1.5 } })),
    tooltip: { formatter: (p) => tip(p.seriesName, [["share", fmt(p.value[0], 3)], ["loss", fmt(p.value[1], 5)]]) },
  });
  return chart("Losses of the training runs by segment", make, { height: 340 });
}

function roundsPanel(run) {
  const rows = run.rounds.map((r) => [String(r.round), fmt(r.rows), fmt(r.runs), fmt(r.flops, 3), fmt(r.counts?.evaluated), fmt(r.noise, 3), r.regret === undefined ? "–" : `${fmt(r.regret, 3)}%`, el("code", { text: r.law })]);
  return panel("Rounds", grid(["round", "rows", "runs so far", "FLOPs so far", "candidates", "noise", "regret", "law that was believed"], rows, "Rounds", [0, 1, 2, 3, 4, 5, 6]));
}
