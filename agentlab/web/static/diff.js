"use strict";
// What changed between two formulas, token by token, or between two programs, line by line.

function tokens(text) {
  return text.match(/[A-Za-z_]\w*|\d+\.?\d*(?:[eE][+-]?\d+)?|\*\*|\s+|./g) || [];
}

/** The two sequences as one: [kind, piece] with kind "same", "gone" or "new" (longest common subsequence). */
function difference(before, after) {
  const [n, m] = [before.length, after.length];
  const longest = Array.from({ length: n + 1 }, () => new Uint16Array(m + 1));
  for (let i = n - 1; i >= 0; i--) {
    for (let j = m - 1; j >= 0; j--) {
      longest[i][j] = before[i] === after[j] ? longest[i + 1][j + 1] + 1 : Math.max(longest[i + 1][j], longest[i][j + 1]);
    }
  }
  const found = [];
  let [i, j] = [0, 0];
  while (i < n || j < m) {
    if (i < n && j < m && before[i] === after[j]) found.push(["same", after[j++]]), i++;
    else if (i < n && (j === m || longest[i + 1][j] >= longest[i][j + 1])) found.push(["gone", before[i++]]);
    else found.push(["new", after[j++]]);
  }
  return found;
}

const MARKS = { same: "span", gone: "del", new: "ins" };

/** A formula's difference as one line. */
function formulaDifference(before, after) {
  const pieces = difference(tokens(before), tokens(after));
  return el("code", { class: "difference" }, pieces.map(([kind, text]) => el(MARKS[kind], { text })));
}

/** A program's difference, a line each. */
function codeDifference(before, after) {
  const signs = { same: "  ", gone: "- ", new: "+ " };
  const lines = difference(before.split("\n"), after.split("\n"));
  return el("pre", { class: "difference" }, lines.map(([kind, text]) => el(MARKS[kind], { text: `${signs[kind]}${text}\n` })));
}

/** The lines of a program's law alone: what it says, without how it is fitted. */
function essence(program) {
  const lines = program.split("\n");
  const start = lines.findIndex((l) => l.startsWith("def law"));
  if (start < 0) return program.trim();
  const rest = lines.slice(start + 1).findIndex((l) => l && !/^\s/.test(l));
  return lines.slice(start, rest < 0 ? undefined : start + 1 + rest).join("\n").trim();
}
