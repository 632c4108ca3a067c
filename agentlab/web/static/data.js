"use strict";
// What came with the page: the setup, the board, and the runs, each unpacked when it is first looked at.

const STATE = { setup: null, board: null, runs: [], ready: [] };

function raw(id) {
  return document.getElementById(id).textContent;
}

/** JSON that was compressed and written in letters. */
async function unpack(text) {
  const letters = atob(text);
  const bytes = Uint8Array.from(letters, (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

async function readBoard() {
  STATE.board ??= await unpack(raw("board"));
  return STATE.board;
}

/** The run at a place in the setup, made ready: words decoded, the best so far marked. */
function readRun(place) {
  STATE.runs[place] ??= unpack(raw(`run-${place}`)).then((told) => (STATE.ready[place] = prepared(told)));
  return STATE.runs[place];
}

/** Unpacks the runs of the same search, whose seeds stand beside a run's own. */
function readPeers(place) {
  const mine = STATE.setup.runs[place];
  const same = (r) => r.task === mine.task && r.proposer === mine.proposer;
  return Promise.all(STATE.setup.runs.flatMap((r, i) => (same(r) ? [readRun(i)] : [])));
}

function prepared(run) {
  const columns = run.entries;
  for (const [name, column] of Object.entries(columns)) {
    if (column && column.words) columns[name] = column.codes.map((c) => column.words[c]);
  }
  if (!columns.id) for (const name of ENTRY_COLUMNS) columns[name] = [];
  run.places = new Map(columns.id.map((id, i) => [id, i]));
  run.steps = [];
  columns.id.forEach((_, i) => noteStep(run, i));
  return run;
}

const ENTRY_COLUMNS = [
  ...["id", "line", "ok", "program", "formula", "reason", "proposer", "operator", "structure", "violations", "parents"],
  ...["island", "call", "objective", "mdl", "n_params", "complexity", "are", "r2"],
];

/** Puts entry number `i` among the steps where it is the best so far. */
function noteStep(run, i) {
  const { objective } = run.entries;
  const last = run.steps[run.steps.length - 1];
  if (objective[i] !== null && (last === undefined || objective[i] < objective[last])) run.steps.push(i);
}

/** A new candidate of a run that goes on. */
function appendEntry(run, row) {
  if (run.places.has(row.id)) return;
  run.places.set(row.id, run.entries.id.length);
  for (const name of ENTRY_COLUMNS) run.entries[name].push(row[name]);
  noteStep(run, run.entries.id.length - 1);
}

/** The entries of a run in words: how many there are, how many were rejected, by reason. */
function rejections(run) {
  const found = new Map();
  run.entries.ok.forEach((ok, i) => {
    if (ok) return;
    const why = run.entries.reason[i].split(":")[0];
    found.set(why, (found.get(why) || 0) + 1);
  });
  return [...found].sort((a, b) => b[1] - a[1]);
}

/** The formula that a run stands by now: that of its law, else of its best candidate so far. */
function standing(run) {
  const law = run.laws[0];
  if (run.state === "done" && law) return { text: law.formula, mathml: law.mathml, program: law.program, entry: law.entry };
  const best = run.steps[run.steps.length - 1];
  if (best === undefined) return null;
  const id = run.entries.id[best];
  return { text: run.entries.formula[best], mathml: run.formulas[id], program: !!run.entries.program[best], entry: id };
}
