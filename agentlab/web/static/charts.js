"use strict";
// Charts on a canvas (Apache ECharts), in colours that the colour-blind can tell apart (Okabe and Ito), light or dark.

const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a7f00", "#7f7f7f"];
const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];
const SYMBOLS = ["circle", "diamond", "triangle", "rect", "roundRect", "pin"];

const CHARTS = new Set();

/** A colour of the page's style, by the name of its variable. */
function ink(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** A box with a chart that fills its width; `make` gives the option when it is drawn, `click` hears of chosen points. */
function chart(label, make, { height = 320, click = null } = {}) {
  const box = el("div", { class: "chart", role: "img", "aria-label": label });
  box.style.height = `${height}px`;
  const drawn = { box, instance: null, update: () => drawn.instance?.setOption(dressed(make()), { notMerge: true }) };
  const watcher = new ResizeObserver(() => {
    if (!box.isConnected || !box.clientWidth) return;
    if (drawn.instance) return drawn.instance.resize();
    drawn.instance = echarts.init(box, null, { renderer: "canvas" });
    drawn.update();
    if (click) drawn.instance.on("click", click);
  });
  watcher.observe(box);
  drawn.end = () => (watcher.disconnect(), drawn.instance?.dispose());
  CHARTS.add(drawn);
  box.chart = drawn;
  return box;
}

function endCharts() {
  CHARTS.forEach((c) => c.end());
  CHARTS.clear();
}

/** An option with the page's colours, margins and words. */
function dressed(option) {
  const text = { color: ink("ink"), fontFamily: getComputedStyle(document.body).fontFamily, fontSize: 12 };
  const many = (option.series || []).filter((s) => s.name && !s.silent).length > 1;
  const legend = { type: "scroll", top: 0, textStyle: text, inactiveColor: ink("line"), pageTextStyle: text, itemWidth: 18 };
  const shown = option.legend === false ? undefined : option.legend || (many ? {} : undefined);
  const named = [option.yAxis].flat().some((a) => a?.name);
  return {
    animation: false,
    color: COLOURS,
    textStyle: text,
    backgroundColor: "transparent",
    grid: { left: named ? 46 : 12, right: 22, top: shown ? 36 : 16, bottom: 30, containLabel: true, ...option.grid },
    ...option,
    legend: shown && { ...legend, ...shown },
    xAxis: [option.xAxis].flat().map((a) => dressedAxis(a, true)),
    yAxis: [option.yAxis].flat().map((a) => dressedAxis(a, false)),
    tooltip: option.tooltip && { ...TIP, backgroundColor: ink("panel"), borderColor: ink("line"), textStyle: text, ...option.tooltip },
  };
}

const TIP = { confine: true, extraCssText: "box-shadow: 0 2px 10px #0004; max-width: 340px; white-space: normal" };

function dressedAxis(axis, across) {
  if (!axis) return axis;
  const quietInk = { color: ink("quiet"), hideOverlap: true };
  const line = { lineStyle: { color: ink("line") } };
  return {
    nameLocation: "middle",
    nameGap: across ? 28 : 44,
    nameTextStyle: { color: ink("quiet") },
    scale: true,
    splitNumber: across ? 6 : 5,
    axisLine: { show: true, ...line },
    axisTick: { show: false },
    splitLine: { show: !across, ...line },
    ...axis,
    axisLabel: { ...quietInk, showMinLabel: axis.min === undefined ? null : rounded(axis.min), showMaxLabel: axis.max === undefined ? null : rounded(axis.max), formatter: axis.type === "category" ? undefined : short, ...axis.axisLabel },
  };
}

/** Whether a number is one that an axis would be marked at anyway. */
function rounded(value) {
  return typeof value !== "number" || value === 0 || /^[125]0*$/.test(String(Number(value.toPrecision(12))).replace(/^0?\.0*|e.*$/g, ""));
}

/** A tick in few letters: 10M, 1e21, 0.35. */
function short(value) {
  const size = Math.abs(value);
  if (size >= 1e13 || (size < 1e-3 && size > 0)) return value.toExponential(1).replace(/(\.0)?e\+?/, "e");
  for (const [unit, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (size >= unit) return `${Number((value / unit).toPrecision(3))}${letter}`;
  }
  return String(Number(value.toPrecision(4)));
}

/** An axis for numbers; logarithmic where all of them are above zero and span magnitudes, or as told. */
function axisOf(name, values, log = null) {
  const known = values.filter((v) => Number.isFinite(v));
  const [low, high] = [known.reduce((a, b) => Math.min(a, b), Infinity), known.reduce((a, b) => Math.max(a, b), -Infinity)];
  const wide = log ?? (low > 0 && high > 30 * low);
  if (!wide || !(low > 0)) return { type: "value", name };
  return { type: "log", name, min: nice(low, Math.floor), max: nice(high, Math.ceil) };
}

/** The nearest 1, 2 or 5 times a power of ten, below or above. */
function nice(value, round) {
  const power = 10 ** Math.floor(Math.log10(value));
  const steps = [1, 2, 5, 10];
  const lead = value / power;
  const found = round === Math.floor ? steps.filter((s) => s <= lead * 1.0001).pop() : steps.find((s) => s >= lead * 0.9999);
  return Number((power * found).toPrecision(1));
}

/** What a tooltip says, as an element: lines of [name, value]. */
function tip(title, lines) {
  const rows = lines.map(([name, value]) => el("div", {}, el("span", { class: "quiet", text: `${name} ` }), String(value)));
  return el("div", { class: "tip" }, title ? el("b", { text: title }) : null, rows);
}

/** A band between two curves: an outline that is filled. */
function band(name, x, low, high, colour, opacity) {
  const there = x.map((v, i) => [v, low[i], high[i]]).filter((p) => p[1] !== null && p[2] !== null);
  const outline = [...there.map(([v, a]) => [v, a]), ...there.map(([v, , b]) => [v, b]).reverse()];
  const render = (_, api) => {
    if (!outline.length) return null;
    const points = outline.map((p) => api.coord(p));
    return { type: "polygon", shape: { points }, style: { fill: colour, opacity }, silent: true };
  };
  // Two points stand for it, so that the axes reach around the band without one element a point.
  const ends = there.length ? [[there[0][0], Math.min(...there.map((p) => p[1]))], [there[there.length - 1][0], Math.max(...there.map((p) => p[2]))]] : [];
  const item = (params, api) => (params.dataIndex === 0 ? render(params, api) : null);
  return { type: "custom", name, data: ends, renderItem: item, silent: true, clip: true, z: 1, itemStyle: { color: colour, opacity: Math.min(2 * opacity, 1) }, encode: { x: 0, y: 1 } };
}
