"use strict";
// A run that goes on: its records come as they are written, and the view is drawn again twice a second at most.

const LIVE = { told: [], renewing: [], again: [], pending: false };

function startLive() {
  STATE.setup.runs.forEach((_, place) => followRun(place));
}

async function followRun(place) {
  const run = await readRun(place);
  LIVE.told[place] = [];
  const source = new EventSource(`events/${place}?after=${run.lines}`);
  for (const kind of ["entry", "vote", "call"]) source.addEventListener(kind, (event) => took(place, kind, event));
  source.addEventListener("record", () => renew(place));
  source.addEventListener("again", () => location.reload());
  source.addEventListener("open", () => connection(true));
  source.addEventListener("error", () => connection(false));
}

function connection(there) {
  const node = document.getElementById("live");
  if (node) node.textContent = there ? "live" : "not connected; trying again";
  node?.classList.toggle("open", there);
}

/** A new record, by the number of its line; it is kept until the run has been fetched with it. */
function took(place, kind, event) {
  const told = [Number(event.lastEventId), kind, JSON.parse(event.data)];
  LIVE.told[place].push(told);
  put(STATE.ready[place], told);
  changed();
}

function put(run, [line, kind, row]) {
  if (line <= run.lines) return;
  run.lines = line;
  if (kind === "entry") appendEntry(run, row);
  else (kind === "vote" ? run.votes : run.calls).push(row);
}

/** The run as it stands now, all of it: its laws, figures and rounds have changed. */
async function renew(place) {
  if (LIVE.renewing[place]) return (LIVE.again[place] = true);
  LIVE.renewing[place] = true;
  const answer = await fetch(`run/${place}`).catch(() => null);
  if (answer?.ok) {
    const run = prepared(await answer.json());
    LIVE.told[place] = LIVE.told[place].filter(([line]) => line > run.lines);
    LIVE.told[place].forEach((told) => put(run, told));
    STATE.ready[place] = run;
    STATE.runs[place] = Promise.resolve(run);
    STATE.setup.runs[place].state = run.state;
    changed();
  }
  LIVE.renewing[place] = false;
  if (LIVE.again[place]) setTimeout(() => renew(place), 400);
  LIVE.again[place] = false;
}

/** Draws the view again soon, unless somebody is using a field of it. */
function changed() {
  if (LIVE.pending) return;
  LIVE.pending = true;
  setTimeout(() => {
    LIVE.pending = false;
    if (document.activeElement?.matches("main input, main select, main summary, main .t-box, main .node")) return changed();
    route(true);
  }, 500);
}
