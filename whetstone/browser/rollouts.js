"use strict";
// The browser over all rollouts: filters, a list that draws only the rows in view, and one rollout with its problem's others.

const ROW = 44, VERDICTS = ["wrong", "right", "undecided"], COLOURS = ["down", "up", "quiet"];

class RolloutBrowser {
  constructor(root, data) {
    this.root = root;
    this.data = data;
    this.rows = data.rows;
    this.count = this.rows.problem.length;
    this.texts = new Array(this.count); // in lower case, made at the first search
    this.byProblem = new Map();
    this.rows.problem.forEach((problem, i) => {
      if (!this.byProblem.has(problem)) this.byProblem.set(problem, []);
      this.byProblem.get(problem).push(i);
    });
    this.several = new Set(data.where.map((where) => where[0])).size > 1;
    this.matches = [];
    this.at = 0;
    this.build();
    const begin = data.where.find((where) => where[0] === data.begin[0] && where[1] === data.begin[1]);
    if (begin) this.controls.stage.value = this.stageOf(begin);
    this.filter();
  }

  build() {
    const data = this.data, unique = (values) => [...new Set(values)];
    const stages = unique(data.where.map((where) => this.stageOf(where))), sets = unique(data.where.map((where) => where[2]));
    const levels = unique(data.problems.map((problem) => problem[4])).filter(Boolean).sort((a, b) => a - b || (a < b ? -1 : 1));
    this.search = made("input", "search");
    Object.assign(this.search, { type: "search", placeholder: "search questions and answers", ariaLabel: "search" });
    this.controls = {
      stage: this.select("stage", stages), set: this.select("problem set", sets), verdict: this.select("verdict", VERDICTS),
      level: this.select("level", levels), reason: this.select("reason", []),
      length: this.select("length", ["cut off", "up to 100 tokens", "100 to 300", "300 to 1,000", "over 1,000"]),
      order: this.select("in order", ["longest first", "shortest first", "highest reward first", "lowest reward first"]),
    };
    this.said = made("span", "quiet");
    this.said.setAttribute("aria-live", "polite");
    this.reasons = made("details", "reasons", made("summary", "", "Wrong answers by reason"), made("div", "chips"));
    this.inner = made("div", "inner");
    this.list = made("div", "list", this.inner);
    Object.assign(this.list, { tabIndex: 0, role: "listbox", ariaLabel: "rollouts" });
    this.detail = made("div", "detail");
    this.root.replaceChildren(
      made("div", "filters", this.search, ...Object.values(this.controls), this.said), this.reasons,
      made("div", "split", this.list, this.detail));
    let waiting = 0;
    this.search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(() => this.filter(), 120); });
    for (const control of Object.values(this.controls)) control.addEventListener("change", () => this.filter());
    this.list.addEventListener("scroll", () => this.draw());
    this.list.addEventListener("click", (event) => {
      const row = event.target.closest("[data-place]");
      if (row) this.choose(Number(row.dataset.place));
    });
    this.root.addEventListener("keydown", (event) => this.key(event));
    document.addEventListener("keydown", (event) => {
      const free = event.target === document.body && !event.ctrlKey && !event.metaKey && !event.altKey;
      if (free && event.key === "/") { event.preventDefault(); this.search.focus(); this.root.scrollIntoView({ block: "start" }); }
    });
    new ResizeObserver(() => this.draw()).observe(this.list);
  }

  stageOf(where) {
    return this.several ? `${where[1]}, ${where[0]}` : where[1];
  }

  select(name, values) {
    const element = made("select");
    element.ariaLabel = name;
    const option = (value, text) => Object.assign(made("option", "", text), { value });
    element.append(option("", name === "in order" ? name : `any ${name}`), ...values.map((value) => option(value, value)));
    return element;
  }

  fits(i, wanted) {
    const rows = this.rows, where = this.data.where[rows.where[i]], tokens = rows.tokens[i] ?? 0;
    if (wanted.stage && this.stageOf(where) !== wanted.stage) return false;
    if (wanted.set && where[2] !== wanted.set) return false;
    if (wanted.verdict && VERDICTS[rows.correct[i]] !== wanted.verdict) return false;
    if (wanted.level && this.data.problems[rows.problem[i]][4] !== wanted.level) return false;
    if (wanted.length === "cut off" && rows.stop[i] !== "length") return false;
    if (wanted.length === "up to 100 tokens" && tokens > 100) return false;
    if (wanted.length === "100 to 300" && (tokens <= 100 || tokens > 300)) return false;
    if (wanted.length === "300 to 1,000" && (tokens <= 300 || tokens > 1000)) return false;
    if (wanted.length === "over 1,000" && tokens <= 1000) return false;
    return !wanted.words.length || wanted.words.every((word) => this.text(i).includes(word));
  }

  text(i) {
    if (this.texts[i] === undefined) {
      const [, id, question, gold] = this.data.problems[this.rows.problem[i]];
      this.texts[i] = [id, question, gold, this.rows.answer[i], this.rows.thinking[i], this.rows.final[i]].join("\n").toLowerCase();
    }
    return this.texts[i];
  }

  filter() {
    const wanted = Object.fromEntries(Object.entries(this.controls).map(([name, control]) => [name, control.value]));
    wanted.words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const counts = new Map(), matches = [];
    for (let i = 0; i < this.count; i++) {
      if (!this.fits(i, wanted)) continue;
      const reason = this.data.reasons[this.rows.reason[i]];
      if (this.rows.correct[i] !== 1) counts.set(reason, (counts.get(reason) ?? 0) + 1);
      if (!wanted.reason || reason === wanted.reason) matches.push(i);
    }
    this.matches = this.sorted(matches, wanted.order);
    this.showReasons(counts, wanted.reason);
    const shown = this.count < this.data.total ? ` (${this.count.toLocaleString("en")} of ${this.data.total.toLocaleString("en")} are on this page: those of some problems)` : "";
    this.said.textContent = `${this.matches.length.toLocaleString("en")} rollouts${shown}`;
    this.inner.style.height = `${this.matches.length * ROW}px`;
    this.list.scrollTop = 0;
    this.choose(0);
  }

  sorted(matches, order) {
    if (!order) return matches;
    const values = order.includes("reward") ? this.rows.reward : this.rows.tokens, sign = /^(longest|highest)/.test(order) ? -1 : 1;
    const known = matches.filter((i) => values[i] !== null && values[i] !== undefined);
    return known.sort((a, b) => sign * (values[a] - values[b]) || a - b);
  }

  showReasons(counts, chosen) {
    const sorted = [...counts].sort((a, b) => b[1] - a[1]);
    this.controls.reason.replaceChildren(
      Object.assign(made("option", "", "any reason"), { value: "" }),
      ...sorted.map(([reason]) => Object.assign(made("option", "", reason || "none"), { value: reason, selected: reason === chosen })));
    if (chosen && !counts.has(chosen)) this.controls.reason.append(Object.assign(made("option", "", chosen), { value: chosen, selected: true }));
    const pick = (reason) => { this.controls.reason.value = this.controls.reason.value === reason ? "" : reason; this.filter(); };
    this.reasons.querySelector(".chips").replaceChildren(...sorted.slice(0, 40).map(([reason, count]) => {
      const chip = made("button", reason === chosen ? "chip chosen" : "chip", `${reason || "none"} `, made("b", "", count.toLocaleString("en")));
      chip.addEventListener("click", () => pick(reason));
      return chip;
    }));
    this.reasons.hidden = !sorted.length;
  }

  draw() {
    const first = Math.max(0, Math.floor(this.list.scrollTop / ROW) - 4);
    const last = Math.min(this.matches.length, first + Math.ceil(this.list.clientHeight / ROW) + 8);
    const rows = [];
    for (let place = first; place < last; place++) rows.push(this.row(place));
    this.inner.replaceChildren(...rows);
    if (this.matches.length) this.list.setAttribute("aria-activedescendant", `rollout-${this.at}`);
    else this.list.removeAttribute("aria-activedescendant");
  }

  row(place) {
    const i = this.matches[place], rows = this.rows, where = this.data.where[rows.where[i]], problem = this.data.problems[rows.problem[i]];
    const step = rows.step[i] ? ` · step ${rows.step[i]}` : "";
    const row = made("div", place === this.at ? "row chosen" : "row", made("span", `dot ${COLOURS[rows.correct[i]]}`),
      made("span", "asked", problem[2].replace(/\s+/g, " ").slice(0, 160) || problem[1]),
      made("span", "quiet", `${this.stageOf(where)}${step} · ${rows.answer[i] ? String(rows.answer[i]).slice(0, 24) : "no answer"} · ${rows.tokens[i] ?? "?"} tokens`));
    Object.assign(row, { role: "option", id: `rollout-${place}`, ariaSelected: String(place === this.at), ariaSetSize: String(this.matches.length), ariaPosInSet: String(place + 1) });
    row.dataset.place = place;
    row.style.top = `${place * ROW}px`;
    row.ariaLabel = `${VERDICTS[rows.correct[i]]}: ${row.textContent}`;
    return row;
  }

  choose(place) {
    this.at = Math.max(0, Math.min(place, this.matches.length - 1));
    const top = this.at * ROW;
    if (top < this.list.scrollTop) this.list.scrollTop = top;
    if (top + ROW > this.list.scrollTop + this.list.clientHeight) this.list.scrollTop = top + ROW - this.list.clientHeight;
    this.draw();
    if (this.matches.length) this.show(this.matches[this.at]);
    else this.detail.replaceChildren(made("p", "quiet", "No rollout matches."));
  }

  show(i) {
    this.shown = i;
    const rows = this.rows, [, id, question, gold, level, domain] = this.data.problems[rows.problem[i]];
    const where = this.data.where[rows.where[i]], reason = this.data.reasons[rows.reason[i]];
    const facts = [`${rows.tokens[i] ?? "?"} tokens`, rows.stop[i] === "length" ? "cut off" : "", reason,
      rows.step[i] ? `step ${rows.step[i]}` : "", rows.reward[i] != null ? `reward ${rows.reward[i]}` : "",
      rows.trained[i] === true ? "trained on" : rows.trained[i] === false ? "not trained on" : ""].filter(Boolean).join(" · ");
    const details = [id, where[2], level && `level ${level}`, domain].filter(Boolean).join(" · ");
    const nothing = rows.thinking[i] ? "nothing after the thinking" : "nothing";
    const thinking = rows.thinking[i] ? made("details", "", made("summary", "", `thinking, ${rows.thinking[i].length.toLocaleString("en")} characters`),
      renderText(made("pre", "thinking"), rows.thinking[i])) : null;
    if (thinking) {
      thinking.open = this.unfolded ?? false;
      thinking.addEventListener("toggle", () => { this.unfolded = thinking.open; });
    }
    this.detail.replaceChildren(made("div", "",
      renderText(made("p", "question"), question), made("p", "note", details, " · answer ", renderText(made("b"), this.formula(gold))),
      made("div", "who", made("b", "", this.stageOf(where)), made("span", `chip ${COLOURS[rows.correct[i]]}`, VERDICTS[rows.correct[i]]), made("span", "quiet", facts)),
      thinking, rows.final[i] ? renderText(made("pre"), rows.final[i]) : made("pre", "quiet", nothing),
      made("h4", "", "This problem in every stage"), this.others(i)));
    this.detail.scrollTop = 0;
  }

  // A gold with TeX in it is a formula
  formula(text) {
    return /\\[a-zA-Z]|[\^_]/.test(text) && !/\$|\\\(/.test(text) ? `\\(${text}\\)` : text;
  }

  others(shown) {
    const groups = new Map();
    for (const i of this.byProblem.get(this.rows.problem[shown])) {
      const where = this.data.where[this.rows.where[i]], name = this.stageOf(where) + (this.rows.step[i] ? `, step ${this.rows.step[i]}` : "");
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push(i);
    }
    return made("div", "others", ...[...groups].map(([name, members]) => made("div", "", made("span", "quiet", `${name} `),
      ...members.map((i) => {
        const mark = ["✗", "✓", "?"][this.rows.correct[i]];
        const button = made("button", `mark ${COLOURS[this.rows.correct[i]]}${i === shown ? " chosen" : ""}`, mark);
        button.ariaLabel = `${name}: ${VERDICTS[this.rows.correct[i]]}`;
        button.addEventListener("click", () => this.show(i));
        return button;
      }))));
  }

  // The first rollout of the problem in the stage before or after the one that is shown
  across(by) {
    const members = this.byProblem.get(this.rows.problem[this.shown]) ?? [];
    const stages = [...new Set(members.map((i) => `${this.rows.where[i]}/${this.rows.step[i] ?? ""}`))];
    const own = `${this.rows.where[this.shown]}/${this.rows.step[this.shown] ?? ""}`;
    const wanted = stages[stages.indexOf(own) + by];
    if (wanted) this.show(members.find((i) => `${this.rows.where[i]}/${this.rows.step[i] ?? ""}` === wanted));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target === this.search || event.target.tagName === "SELECT";
    const pages = Math.max(1, Math.floor(this.list.clientHeight / ROW) - 1);
    const actions = {
      j: () => this.choose(this.at + 1), k: () => this.choose(this.at - 1), ArrowDown: () => this.choose(this.at + 1),
      ArrowUp: () => this.choose(this.at - 1), PageDown: () => this.choose(this.at + pages), PageUp: () => this.choose(this.at - pages),
      Home: () => this.choose(0), End: () => this.choose(this.matches.length - 1),
      "[": () => this.across(-1), "]": () => this.across(1), "/": () => this.search.focus(),
    };
    if (event.key === "Escape" && event.target === this.search) { this.list.focus(); return; }
    if (event.target === this.search && (event.key === "Enter" || event.key === "ArrowDown")) { event.preventDefault(); this.list.focus(); return; }
    if (typing || !(event.key in actions) || (event.target.tagName === "BUTTON" && event.key.length > 1)) return;
    event.preventDefault();
    actions[event.key]();
  }
}

async function startRollouts() {
  const store = document.getElementById("rollouts-data"), root = document.getElementById("rollout-browser");
  document.querySelectorAll(".maths").forEach((element) => renderText(element, element.textContent));
  if (store && root) window.rolloutBrowser = new RolloutBrowser(root, await unpacked(store));
  document.documentElement.dataset.ready = "1";
}
startRollouts();
