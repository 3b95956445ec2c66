"use strict";
// The talk. Texts of models are text nodes (text.js); nothing that they say becomes an element, but for formulas.

const byId = (name) => document.getElementById(name);
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

// Characters that steer what is displayed, as escapes
function visible(text) {
  return text.replace(CONTROL, (letter) => "\\u" + letter.charCodeAt(0).toString(16).padStart(4, "0"));
}

function trouble(text) {
  byId("trouble").textContent = text;
  byId("trouble").hidden = !text;
}

// fetch with the key. Throws an Error with the server's own words
async function ask(path, options = {}) {
  const key = sessionStorage.getItem("key");
  const headers = { ...(options.body ? { "Content-Type": "application/json" } : {}), ...(key ? { Authorization: "Bearer " + key } : {}) };
  const response = await fetch(path, { ...options, headers });
  if (response.status === 401) byId("lock").hidden = false;
  if (!response.ok) {
    const answer = await response.json().catch(() => null);
    throw new Error(answer && answer.error ? answer.error.message : `the server answered ${response.status}`);
  }
  return response;
}

// --- one conversation with one model

class Talk {
  constructor(model) {
    this.model = model;
    this.messages = [];
    this.element = made("section", "talk", made("h2", "", model));
    this.element.setAttribute("aria-label", `Talk with ${model}`);
    this.stopping = null;
  }

  // The question is sent, and the answer written as it comes
  async say(question, settings) {
    this.messages.push({ role: "user", content: question });
    const asked = made("div", "turn user", made("div", "text"));
    asked.firstChild.textContent = visible(question);
    const answer = new Answer();
    this.element.append(asked, answer.element);
    this.stopping = new AbortController();
    try {
      const body = JSON.stringify({ model: this.model, messages: this.messages, stream: true, ...settings });
      const response = await ask("v1/chat/completions", { method: "POST", body, signal: this.stopping.signal });
      for await (const event of events(response.body)) {
        if (event.error) throw new Error(event.error.message);
        for (const choice of event.choices) answer.add(choice.delta, choice.finish_reason);
      }
    } catch (error) {
      answer.fail(error.name === "AbortError" ? "stopped" : error.message);
    }
    answer.end();
    this.stopping = null;
    if (answer.answer || answer.thinking) this.messages.push({ role: "assistant", content: answer.answer });
    else this.messages.pop();
  }
}

// The data of server-sent events, until [DONE]
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) throw new Error("the connection was lost");
      waiting += value;
      const lines = waiting.split("\n\n");
      waiting = lines.pop();
      for (const line of lines) {
        if (line === "data: [DONE]") return;
        yield JSON.parse(line.slice("data: ".length));
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

class Answer {
  constructor() {
    this.thinking = this.answer = "";
    this.drawn = 0;
    this.summary = made("summary", "", "Thinking …");
    this.thought = made("div", "text");
    this.details = made("details", "", this.summary, this.thought);
    this.details.hidden = true;
    this.text = made("div", "text");
    this.note = made("p", "note");
    this.element = made("div", "turn assistant", this.details, this.text, this.note);
    this.element.setAttribute("aria-busy", "true");
  }

  add(delta, finished) {
    this.thinking += delta.reasoning_content || "";
    this.answer += delta.content || "";
    if (finished === "length") this.note.textContent = "cut off: the longest answer is reached";
    if (!this.drawn) this.drawn = requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.drawn = 0;
    this.details.hidden = !this.thinking;
    this.summary.textContent = `Thinking: ${this.thinking.length.toLocaleString("en")} characters`;
    this.thought.textContent = visible(this.thinking);
    this.text.textContent = visible(this.answer);
  }

  fail(why) {
    this.note.textContent = why;
    this.note.classList.add("wrong");
  }

  // Formulas are drawn once the text is whole
  end() {
    cancelAnimationFrame(this.drawn);
    this.draw();
    renderText(this.thought, visible(this.thinking));
    renderText(this.text, visible(this.answer));
    this.element.setAttribute("aria-busy", "false");
  }
}

// --- the whole page

let talks = [];

function settings() {
  const given = {};
  for (const name of ["temperature", "max_tokens", "think_most", "think_least"]) {
    if (byId(name).value !== "") given[name] = Number(byId(name).value);
  }
  if (Number(byId("beams").value) > 1) given.beams = Number(byId("beams").value);
  if (byId("as_trained").checked) given.as_trained = true;
  return given;
}

function begin() {
  talks.forEach((talk) => talk.stopping && talk.stopping.abort());
  const names = [byId("model").value, byId("beside").value].filter(Boolean);
  talks = names.map((name) => new Talk(name));
  byId("talks").replaceChildren(...talks.map((talk) => talk.element));
  trouble(names.length ? "" : "There is no model yet: no stage of the run is finished.");
}

async function send() {
  const question = byId("question").value.trim();
  if (!question || !talks.length || byId("send").disabled) return;
  byId("question").value = "";
  byId("send").disabled = true;
  byId("stop").disabled = false;
  await Promise.all(talks.map((talk) => talk.say(question, settings())));
  byId("send").disabled = false;
  byId("stop").disabled = true;
  byId("question").focus();
}

function stop() {
  talks.forEach((talk) => talk.stopping && talk.stopping.abort());
}

// The names of the models; a choice that is still there stays
async function loadModels() {
  const answer = await (await ask("v1/models")).json();
  const names = answer.data.map((model) => model.id);
  for (const [id, more] of [["model", []], ["beside", [""]]]) {
    const before = byId(id).value;
    byId(id).replaceChildren(...[...more, ...names].map((name) => {
      const option = made("option", "", name || "none");
      option.value = name;
      return option;
    }));
    if (names.includes(before)) byId(id).value = before;
  }
}

async function start() {
  try {
    await loadModels();
    begin();
  } catch (error) {
    trouble(error.message);
  }
}

function select(name) {
  for (const tab of ["talk", "run"]) {
    byId(tab).hidden = tab !== name;
    byId("tab-" + tab).setAttribute("aria-selected", String(tab === name));
    byId("tab-" + tab).tabIndex = tab === name ? 0 : -1;
  }
  document.dispatchEvent(new CustomEvent("selected", { detail: name }));
}

byId("composer").addEventListener("submit", (event) => { event.preventDefault(); send(); });
byId("settings").addEventListener("submit", (event) => event.preventDefault());
byId("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") stop(); });
byId("stop").addEventListener("click", stop);
byId("anew").addEventListener("click", begin);
byId("model").addEventListener("change", begin);
byId("beside").addEventListener("change", begin);
byId("lock").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", byId("key").value);
  byId("lock").hidden = true;
  start();
});
for (const tab of document.querySelectorAll("[role=tab]")) {
  const name = tab.id.slice("tab-".length);
  tab.addEventListener("click", () => select(name));
  tab.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = name === "talk" ? "run" : "talk";
    select(other);
    byId("tab-" + other).focus();
  });
}
start();
