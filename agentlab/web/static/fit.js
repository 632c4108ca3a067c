"use strict";
// How the law meets the rows: predicted against observed, residuals, what lies beyond the cuts, and where it leads.

function fitTab(run) {
  if (!run.laws.length) return panel("Fit", quiet("There is no law yet."));
  if (!run.points.predicted) return panel("Fit", quiet(run.points.missing || "The law's predictions are not at hand."));
  const parts = [el("div", { class: "two" }, panel("Predicted against observed", matchChart(run)), residualPanel(run))];
  const said = run.points.of > run.points.group.length ? `Every ${Math.round(run.points.of / run.points.group.length)}th of ${fmt(run.points.of)} rows is drawn. ` : "";
  parts.push(quiet(`${said}Rows that are not sealed; the parameters are those on record.`));
  return [...parts, fanPanel(run), hiddenPanel(run)];
}

function matchChart(run) {
  const { points, targets } = run;
  const groups = [...new Set(points.group)];
  const split = groups.length > 1 && groups.length <= COLOURS.length && targets.length === 1;
  const sets = split ? groups.map((g) => [g, targets[0], rowsOf(points, g)]) : targets.map((t) => [t, t, points.group.map((_, i) => i)]);
  const make = () => {
    const all = targets.flatMap((t) => [...points.observed[t], ...points.predicted[t]]).filter((v) => Number.isFinite(v));
    const ends = [Math.min(...all), Math.max(...all)];
    const series = sets.map(([name, t, at], i) => ({ type: "scatter", name, symbol: SYMBOLS[i % SYMBOLS.length], symbolSize: 6, itemStyle: { opacity: 0.65 }, data: at.map((k) => ({ value: [points.observed[t][k], points.predicted[t][k]], row: k, target: t })) }));
    const line = { type: "line", name: "equal", silent: true, symbol: "none", data: ends.map((v) => [v, v]), lineStyle: { color: ink("quiet"), type: "dashed" } };
    return { xAxis: axisOf("observed", all), yAxis: axisOf("predicted", all), series: [...series, line], tooltip: { formatter: (p) => p.data.target && rowTip(run, p.data.row, p.data.target) } };
  };
  return chart("Predicted against observed", make, { height: 340 });
}

function rowTip(run, row, target) {
  const { points } = run;
  const inputs = Object.entries(points.columns).map(([n, c]) => [n, fmt(c[row])]);
  const group = run.groups.length > 1 ? [["group", points.group[row]]] : [];
  return tip(null, [...group, ...inputs, [`${target} observed`, fmt(points.observed[target][row], 5)], ["predicted", fmt(points.predicted[target][row], 5)]]);
}

function residualOf(run, target, i) {
  const [seen, said] = [run.points.observed[target][i], run.points.predicted[target][i]];
  return run.residual === "log" ? Math.log(said / seen) : said - seen;
}

function residualPanel(run) {
  const inputs = [...(run.points.scale ? [["", `scale ${run.scale}`]] : []), ...run.features.map((f) => [f.name, f.name])];
  let along = inputs[0][0];
  const draw = () => {
    const x = along ? run.points.columns[along] : run.points.scale;
    const series = run.targets.map((t, i) => ({ type: "scatter", name: t, symbol: SYMBOLS[i % SYMBOLS.length], symbolSize: 6, itemStyle: { opacity: 0.65 }, data: x.map((v, k) => ({ value: [v, residualOf(run, t, k)], row: k, target: t })) }));
    const ends = [Math.min(...x), Math.max(...x)];
    series.push({ type: "line", name: "none", silent: true, symbol: "none", data: ends.map((v) => [v, 0]), lineStyle: { color: ink("quiet"), type: "dashed" } });
    const name = run.residual === "log" ? "log(predicted / observed)" : "predicted − observed";
    return { legend: run.targets.length > 1 ? {} : false, xAxis: axisOf(inputs.find(([v]) => v === along)[1], x), yAxis: { type: "value", name }, series, tooltip: { formatter: (p) => p.data.target && rowTip(run, p.data.row, p.data.target) } };
  };
  const drawn = chart("Residuals", draw, { height: 300 });
  return panel("Residuals", inputs.length > 1 ? choice("Along", inputs, along, (v) => ((along = v), drawn.chart.update())) : null, drawn);
}

