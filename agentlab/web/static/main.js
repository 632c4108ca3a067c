"use strict";
// The page as a whole: which view the address names, the bar on top, the keys, light and dark.

function go(hash) {
  location.hash = hash;
}

/** What the address says: "#/run/ID/TAB?entry=17". */
function address() {
  const [path, words = ""] = location.hash.replace(/^#/, "").split("?");
  return { parts: path.split("/").filter((p) => p).map(decodeURIComponent), query: new URLSearchParams(words) };
}

let turn = 0;

/** Draws the view that the address names; `stay` keeps the place on the page. */
async function route(stay = false) {
  const mine = ++turn;
  const { parts, query } = address();
  const fresh = el("div");
  const where = window.scrollY;
  const old = [...CHARTS];
  const place = STATE.setup.runs.findIndex((r) => r.id === parts[1]);
  try {
    if (parts[0] === "run" && place >= 0) await runView(fresh, place, parts[2], query);
    else if (parts[0] === "compare") await compareView(fresh, query);
    else if (parts[0] === "board" || !STATE.setup.runs.length) await boardView(fresh);
    else return go(runHash(0));
  } catch (error) {
    console.error(error);
    fresh.append(panel("This view cannot be drawn", quiet(String(error))));
  }
  if (mine !== turn) return;
  old.forEach((c) => (c.end(), CHARTS.delete(c)));
  const main = document.getElementById("main");
  main.replaceChildren(...fresh.childNodes);
  topBar(parts);
  if (stay) window.scrollTo(0, where);
  else window.scrollTo(0, 0);
  main.querySelector("[aria-selected=true][role=tab]")?.scrollIntoView({ block: "nearest", inline: "center" });
  main.dataset.shown = location.hash;
}

function topBar(parts) {
  const link = (href, text, current) => el("a", { href, text, "aria-current": current ? "page" : null });
  const runs = STATE.setup.runs.map((r, i) => link(runHash(i), r.id, parts[0] === "run" && parts[1] === r.id));
  const dark = el("button", { type: "button", class: "plain", id: "theme", text: "Light or dark", on: { click: turnTheme } });
  const help = el("button", { type: "button", class: "plain", text: "Keys", title: "Keys (?)", on: { click: showHelp } });
  const live = STATE.setup.live ? el("span", { class: "chip open", id: "live", text: "live" }) : null;
  const bar = document.getElementById("top");
  const said = document.getElementById("live")?.textContent;
  bar.replaceChildren(
    el("a", { href: "#/board", class: "brand", text: "agentlab" }),
    el("nav", { "aria-label": "Views" }, link("#/board", "Leaderboard", parts[0] === "board"), STATE.setup.runs.length > 1 ? link("#/compare", "Compare", parts[0] === "compare") : null, runs),
    el("span", { class: "right" }, live, dark, help));
  if (said && live) live.textContent = said;
  bar.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function turnTheme() {
  const root = document.documentElement;
  const dark = (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  root.dataset.theme = dark ? "light" : "dark";
  remember("agentlab-theme", root.dataset.theme);
  CHARTS.forEach((c) => c.update());
}

/** Pages from disk may not be allowed to keep anything: then nothing is kept. */
function remember(key, value) {
  try {
    if (value === undefined) return localStorage.getItem(key);
    localStorage.setItem(key, value);
  } catch {
    return null;
  }
  return value;
}

const KEYS = [
  ["1 to 9", "open a tab of the run"], ["b", "the leaderboard"], ["c", "compare runs"], ["/", "go to the filter"], ["↑ ↓ Page Home End", "move in a table"],
  ["Enter", "open the row"], ["← →", "the tab before or after, on a tab"], ["?", "this help"], ["Esc", "close, or leave a field"],
];

function showHelp() {
  const box = document.getElementById("help");
  const close = el("button", { type: "button", text: "Close", on: { click: () => box.close() } });
  box.replaceChildren(el("h2", { text: "Keys" }), el("dl", {}, KEYS.flatMap(([key, does]) => [el("dt", {}, el("kbd", { text: key })), el("dd", { text: does })])), close);
  if (!box.open) box.showModal();
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input:not([type=range]):not([type=checkbox]), select, textarea");
  if (event.key === "Escape" && typing) return event.target.blur();
  if (typing || document.getElementById("help").open) return;
  const { parts } = address();
  const place = STATE.setup.runs.findIndex((r) => r.id === parts[1]);
  if (event.key === "/") {
    event.preventDefault();
    document.querySelector("main .filter")?.focus();
  } else if (event.key === "?") showHelp();
  else if (event.key === "b") go("#/board");
  else if (event.key === "c" && STATE.setup.runs.length) go("#/compare");
  else if (/^[1-9]$/.test(event.key) && TABS[event.key - 1]) go(runHash(Math.max(place, 0), TABS[event.key - 1][0]));
  else if (event.target.matches("[role=tab]") && ["ArrowLeft", "ArrowRight"].includes(event.key)) {
    const tabs = [...document.querySelectorAll("[role=tab]")];
    const step = event.key === "ArrowRight" ? 1 : tabs.length - 1;
    tabs[(tabs.indexOf(event.target) + step) % tabs.length].focus();
  }
}

function start() {
  STATE.setup = JSON.parse(raw("setup"));
  const theme = remember("agentlab-theme");
  if (theme) document.documentElement.dataset.theme = theme;
  addEventListener("hashchange", () => route());
  addEventListener("keydown", pressed);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => CHARTS.forEach((c) => c.update()));
  return route().then(() => STATE.setup.live && startLive());
}

addEventListener("DOMContentLoaded", start);
