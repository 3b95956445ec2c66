"use strict";
// The run as it goes: asked for again every two seconds while somebody works on it and somebody looks.

const EVERY = 2000; // milliseconds
let looking = false, timer = 0, shownStage = "", drawnCurves = "", plots = new Map();

function clock(seconds) {
  const whole = Math.round(seconds), minutes = Math.floor(whole / 60) % 60, hours = Math.floor(whole / 3600);
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

function short(value) {
  if (Number.isInteger(value)) return value.toLocaleString("en");
  if (Math.abs(value) < 0.001) return value.toExponential(1);
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3)));
}

function row(cells, kind, numbers, tag = "td") {
  const element = made("tr", kind, ...cells.map((cell, place) => made(tag, numbers.includes(place) ? "number" : "", cell)));
  return element;
}

function drawStages(run) {
  const scores = new Map(run.scores.filter((score) => score.main).map((score) => [score.stage, score]));
  const percent = (share) => (100 * share).toFixed(1);
  const rows = run.stages.map((stage) => {
    const of = !stage.finished && stage.steps ? ` of ${short(stage.steps)}` : "";
    const score = scores.get(stage.name);
    const cells = [
      stage.name, stage.status, stage.step ? short(stage.step) + of : "",
      stage.seconds ? clock(stage.seconds) + (stage.finished ? "" : " left") : "",
      stage.numbers.tokens_per_second ? short(stage.numbers.tokens_per_second) : "",
      score ? `${percent(score.mean)} [${percent(score.low)}, ${percent(score.high)}]` : "",
    ];
    return row(cells, stage.status, [2, 3, 4, 5]);
  });
  const head = row(["Stage", "State", "Step", "Time", "Tokens/s", "Score %"], "", [2, 3, 4, 5], "th");
  byId("stages").replaceChildren(made("thead", "", head), made("tbody", "", ...rows));
}

function chooseStage(run) {
  const begun = run.stages.filter((stage) => stage.status !== "to do").map((stage) => stage.name);
  const options = begun.map((name) => made("option", "", name));
  const wanted = begun.includes(shownStage) ? shownStage : run.current;
  if (byId("stage").options.length !== options.length) byId("stage").replaceChildren(...options);
  byId("stage").value = wanted;
}

// One small chart per number
function drawCurves(curves) {
  const data = JSON.stringify(curves);
  if (data === drawnCurves) return;
  drawnCurves = data;
  const style = getComputedStyle(document.documentElement);
  const [ink, line, mark] = ["--soft", "--line", "--mark"].map((name) => style.getPropertyValue(name));
  for (const [name, plot] of plots) {
    if (curves.series[name]) continue;
    plot.root.parentElement.remove();
    plot.destroy();
    plots.delete(name);
  }
  for (const [name, values] of Object.entries(curves.series)) {
    if (plots.has(name)) { plots.get(name).setData([curves.step, values]); continue; }
    const card = made("div", "curve");
    byId("curves").append(card);
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line } };
    const options = {
      title: name, width: card.clientWidth - 14, height: 180, scales: { x: { time: false } },
      axes: [{ ...axis }, { ...axis, size: 60, values: (_, splits) => splits.map(short) }],
      series: [{ label: "step" }, { label: name, stroke: mark, width: 1.5, spanGaps: true, value: (_, value) => (value === null ? "" : short(value)) }],
    };
    plots.set(name, new uPlot(options, [curves.step, values], card));
  }
}

function clearCurves() {
  plots.forEach((plot) => plot.destroy());
  plots.clear();
  byId("curves").replaceChildren();
  drawnCurves = "";
}

function drawGroups(groups) {
  const text = JSON.stringify(groups);
  const reading = byId("groups").querySelector("details[open]");
  if (byId("groups").dataset.drawn === text || (reading && byId("groups").dataset.stage === byId("stage").value)) return;
  byId("groups").dataset.stage = byId("stage").value;
  byId("groups").dataset.drawn = text;
  if (!groups.length) { byId("groups").replaceChildren(made("p", "note", "This stage keeps no answers, or none yet.")); return; }
  byId("groups").replaceChildren(...groups.reverse().map(drawGroup));
}

function drawGroup(group) {
  const question = renderText(made("div", "text"), group.question || group.problem_id || "");
  const facts = [group.step && `step ${group.step}`, group.gold && `answer ${group.gold}`].filter(Boolean).join(", ");
  const answers = group.rollouts.map((rollout) => {
    const verdict = rollout.correct === true ? "right" : rollout.correct === false ? "wrong" : "undecided";
    const more = [
      verdict, rollout.reason !== "equal" && rollout.reason, rollout.reward !== undefined && `reward ${short(rollout.reward)}`,
      rollout.tokens && `${short(rollout.tokens)} tokens`, rollout.stop === "length" && "cut off",
    ].filter(Boolean).join(", ");
    return made("details", "", made("summary", "verdict " + verdict, more), renderText(made("div", "text"), rollout.text || ""));
  });
  return made("div", "group", question, made("p", "note", facts), ...answers);
}

async function look() {
  clearTimeout(timer);
  let running = true;
  try {
    const runs = await (await ask("run")).json();
    drawRunChoice(runs);
    const place = Math.max(0, byId("runs").selectedIndex), run = runs[place];
    if (!run) { byId("state").textContent = "No run is served: start with whetstone serve --page -m runs/NAME"; return; }
    running = run.running;
    byId("state").textContent = run.error || `${run.name}: ${running ? "running" : run.stages.every((stage) => stage.status === "done") ? "all stages are done" : "nobody works on it now"}`;
    if (!run.error) {
      drawStages(run);
      chooseStage(run);
      if (byId("stage").value) {
        const stage = encodeURIComponent(byId("stage").value);
        drawCurves(await (await ask(`run/${place}/${stage}/curves`)).json());
        drawGroups(await (await ask(`run/${place}/${stage}/answers`)).json());
      }
    }
    trouble("");
  } catch (error) {
    trouble(error.message);
  }
  if (looking && running && !document.hidden) timer = setTimeout(look, EVERY);
}

function drawRunChoice(runs) {
  byId("choose-run").hidden = runs.length < 2;
  if (byId("runs").options.length !== runs.length) byId("runs").replaceChildren(...runs.map((run) => made("option", "", run.name)));
}

function again() { clearCurves(); look(); }

document.addEventListener("selected", (event) => {
  looking = event.detail === "run";
  if (looking) look(); else loadModels().catch((error) => trouble(error.message));
});
document.addEventListener("visibilitychange", () => { if (looking && !document.hidden) look(); });
byId("stage").addEventListener("change", () => { shownStage = byId("stage").value; again(); });
byId("runs").addEventListener("change", () => { shownStage = ""; again(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
addEventListener("resize", () => plots.forEach((plot) => plot.setSize({ width: plot.root.parentElement.clientWidth - 14, height: 180 })));
