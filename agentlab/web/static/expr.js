"use strict";
// Laws as trees: a number, a name, or [operation, argument, ..]; evaluated here just as agentlab evaluates them.

const OPERATIONS = {
  "+": (a, b) => a + b,
  "-": (a, b) => a - b,
  "*": (a, b) => a * b,
  "/": (a, b) => a / b,
  "**": (a, b) => (a > 0 ? Math.exp(b * Math.log(a)) : Math.pow(a, b)),
  neg: (a) => -a,
  exp: Math.exp,
  log: Math.log,
  log2: Math.log2,
  log10: Math.log10,
  sqrt: Math.sqrt,
  abs: Math.abs,
  tanh: Math.tanh,
  sigmoid: (a) => (a >= 0 ? 1 / (1 + Math.exp(-a)) : Math.exp(a) / (1 + Math.exp(a))),
  min: Math.min,
  max: Math.max,
};

/** A function from values by name to a number. */
function compiled(tree) {
  if (typeof tree === "number") return () => tree;
  if (typeof tree === "string") return (values) => values[tree];
  const [name, ...rest] = tree;
  const run = OPERATIONS[name];
  const [first, second, ...more] = rest.map(compiled);
  if (!second) return (values) => run(first(values));
  if (!more.length) return (values) => run(first(values), second(values));
  return (values) => run(first(values), second(values), ...more.map((f) => f(values)));
}

/** The law at every row of the columns (name -> values), at parameters by name. */
function evaluate(tree, columns, params) {
  const law = compiled(tree);
  const names = Object.keys(columns);
  const n = names.length ? columns[names[0]].length : 1;
  const values = { ...params };
  return Array.from({ length: n }, (_, i) => {
    for (const name of names) values[name] = columns[name][i];
    return law(values);
  });
}

/** `n` values between two ends, evenly, or by equal factors. */
function sweep(low, high, n, log) {
  const step = (i) => i / (n - 1);
  if (log && low > 0) return Array.from({ length: n }, (_, i) => low * (high / low) ** step(i));
  return Array.from({ length: n }, (_, i) => low + (high - low) * step(i));
}

/** Rows that belong to a group, as positions. */
function rowsOf(points, group) {
  return points.group.flatMap((g, i) => (g === group ? [i] : []));
}

/** What a law predicts for a target at the rows at hand: recomputed with `params`, else as it came with the run. */
function predictions(run, target, params = null) {
  const { points } = run;
  const law = run.laws[0];
  if (!law || law.program || !params) return points.predicted ? points.predicted[target] : null;
  const out = points.group.map(() => null);
  for (const group of new Set(points.group)) {
    const at = rowsOf(points, group);
    const own = params[group]?.[target];
    if (!own) continue;
    const columns = Object.fromEntries(Object.entries(points.columns).map(([n, c]) => [n, at.map((i) => c[i])]));
    evaluate(law.tree, columns, own).forEach((v, j) => (out[at[j]] = v));
  }
  return out;
}

/**
 * The rows of a group moved along the law to other inputs, each with its residual kept: [input, target] of every row.
 * `at` holds the inputs that all of them are moved to, but for the one that is drawn along.
 */
function movedRows(run, { group, target, along, at, params }) {
  const law = compiled(run.laws[0].tree);
  const { columns, observed } = run.points;
  return rowsOf(run.points, group).map((i) => {
    const own = Object.fromEntries(Object.entries(columns).map(([n, c]) => [n, c[i]]));
    const [before, after] = [law({ ...own, ...params }), law({ ...at, [along]: own[along], ...params })];
    const y = observed[target][i];
    return [own[along], run.residual === "log" ? (y * after) / before : y - before + after];
  });
}

/** Where a surface crosses a level: segments [[x, y], [x, y]] of a grid z[row][column] (marching squares). */
function contour(xs, ys, z, level, log) {
  const between = (a, b, t, isLog) => (isLog ? a * (b / a) ** t : a + (b - a) * t);
  const found = [];
  for (let j = 0; j + 1 < ys.length; j++) {
    for (let i = 0; i + 1 < xs.length; i++) {
      const corners = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]];
      const crossings = [];
      corners.forEach(([ai, aj], k) => {
        const [bi, bj] = corners[(k + 1) % 4];
        const a = z[aj][ai] - level;
        const b = z[bj][bi] - level;
        if (!Number.isFinite(a) || !Number.isFinite(b) || a > 0 === b > 0) return;
        const t = a / (a - b);
        crossings.push([between(xs[ai], xs[bi], t, log[0]), between(ys[aj], ys[bj], t, log[1])]);
      });
      for (let k = 0; k + 1 < crossings.length; k += 2) found.push([crossings[k], crossings[k + 1]]);
    }
  }
  return found;
}
