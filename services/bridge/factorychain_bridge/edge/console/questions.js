// What an agent asks its user: the question, the form that its schema calls for, and what became of it.
//
// Invariant: a question is answered once; what the chain refuses is said beside the form, which stays.

import { make } from "/elements.js";

const CLOSED = { EXPIRED: "nobody answered in time", WITHDRAWN: "not asked any more", CANCELLED: "the run has ended" };
const BUTTONS_MAX = 6;

export class Question {
  #run; #data; #respond; #form; #problem; #left; #timer = null; #done = false;

  /** @param respond (run, request, value) => Promise */
  constructor(run, data, respond) {
    this.#run = run;
    this.#data = data;
    this.#respond = respond;
    this.#left = make("span", "took");
    this.#problem = make("p", "error");
    this.#problem.hidden = true;
    this.#form = this.#made();
    const head = make("div", "ask-head", make("b", "", KINDS[data.kind] ?? "asks"), make("span", "grow"), this.#left);
    const call = data.tool ? make("div", "ask-call", make("code", "name", data.tool), make("pre", "", JSON.stringify(data.arguments ?? {}, null, 2))) : null;
    this.element = make("section", "ask-card", head, data.prompt ? make("p", "ask-prompt", data.prompt) : null, call, this.#form, this.#problem);
    this.element.dataset.request = data.request;
    if (data.expires_at) {
      this.#timer = setInterval(() => this.#tick(), 1000);
      this.#tick();
    }
  }

  get done() { return this.#done; }

  /** The question has an answer, or none will be taken. */
  settle({ value, closed }) {
    if (this.#done) return;
    this.#done = true;
    clearInterval(this.#timer);
    this.#left.textContent = "";
    this.#problem.hidden = true;
    const text = closed ? CLOSED[closed] ?? closed : this.#said(value);
    const tone = closed ? "closed" : value === false ? "no" : "yes";
    this.#form.replaceWith(make("p", `ask-answer ${tone}`, text));
    this.element.classList.add("over");
  }

  #said(value) {
    if (this.#isYesOrNo && typeof value === "boolean") return (this.#isApproval ? ["Approved", "Denied"] : ["Yes", "No"])[value ? 0 : 1];
    return typeof value === "string" ? value : JSON.stringify(value);
  }

  get #schema() { return this.#data.schema ?? {}; }
  get #isYesOrNo() { return this.#schema.type === "boolean"; }
  get #isApproval() { return this.#data.kind === "approval"; }

  #made() {
    const schema = this.#schema;
    const form = make("form", "ask-form");
    const choices = this.#isYesOrNo ? [true, false] : schema.enum;
    if (choices && choices.length <= BUTTONS_MAX) {
      form.append(...choices.map((value, at) => this.#button(value, at)));
      return form;
    }
    const [element, read] = choices ? select(choices) : fields(schema) ?? entry(schema);
    form.append(element, make("button", "primary", "Answer"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      try { this.#answer(read()); } catch (error) { this.#refused(error); }
    });
    return form;
  }

  #button(value, at) {
    const text = this.#isYesOrNo ? (this.#isApproval ? ["Approve", "Deny"] : ["Yes", "No"])[at] : String(value);
    const found = make("button", value === true ? "primary" : value === false ? "deny" : "", text);
    found.type = "button";
    found.addEventListener("click", () => this.#answer(value));
    return found;
  }

  async #answer(value) {
    this.#problem.hidden = true;
    this.#enable(false);
    try {
      await this.#respond(this.#run, this.#data.request, value);
      this.settle({ value });
    } catch (error) {
      this.#refused(error);
    }
  }

  #refused(error) {
    this.#enable(true);
    this.#problem.textContent = error.message;
    this.#problem.hidden = false;
  }

  #enable(able) { for (const each of this.#form.querySelectorAll("button, input, select, textarea")) each.disabled = !able; }

  #tick() {
    const leftS = Math.max(0, Math.round((Date.parse(this.#data.expires_at) - Date.now()) / 1000));
    this.#left.textContent = `${Math.floor(leftS / 60)}:${String(leftS % 60).padStart(2, "0")} left`;
    if (!leftS) clearInterval(this.#timer);
  }
}

const KINDS = { question: "The agent asks", approval: "The agent needs your approval", tool: "The agent needs this done here" };

// --- what is filled in -------------------------------------------------------------------------

function select(choices) {
  const found = make("select", "");
  found.append(...choices.map((each, at) => { const option = make("option", "", String(each)); option.value = at; return option; }));
  return [found, () => choices[found.value]];
}

/** One field for each property of a plain object; null for anything else. */
function fields(schema) {
  const properties = Object.entries(schema.properties ?? {});
  if (schema.type !== "object" || !properties.length || properties.some(([, each]) => !["string", "number", "integer", "boolean"].includes(each.type))) return null;
  const required = new Set(schema.required ?? []);
  const reads = [];
  const rows = properties.map(([name, each]) => {
    const [element, read] = each.enum ? select(each.enum) : each.type === "boolean" ? tick() : entry(each);
    reads.push([name, read, required.has(name)]);
    return make("label", "", make("span", "", each.title ?? name), element);
  });
  return [make("div", "ask-fields", ...rows), () => Object.fromEntries(reads.map(([name, read, needed]) => [name, read(), needed]).filter(([, value, needed]) => needed || (value !== "" && value !== null)).map(([name, value]) => [name, value]))];
}

function tick() {
  const found = make("input", "");
  found.type = "checkbox";
  return [found, () => found.checked];
}

function entry({ type, title }) {
  const text = type === undefined || type === "string";
  const number = type === "number" || type === "integer";
  const found = make(text || number ? "input" : "textarea", "");
  if (number) { found.type = "number"; found.step = type === "integer" ? "1" : "any"; }
  found.placeholder = text ? "Your answer" : number ? "A number" : "JSON";
  found.setAttribute("aria-label", title ?? "Your answer");
  if (text) return [found, () => found.value];
  if (number) return [found, () => (found.value === "" ? null : Number(found.value))];
  return [found, () => JSON.parse(found.value)];
}
