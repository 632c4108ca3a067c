"use strict";
// What models did: the votes behind each decision, and every prompt with its reply, folded.

function modelsTab(run) {
  if (!run.votes.length && !run.calls.length) return panel("Votes and prompts", quiet("No model was asked in this run: its candidates come from edits and from the library."));
  return [run.votes.length ? votesPanel(run) : null, run.calls.length ? callsPanel(run) : null];
}

function votesPanel(run) {
  const total = sum(run.votes.map((v) => v.draws || 0));
  const open = run.votes.filter((v) => v.elected === null).length;
  const words = `${count(run.votes.length, "decision")} of ${count(total, "draw")}; ${open ? `${fmt(open)} stayed undecided` : "all were decided"}. An answer is elected once it leads by k.`;
  return panel("Votes, one micro-step each", quiet(words), run.votes.map(voteBox));
}

function voteBox(vote) {
  const result = vote.elected === null ? el("span", { class: "chip failed", text: "undecided" }) : el("b", { text: vote.elected });
  const head = el("p", {}, el("span", { text: `${vote.question} for block ${vote.block ?? "–"}: ` }), result, el("span", { class: "quiet", text: `  k ${vote.k ?? "–"}, ${count(vote.draws, "draw")}, ${count(vote.calls, "call")}, ${fmt((vote.tokens?.in || 0) + (vote.tokens?.out || 0))} tokens, line ${vote.line}` }));
  const most = Math.max(1, ...vote.tally.flatMap((t) => t.votes.map(([, n]) => n)));
  const rungs = vote.tally.map((t) => el("div", { class: "rung" }, el("small", { text: t.rung || "votes" }), t.votes.map(([key, n]) => voteBar(key, n, most, key === vote.elected)), flagWords(t.flags)));
  return el("div", { class: "vote" }, head, vote.undecided ? quiet(vote.undecided) : null, el("div", { class: "rungs" }, rungs));
}

function voteBar(key, n, most, elected) {
  const bar = el("i", { class: elected ? "elected" : null });
  bar.style.width = `${(100 * n) / most}%`;
  return el("div", { class: "vote-bar" }, el("code", { text: key }), el("span", { class: "rail" }, bar), el("span", { text: String(n) }));
}

function flagWords(flags) {
  const found = Object.entries(flags || {});
  return found.length ? el("small", { class: "quiet", text: `red flags: ${found.map(([why, n]) => `${why} ${n}`).join(", ")}` }) : null;
}

function callsPanel(run) {
  const host = el("div");
  const draw = (text) => host.replaceChildren(...run.calls.filter((c) => !text || JSON.stringify(c).toLowerCase().includes(text)).slice(0, 400).map(callBox));
  draw("");
  return panel("Prompts and replies", el("div", { class: "bar" }, filterBox("Filter prompts and replies", draw)), host, run.calls.length > 400 ? quiet("400 at a time are listed; filter for the others.") : null);
}

/** One call, folded; its texts are put in when it is opened. */
function callBox(call) {
  const words = `call ${call.call} · ${call.model || "model"} · ${fmt(call.tokens_in)} in, ${fmt(call.tokens_out)} out · ${call.failed ? `failed: ${call.failed}` : `${count(call.drafts.length, "draft")}, ${fmt(call.rejects.length)} refused`}`;
  const box = el("details", { class: "call" }, el("summary", {}, words));
  box.addEventListener("toggle", () => box.open && box.children.length === 1 && box.append(...callTexts(call)), { once: true });
  return box;
}

function callTexts(call) {
  const texts = call.messages.map(([role, text]) => el("div", {}, el("h3", { text: role }), el("pre", { text })));
  const refused = call.rejects.map(([why, said]) => [why, el("code", { text: said })]);
  const drafts = call.drafts.map((d) => [d.operator, d.idea, el("code", { text: d.formula.includes("\n") ? essence(d.formula) : d.formula })]);
  return [
    drafts.length ? grid(["how", "idea", "law"], drafts, "Drafts") : null,
    refused.length ? grid(["refused for", "what was said"], refused, "Refused") : null,
    ...(texts.length ? texts : [quiet(`The texts are left out of the page; they stand on line ${call.line} of trace.jsonl.`)]),
    quiet(`Line ${call.line} of trace.jsonl.`),
  ].filter((n) => n);
}
