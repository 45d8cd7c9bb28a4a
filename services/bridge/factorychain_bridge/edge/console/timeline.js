// One run on the page: the question, the steps as they happen, the answer as it streams.
//
// Invariant: what is shown is a function of the events and of the run's record, so that a replay from any
// position shows the same; text from users, agents and tools only ever becomes text, never markup.

import { make } from "/elements.js";
import { Question } from "/questions.js";

const STATES = { agent_completed: "completed", agent_failed: "failed", agent_cancelled: "cancelled" };

export class RunCard {
  #attempt = 0; #messages = new Map(); #calls = new Map(); #steps; #answer; #badge; #foot; #stop; #clock; #question; #agent;
  #questions = new Map(); #answers = new Map(); #waitsFor = new Set(); #pending; #onRespond;
  #startedMs = 0; #endedMs = 0; #drawn = false; #timer = null; #trace = "";

  constructor(run, onCancel, onRespond) {
    this.run = run;
    this.#onRespond = onRespond;
    this.state = "running";
    this.#question = make("div", "question");
    this.#question.hidden = true;
    this.#agent = make("b", "", "agent");
    this.#badge = make("span", "badge", "running");
    this.#clock = make("span", "took");
    this.#stop = make("button", "stop", "Cancel");
    this.#stop.addEventListener("click", () => { this.#stop.disabled = true; onCancel(run); });
    this.#steps = make("ol", "steps");
    this.#answer = make("div", "answer live");
    this.#pending = make("div", "pending");
    this.#foot = make("div", "foot");
    const top = make("div", "card-top", this.#agent, this.#badge, this.#clock, make("span", "grow"), this.#stop);
    this.element = make("article", "run", this.#question, make("div", "card", top, this.#steps, this.#answer, this.#pending, this.#foot));
    this.#timer = setInterval(() => this.#tick(), 200);
  }

  get ended() { return this.state !== "running" && this.state !== "queued"; }

  ask(text, agent = "") {
    if (agent) this.#agent.textContent = agent;
    this.#question.textContent = text;
    this.#question.hidden = !text;
  }

  /** The run as it is recorded: for what the log does not hold any more. */
  record(record) {
    if (!record.resumes) this.ask(textOf(record.input));
    this.#agent.textContent = record.agent;
    this.#startedMs ||= Date.parse(record.created_at);
    if (!record.ended_at || this.ended) return;
    this.#endedMs = Date.parse(record.ended_at);
    if (record.state === "completed") this.#finish("completed", record.output, record.usage, record.pending);
    else this.#fail(record.state, record.error ?? {}, record.usage);
    for (const each of record.answers ?? []) this.answered(each);
  }

  /** A question of the run has an answer. */
  answered(answer) {
    this.#answers.set(answer.request, answer);
    this.#questions.get(answer.request)?.settle(answer);
  }

  /** All of the run's questions have been answered: the run that goes on for it has begun. */
  resumed() {
    this.#show("completed", "answered");
    for (const each of this.#questions.values()) each.settle({ value: "answered" });
  }

  event(event) {
    const { type, data } = event;
    this.#trace = (event.trace ?? "").split("-")[1] ?? "";
    if (type === "agent_started") this.#begin(event);
    else if (type === "run_queued") { this.ask(textOf(data.input)); this.#show("queued", `queued, place ${data.position}`); }
    else if (type === "agent_thinking") this.#step("thinking", event.path, data.text);
    else if (type === "tool_executing") this.#call(data, event.path);
    else if (type === "tool_completed") this.#called(data);
    else if (type === "message_delta") this.#delta(data);
    else if (type === "input_requested") this.#step("asking", event.path, this.#asked(data));
    else if (type === "input_received") this.answered(data);
    else if (type === "agent_completed") { this.#endedMs = Date.parse(event.at); this.#finish("completed", data.output, data.usage, data.pending); }
    else if (type in STATES) { this.#endedMs = Date.parse(event.at); this.#fail(STATES[type], data, data.usage); }
  }

  #begin(event) {
    const { data } = event;
    if (data.attempt < this.#attempt) return;
    this.#attempt = data.attempt;
    this.#messages.clear();
    this.#calls.clear();
    this.#questions.clear();
    this.#steps.replaceChildren();
    this.#answer.replaceChildren(); // what an earlier attempt had begun to say does not count
    this.#agent.textContent = data.agent;
    if (!(data.attempt > 1)) this.#startedMs = Date.parse(event.at);
    this.#startedMs ||= Date.parse(event.at);
    if (!data.resumes) this.ask(textOf(data.input));
    this.#show("running", data.attempt > 1 ? `running, attempt ${data.attempt}` : "running");
  }

  #asked(data) {
    const known = this.#questions.get(data.request);
    if (known) return known.element;
    const question = new Question(this.run, data, this.#onRespond);
    this.#questions.set(data.request, question);
    const answer = this.#waitsFor.has(data.request) ? this.#answers.get(data.request) : null;
    if (answer) question.settle(answer);
    return question.element;
  }

  /** One more step; of a sub-agent with the names on the way to it. */
  #step(kind, path, ...children) {
    const where = path?.length ? make("span", "path", path.join(" › ")) : null;
    const step = make("li", `step ${kind}${where ? " inside" : ""}`, where, ...children);
    this.#steps.append(step);
    return step;
  }

  #call(data, path) {
    const took = make("span", "took", "…");
    const body = make("pre", "", pretty(data.arguments));
    const head = make("summary", "", make("code", "name", data.tool), make("code", "args", inline(data.arguments)), took);
    const step = this.#step("tool open", path, make("details", "", head, body));
    this.#calls.set(data.call, { step, took, body });
  }

  #called(data) {
    const call = this.#calls.get(data.call);
    if (!call) return;
    call.step.classList.remove("open");
    call.step.classList.toggle("bad", !data.ok);
    call.took.textContent = data.ok ? duration(data.duration_ms) : data.error?.reason ?? "failed";
    const result = data.ok ? pretty(data.result) : data.error?.message ?? "";
    call.body.textContent += `\n→ ${result}${data.truncated ? " … (cut)" : ""}`;
  }

  #delta(data) {
    this.#messages.set(data.message, (this.#messages.get(data.message) ?? "") + data.text);
    if (this.#drawn) return;
    this.#drawn = true;
    requestAnimationFrame(() => {
      this.#drawn = false;
      if (!this.ended) this.#answer.replaceChildren(...markdown([...this.#messages.values()].join("\n\n")));
    });
  }

  #finish(state, output, usage, pending = []) {
    this.#waitsFor = new Set(pending.map((each) => each.request));
    this.#show(pending.length ? "waiting" : state, pending.length ? "waits for you" : state);
    const text = typeof output === "string" ? output : output === null || output === undefined ? "" : "```\n" + pretty(output) + "\n```";
    this.#answer.replaceChildren(...markdown(text));
    this.#settle(usage);
    this.#pending.replaceChildren(...pending.map((each) => this.#asked(each)));
  }

  #fail(state, { reason, message, retry_after_s: retry }, usage) {
    this.#show(state, state);
    const said = [...this.#messages.values()].join("\n\n");
    const again = retry ? ` Try again in ${retry} s.` : "";
    const why = state === "cancelled" ? `Cancelled${reason && reason !== "USER" ? ` (${reason})` : ""}.` : `${message || "The run failed."} (${reason})${again}`;
    this.#answer.replaceChildren(...markdown(said), make("p", state === "failed" ? "error" : "hint", why));
    this.#settle(usage);
  }

  #settle(usage = {}) {
    clearInterval(this.#timer);
    this.#tick();
    this.#answer.classList.remove("live");
    this.#stop.remove();
    for (const { step } of this.#calls.values()) step.classList.remove("open");
    for (const [request, each] of this.#questions) if (!this.#waitsFor.has(request)) each.settle({ closed: "CANCELLED" });
    const tokens = usage.requests ? [`${usage.input_tokens + usage.output_tokens} tokens in ${usage.requests} requests`] : [];
    this.#foot.replaceChildren(...[...tokens, this.run, ...(this.#trace ? [`trace ${this.#trace}`] : [])].map((each) => make("span", "", each)));
  }

  #show(state, text) {
    this.state = state;
    this.#badge.className = `badge ${state}`;
    this.#badge.textContent = text;
  }

  #tick() {
    if (!this.#startedMs) return;
    this.#clock.textContent = duration((this.#endedMs || Date.now()) - this.#startedMs);
  }
}

// --- text --------------------------------------------------------------------------------------

export function textOf(input) {
  if (!input) return "";
  if (typeof input.text === "string") return input.text;
  return (input.content ?? []).map((part) => part.text ?? `[${part.type}]`).join("\n");
}

export function duration(ms) {
  return ms < 1000 ? `${Math.max(0, Math.round(ms))} ms` : `${(ms / 1000).toFixed(1)} s`;
}

const pretty = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2) ?? "");
const inline = (value) => Object.entries(value ?? {}).map(([key, each]) => `${key}: ${JSON.stringify(each)}`).join(", ");

/** The little Markdown that answers use: paragraphs, quotes, fenced code, `code`, **bold** and *emphasis*. */
function markdown(text) {
  const found = [];
  let open = null;
  for (const line of text.split("\n")) {
    const fence = /^\s*```/.test(line);
    const kind = open?.kind === "code" ? "code" : line.startsWith(">") ? "quote" : line.trim() ? "text" : null;
    if (fence && open?.kind === "code") open = null;
    else if (fence) found.push((open = { kind: "code", lines: [] }));
    else if (kind === null) open = null;
    else if (open?.kind === kind) open.lines.push(line);
    else found.push((open = { kind, lines: [line] }));
  }
  return found.map(({ kind, lines }) => {
    if (kind === "code") return make("pre", "", make("code", "", lines.join("\n")));
    if (kind === "quote") return quote(lines.map((each) => each.replace(/^> ?/, "")).join("\n"));
    return make("p", "", ...spans(lines.join("\n").replace(/^#+ /, "")));
  });
}

/** Tables and code in a quoted passage keep their columns. */
function quote(text) {
  return /^( {3,}\S|[|+])/m.test(text) ? make("blockquote", "mono", text) : make("blockquote", "", ...spans(text));
}

function spans(text) {
  return text.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*|\*[^*\s][^*\n]*\*)/).map((part) => {
    if (part.length > 2 && part.startsWith("`")) return make("code", "", part.slice(1, -1));
    if (part.length > 4 && part.startsWith("**")) return make("b", "", part.slice(2, -2));
    if (part.length > 2 && part.startsWith("*")) return make("em", "", part.slice(1, -1));
    return part;
  });
}
