"use strict";
// Up to four runs side by side.

const MOST_COMPARED = 4;

async function compareView(main, query) {
  const { runs } = STATE.setup;
  main.append(el("h1", { text: "Compare runs" }));
  const known = (query.get("runs") || "").split(",").map((id) => runs.findIndex((r) => r.id === id)).filter((i) => i >= 0);
  const chosen = query.has("runs") ? known.slice(0, MOST_COMPARED) : runs.map((_, i) => i).slice(0, MOST_COMPARED);
  main.append(pickRuns(chosen));
  if (!chosen.length) return main.append(quiet("Choose the runs to compare."));
  const told = await Promise.all(chosen.map(readRun));
  main.append(panel("Best so far", compareChart(told)), comparedGrid(told, chosen));
}

function pickRuns(chosen) {
  const box = (r, i) => {
    const input = el("input", { type: "checkbox", checked: chosen.includes(i), disabled: !chosen.includes(i) && chosen.length >= MOST_COMPARED });
    input.addEventListener("change", () => {
      const next = input.checked ? [...chosen, i] : chosen.filter((c) => c !== i);
      go(`#/compare?runs=${next.map((c) => encodeURIComponent(STATE.setup.runs[c].id)).join(",")}`);
    });
    return el("label", { class: "check" }, input, ` ${r.id}`);
  };
  return el("fieldset", { class: "bar" }, el("legend", { text: `Up to ${MOST_COMPARED} runs` }), STATE.setup.runs.map(box));
}

function compareChart(runs) {
  const make = () => {
    const most = Math.max(...runs.map((r) => r.entries.id.length));
    const series = runs.map((r, i) => ({ type: "line", name: r.id, step: "end", symbol: "none", lineStyle: { width: 2, color: COLOURS[i], type: ["solid", "dashed", "dotted", "solid"][i] }, itemStyle: { color: COLOURS[i] }, data: [...r.steps.map((s) => [s, r.entries.objective[s]]), ...(r.steps.length ? [[r.entries.id.length - 1, r.entries.objective[r.steps[r.steps.length - 1]]]] : [])] }));
    return { xAxis: { type: "value", name: "candidates", min: 0, max: most }, yAxis: { type: "value", name: "objective (nats)", nameGap: 58 }, series, tooltip: { formatter: (p) => tip(p.seriesName, [["candidate", p.value[0]], ["objective", fmt(p.value[1], 6)]]) } };
  };
  const alike = new Set(runs.map((r) => r.rows_digest)).size === 1;
  return el("div", {}, chart("Best objective so far of the compared runs", make), quiet(alike ? "The runs are on the same rows: their figures can be compared." : "The runs are on different rows: objectives and errors cannot be compared between them."));
}

function comparedGrid(runs, places) {
  const first = runs[0];
  const line = (name, get) => [name, ...runs.map((r) => get(r) ?? "–")];
  const of = (get) => (r) => (r.result ? get(r.result, r) : null);
  const rows = [
    line("law", (r) => { const law = standing(r); return law ? (law.program ? el("pre", { text: essence(law.text) }) : formula(law.mathml, law.text)) : "none yet"; }),
    line("the same law as the first", of((t) => (!first.result ? "–" : t.law.key === first.result.law.key ? "yes" : "no"))),
    line("the same rows as the first", (r) => (r.rows_digest === first.rows_digest ? "yes" : "no")),
    line("verdict", of((t) => t.verdict)),
    line("error beyond the cut", of((t) => percent(t.score.dev.are))),
    line("error on the sealed hold-out", of((t) => percent(t.score.holdout?.are))),
    line("published form, same rows", of((t) => percent((t.score.refitted_reference_holdout || t.score.reference_holdout)?.are))),
    line("parameters", of((t) => fmt(t.law.n_params))),
    line("values", (r) => (r.laws[0] ? el("small", { text: valuesWords(r) }) : null)),
    line("seed, proposer", (r) => `${r.seed}, ${r.proposer}`),
    line("candidates", (r) => fmt(r.entries.id.length)),
    line("rejected", (r) => fmt(r.entries.ok.filter((ok) => !ok).length)),
    line("time", of((t) => seconds(t.cost.seconds))),
    line("models", of((t) => `${fmt(t.cost.usd)} USD`)),
    line("training", of((t) => `${fmt(t.cost.flops)} FLOPs`)),
  ];
  const heads = ["", ...runs.map((r) => r.id)];
  const links = ["", ...places.map((p) => el("a", { href: runHash(p), text: "open" }))];
  return panel("Side by side", grid(heads, [...rows, links], "Compared runs"));
}

function valuesWords(run) {
  const law = run.laws[0];
  const [group, targets] = Object.entries(law.params)[0];
  const [target, named] = Object.entries(targets)[0];
  const many = Object.keys(law.params).length > 1 || run.targets.length > 1;
  return `${many ? `${group}, ${target}: ` : ""}${Object.entries(named).map(([n, v]) => `${n} ${fmt(v)}`).join(", ")}`;
}
