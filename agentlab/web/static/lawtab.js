"use strict";
// The law with sliders: its parameters and its inputs are moved by hand, and it is evaluated on the page.

function lawTab(run) {
  const law = run.laws[0];
  if (!law) return panel("Law", quiet("There is no law yet."));
  if (law.program) return panel("Law", el("pre", { text: law.formula }), quiet("The law is a program: a page cannot run it. Its predictions are on the tab Fit."));
  const state = { group: Object.keys(law.params)[0], target: run.targets[0], across: null, params: {}, inputs: {} };
  const host = el("div");
  const redraw = () => host.replaceChildren(...sliderParts(run, law, state));
  const reset = () => {
    state.params = { ...law.params[state.group][state.target] };
    state.inputs = { ...largestRow(run, state.group) };
    state.across ??= usedInputs(run, law)[0] || run.features[0].name;
    redraw();
  };
  const groups = Object.keys(law.params).map((g) => [g, g]);
  const bar = el("div", { class: "bar" },
    groups.length > 1 ? choice("Group", groups, state.group, (g) => ((state.group = g), reset())) : null,
    run.targets.length > 1 ? choice("Target", run.targets.map((t) => [t, t]), state.target, (t) => ((state.target = t), reset())) : null,
    choice("Draw along", run.features.map((f) => [f.name, f.name]), state.across, (f) => ((state.across = f), redraw())),
    el("button", { type: "button", class: "plain", text: "As on record", on: { click: reset } }));
  reset();
  return panel(null, el("div", { class: "law" }, formula(law.mathml, law.formula, true)), bar, host);
}

function usedInputs(run, law) {
  const names = new Set(JSON.stringify(law.tree).match(/[A-Za-z_]\w*/g));
  return run.features.map((f) => f.name).filter((n) => names.has(n));
}

/** The inputs of the row of largest scale of a group. */
function largestRow(run, group) {
  const { points } = run;
  const rows = rowsOf(points, group);
  const best = points.scale ? rows.reduce((a, b) => (points.scale[b] > points.scale[a] ? b : a), rows[0]) : rows[rows.length - 1];
  return Object.fromEntries(Object.entries(points.columns).map(([n, c]) => [n, c[best]]));
}

function sliderParts(run, law, state) {
  const value = el("output", { class: "big", id: "value" });
  const drawn = chart("The law, moved by hand, with the rows", () => lawCurve(run, law, state), { height: 330 });
  const tell = () => {
    const found = evaluate(law.tree, Object.fromEntries(Object.entries(state.inputs).map(([n, v]) => [n, [v]])), state.params)[0];
    value.textContent = `${state.target} = ${fmt(found, 6)}`;
    value.dataset.value = String(found);
    drawn.chart.update();
  };
  const recorded = law.params[state.group][state.target];
  const parameters = law.names.map((name) => slider(name, state.params[name], parameterRange(recorded[name]), (v) => ((state.params[name] = v), tell()), law.intervals[state.group]?.[state.target]?.[name]));
  const inputs = run.features.map((f) => slider(f.name, state.inputs[f.name], inputRange(run, f), (v) => ((state.inputs[f.name] = v), tell())));
  tell();
  return [value, el("div", { class: "two" },
    el("div", {}, drawn, quiet("Solid: the law as moved. Dashed: as on record. Points: the rows, each taken along the law to the other inputs of the sliders, its residual kept.")),
    el("div", {}, el("h3", { text: "Parameters" }), parameters, el("h3", { text: "Inputs" }), inputs))];
}

function parameterRange(recorded) {
  const reach = recorded === 0 ? 1 : Math.abs(recorded);
  return { low: recorded - reach, high: recorded + reach, log: false };
}

function inputRange(run, feature) {
  const column = run.points.columns[feature.name];
  const [low, high] = [Math.min(...column), Math.max(...column)];
  const log = feature.log && low > 0;
  return log ? { low: low / 3, high: high * 100, log } : { low: low - (high - low) / 4, high: high + (high - low), log };
}

/** A slider that keeps the very number it was given until it is moved. */
function slider(name, start, { low, high, log }, change, interval = null) {
  const to = (v) => (log ? Math.log(v / low) / Math.log(high / low) : (v - low) / (high - low || 1));
  const from = (u) => (log ? low * (high / low) ** u : low + u * (high - low));
  const shown = el("output", { text: fmt(start, 5) });
  const input = el("input", { type: "range", min: 0, max: 1, step: 0.001, value: to(start), "aria-label": name, "data-name": name });
  input.addEventListener("input", () => {
    const v = from(Number(input.value));
    shown.textContent = fmt(v, 5);
    input.setAttribute("aria-valuetext", fmt(v, 5));
    change(v);
  });
  input.setAttribute("aria-valuetext", fmt(start, 5));
  const note = interval ? el("small", { class: "quiet", text: `90%: ${fmt(interval[0])} to ${fmt(interval[1])}` }) : null;
  return el("div", { class: "slider" }, el("span", { text: name }), input, shown, note);
}

function lawCurve(run, law, state) {
  const { across, group, target } = state;
  const feature = run.features.find((f) => f.name === across);
  const { low, high, log } = inputRange(run, feature);
  const x = sweep(low, high, 160, log);
  const columns = Object.fromEntries(run.features.map((f) => [f.name, x.map((v) => (f.name === across ? v : state.inputs[f.name]))]));
  const moved = evaluate(law.tree, columns, state.params);
  const recorded = evaluate(law.tree, columns, law.params[group][target]);
  const rows = movedRows(run, { group, target, along: across, at: state.inputs, params: state.params });
  const pairs = (y) => x.map((v, i) => [v, Number.isFinite(y[i]) ? y[i] : null]);
  const still = movedRows(run, { group, target, along: across, at: state.inputs, params: law.params[group][target] });
  const { y, range } = heightOf(target, still.map((r) => r[1]), recorded);
  return {
    xAxis: axisOf(across, x, log),
    yAxis: { ...y, ...range },
    series: [
      { type: "scatter", name: "rows", data: rows, symbolSize: 5, itemStyle: { color: COLOURS[4], opacity: 0.6 } },
      { type: "line", name: "on record", data: pairs(recorded), symbol: "none", lineStyle: { color: ink("quiet"), type: "dashed", width: 1.5 }, itemStyle: { color: ink("quiet") } },
      { type: "line", name: "as moved", data: pairs(moved), symbol: "none", lineStyle: { color: COLOURS[5], width: 2.5 }, itemStyle: { color: COLOURS[5] } },
    ],
    tooltip: { trigger: "item", formatter: (p) => tip(p.seriesName, [[across, fmt(p.value[0])], [target, fmt(p.value[1], 5)]]) },
  };
}

/** A height axis that holds the rows and the curve, with some room, and does not jump when a slider moves. */
function heightOf(name, rows, curve) {
  const known = [...rows, ...curve].filter((v) => Number.isFinite(v));
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const room = 0.12 * (high - low || Math.abs(high) || 1);
  const y = axisOf(name, rows, Math.min(...rows) > 0 && Math.max(...rows) > 100 * Math.min(...rows));
  return { y, range: y.type === "log" ? {} : { min: Number((low - room).toPrecision(3)), max: Number((high + room).toPrecision(3)) } };
}
