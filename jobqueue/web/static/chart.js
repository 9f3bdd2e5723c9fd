"use strict";
// Draws the large chart again, with a cursor that says what is there. Its SVG stays in the page: it is what a browser without
// scripts shows, and what is printed.

const HEIGHT = 150; // Of the lines, as the SVG has it; the times are below them.
const TIMES = 20;
const EDGE = 32; // A time that is nearer to an edge would be cut off.
let chart = null;

// Colours are those of the marks in the legend, in whatever theme.
function markOf(name) {
  const label = document.querySelector(`.legend .${name}`);
  return label ? getComputedStyle(label, "::before") : {};
}

function line(name, look) {
  return { stroke: () => markOf(name).borderTopColor, fill: () => markOf(name).backgroundColor, points: { show: false }, ...look };
}

// The values that have no neighbour: no line leads to them, so that they are drawn as points.
function alone(u, series) {
  const values = u.data[series];
  return [...values.keys()].filter((at) => values[at] !== null && (values[at - 1] ?? values[at + 1] ?? null) === null);
}

function clock(minutes) {
  return [Math.floor(minutes / 60) % 24, minutes % 60].map((part) => String(part).padStart(2, "0")).join(":");
}

function make(place) {
  const plot = place.parentElement;
  const upTo = (which) => () => [0, JSON.parse(plot.dataset.tops)[which] ?? 1];
  const soft = () => getComputedStyle(plot.querySelector(".labels")).color;
  const isInside = (u, at) => u.valToPos(at, "x") >= EDGE && u.valToPos(at, "x") <= u.width - EDGE;
  const filter = (u, splits) => splits.map((at) => (isInside(u, at) ? at : null));
  const times = {
    size: TIMES, gap: 3, font: "11px system-ui, sans-serif", space: 64, incrs: [5, 10, 15, 30, 60, 120, 180, 360],
    stroke: soft, grid: { show: false }, ticks: { size: 4, width: 1, stroke: soft, filter }, filter,
    values: (u, splits) => splits.map((at) => (at === null ? null : clock(at) + (at === splits.find(Boolean) ? " UTC" : ""))),
  };
  return new uPlot({
    width: place.clientWidth, height: HEIGHT + TIMES, padding: [0, 0, 0, 0], legend: { show: false },
    scales: { x: { time: false }, y: { range: upTo(0) }, waiting: { range: upTo(1) } },
    axes: [times, { show: false }],
    series: [
      {},
      line("done", { width: 1.6 }),
      line("failed", { width: 0 }),
      line("waiting", { width: 1.8, dash: [5, 3], scale: "waiting", points: { show: false, size: 4, filter: alone } }),
    ],
    cursor: { y: false, move: snap, drag: { x: false, y: false }, points: { size: 7 } },
    hooks: { setLegend: [say] },
  }, JSON.parse(plot.dataset.lines), place);
}

// Moves the cursor to the nearest minute.
function snap(u, left, top) {
  return [left < 0 ? left : u.valToPos(u.data[0][u.posToIdx(left)], "x"), top];
}

// Writes what the SVG says of the point at the cursor.
function say(u) {
  const titles = document.querySelectorAll(".plot rect title");
  document.getElementById("said").textContent = titles[u.cursor.idx]?.textContent ?? "";
}

function fit() {
  const width = document.getElementById("plot").clientWidth;
  if (width !== chart.width) chart.setSize({ width, height: HEIGHT + TIMES });
}

function draw() {
  const place = document.getElementById("plot");
  if (chart?.root.parentElement === place) {
    chart.setData(JSON.parse(place.parentElement.dataset.lines)); // The cursor stays.
    return;
  }
  chart?.destroy();
  chart = make(place);
  chart.root.setAttribute("role", "img");
  chart.root.setAttribute("aria-label", document.querySelector(".plot title").textContent);
  new ResizeObserver(fit).observe(place);
}

document.addEventListener("htmx:after:swap", draw);
for (const themes of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) {
  matchMedia(themes).addEventListener("change", () => chart.redraw(false));
}
draw();