/** Where the bootstrap's laws lead beyond the rows. */
function fanPanel(run) {
  if (!run.fans.length) return panel("Extrapolation", quiet(run.notes.fans || (run.state === "done" ? "The law depends on no input." : "This is made when the run is done.")));
  const names = run.fans.map((f, i) => [String(i), [f.input, run.groups.length > 1 ? f.group : "", run.targets.length > 1 ? f.target : ""].filter((w) => w).join(" · ")]);
  let at = 0;
  const drawn = chart("Extrapolation fan", () => fanOption(run, run.fans[at]), { height: 360 });
  const note = el("p", { class: "quiet" });
  const tell = () => {
    const others = Object.entries(run.fans[at].at).filter(([n]) => n !== run.fans[at].input);
    note.textContent = `Dark: half of 200 laws refitted to rows drawn anew; light: 90% of them. Shaded: beyond the rows.${others.length ? ` Other inputs as in the largest row (${others.map(([n, v]) => `${n} ${fmt(v)}`).join(", ")}): the rows are taken there along the law, their residuals kept.` : ""}`;
  };
  tell();
  const pick = names.length > 1 ? choice("Along", names, "0", (v) => ((at = Number(v)), tell(), drawn.chart.update())) : null;
  return panel("Extrapolation: where laws that fit as well lead", pick, drawn, note);
}

function fanOption(run, fan) {
  const { x, quantiles: [low, lower, middle, upper, high], input, target, group } = fan;
  const rows = movedRows(run, { group, target, along: input, at: fan.at, params: run.laws[0].params[group][target] });
  const end = Math.max(...rows.map((r) => r[0]));
  const axis = axisOf(input, x, run.features.find((f) => f.name === input).log);
  const beyond = { silent: true, itemStyle: { color: ink("line"), opacity: 0.35 }, data: [[{ xAxis: end }, { xAxis: axis.max ?? x[x.length - 1] }]] };
  return {
    xAxis: axis,
    yAxis: heightOf(target, rows.map((r) => r[1]), [...low, ...high].filter((v) => v !== null)).y,
    series: [
      band("90%", x, low, high, COLOURS[0], 0.18),
      band("50%", x, lower, upper, COLOURS[0], 0.32),
      { type: "line", name: "median", data: x.map((v, i) => [v, middle[i]]), symbol: "none", lineStyle: { color: COLOURS[0], width: 2 }, itemStyle: { color: COLOURS[0] }, markArea: beyond },
      { type: "scatter", name: "rows", data: rows, symbolSize: 5, itemStyle: { color: COLOURS[1], opacity: 0.7 } },
    ],
    tooltip: { formatter: (p) => tip(p.seriesName, [[input, fmt(p.value[0])], [target, fmt(p.value[1], 5)]]) },
  };
}

/** What the law predicts beyond each cut, refitted below it. */
function hiddenPanel(run) {
  if (!run.hidden.length) return run.notes.hidden ? panel("Beyond the cuts", quiet(run.notes.hidden)) : null;
  const rows = run.hidden.map((h) => [h.axis, `${fmt(100 * h.share, 2)}%`, fmt(h.train), fmt(h.test), percent(h.are), fmt(h.r2), h.shown ? "yes" : ""]);
  const table = grid(["ordered by", "share below", "rows below", "rows beyond", "error beyond", "R2", "told as the error"], rows, "Cuts", [1, 2, 3, 4, 5]);
  return panel("Beyond the cuts: refitted below, judged beyond", table, quiet("Made anew from the rows with the run's own settings; it is what finalists are judged by."));
}
