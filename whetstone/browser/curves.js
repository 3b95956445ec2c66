"use strict";
// Charts with hover and zoom in the place of the drawn ones. Those of a stage share their steps, their cursor and their zoom.

function shortNumber(value, percent) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  let text;
  if (percent) text = `${(100 * value).toFixed(1)} %`;
  else if (size >= 1e9) text = `${(value / 1e9).toPrecision(4)} G`;
  else if (size >= 1e6) text = `${(value / 1e6).toPrecision(4)} M`;
  else if (size >= 1e4) text = `${(value / 1e3).toPrecision(4)} k`;
  else if (size >= 1e-3 || size === 0) text = `${Number(value.toPrecision(4))}`;
  else text = value.toExponential(1);
  return text.replace("-", "−");
}

// All steps of the lines, and each line's values at them
function aligned(chart) {
  const xs = [...new Set(chart.lines.flatMap((line) => line.xs))].sort((a, b) => a - b);
  const place = new Map(xs.map((x, i) => [x, i]));
  const spread = (line, ys) => {
    const row = new Array(xs.length).fill(null);
    line.xs.forEach((x, i) => { row[place.get(x)] = ys[i]; });
    return row;
  };
  const rows = [xs];
  for (const line of chart.lines) {
    rows.push(spread(line, line.ys));
    if (line.smooth) rows.push(spread(line, line.smooth));
  }
  return rows;
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function drawChart(element, chart) {
  const data = aligned(chart), series = [{}];
  chart.lines.forEach((line, i) => {
    const stroke = () => colour(`--c${(i % 4) + 1}`);
    const faint = () => stroke() + "55";
    series.push({ label: line.name, stroke: line.smooth ? faint : stroke, width: line.smooth ? 1 : 1.8, spanGaps: true,
                  points: { show: line.xs.length < 3 } });
    if (line.smooth) series.push({ label: line.name, stroke, width: 1.8, spanGaps: true, points: { show: false } });
  });
  const values = (plot, ticks) => ticks.map((tick) => (tick === null ? "" : shortNumber(tick, chart.percent)));
  const axis = { stroke: () => colour("--quiet"), grid: { stroke: () => colour("--grid"), width: 1 }, ticks: { show: false },
                 font: "10.5px system-ui, sans-serif" };
  const keys = [...element.parentElement.querySelectorAll(".key")], before = keys.map((key) => key.querySelector("b").textContent);
  const legend = (plot) => {
    const at = plot.cursor.idx;
    let place = 1;
    chart.lines.forEach((line, i) => {
      if (keys[i]) keys[i].querySelector("b").textContent = at == null ? before[i] : shortNumber(data[place][at], chart.percent);
      place += line.smooth ? 2 : 1;
    });
    element.dataset.step = at == null ? "" : `step ${data[0][at].toLocaleString("en")}`;
  };
  const plot = new uPlot({
    width: element.clientWidth, height: 170, padding: [8, 8, 0, 0], legend: { show: false }, series,
    scales: { x: { time: false, range: (plot, low, high) => (low === chart.steps[0] && high === chart.steps[1] || low == null || low === high)
                     ? chart.steps[0] === chart.steps[1] ? [low - 1, low + 1] : chart.steps : [low, high] },
              y: { distr: chart.log ? 3 : 1 } },
    axes: [{ ...axis, size: 24, space: 60 }, { ...axis, size: 48, values }],
    cursor: { sync: { key: chart.group, scales: ["x", null] }, drag: { x: true, y: false }, y: false, focus: { prox: 24 } },
    hooks: { setCursor: [legend] },
  }, data, element);
  plot.setScale("x", { min: chart.steps[0], max: chart.steps[1] });
  element.querySelector(".u-over").addEventListener("dblclick", () => plot.setScale("x", { min: chart.steps[0], max: chart.steps[1] }));
  new ResizeObserver(() => {
    if (element.clientWidth && element.clientWidth !== plot.width) plot.setSize({ width: element.clientWidth, height: 170 });
  }).observe(element);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plot.redraw());
}

async function startCurves() {
  const store = document.getElementById("curves-data");
  if (!store) return;
  const charts = await unpacked(store);
  // A chart is made when it is first seen: a folded one has no width
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting || !entry.target.clientWidth) continue;
      seen.unobserve(entry.target);
      drawChart(entry.target, charts[Number(entry.target.dataset.chart)]);
    }
  }, { rootMargin: "400px" });
  document.querySelectorAll("[data-chart]").forEach((element) => seen.observe(element));
}
startCurves();
