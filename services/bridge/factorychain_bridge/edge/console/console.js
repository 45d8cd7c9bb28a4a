// The page: one user, their conversations, and everything that happens in the one that is open.

import { ChainError, Client } from "/factorychain.js";
import { make } from "/elements.js";
import { RunCard, duration, textOf } from "/timeline.js";

const LOG_MAX = 500;
const ENDINGS = new Set(["agent_completed", "agent_failed", "agent_cancelled"]);
const $ = (id) => document.getElementById(id);

/** What this tab knows. Each tab is one user: nothing is shared between tabs but the code. */
const page = { client: null, who: null, thread: null, cards: new Map(), unfollow: null, titles: new Map(), count: 0, lastMs: 0, retryTimer: null };

// --- signing in ------------------------------------------------------------------------------

async function tokenFor(who) {
  if (who.token) return who.token;
  const body = JSON.stringify({ user: who.user, tenant: who.tenant });
  const response = await fetch("/v1/dev/token", { method: "POST", headers: { "content-type": "application/json" }, body });
  const found = await response.json();
  if (response.ok) return found.token;
  if (response.status === 404) throw new ChainError({ reason: "NO_DEV_TOKENS", message: "this chain is not in development mode: paste a token" });
  throw new ChainError(found.error);
}

async function signIn(who) {
  const client = new Client(location.origin, () => tokenFor(who), { onState: showState, onReady: showReady });
  page.client = client;
  await client.connect();
  page.who = who;
  if (who.user) sessionStorage.setItem("who", JSON.stringify({ user: who.user, tenant: who.tenant }));
  $("sign-in").hidden = true;
  $("app").hidden = false;
  newThread(); // not after the lists: something may be asked before they are here
  await Promise.all([loadAgents(), loadThreads(), loadUsage()]);
  invite();
}

function showReady(ready) {
  $("user").textContent = ready.user;
  $("tenant").textContent = ready.tenant;
  $("avatar").textContent = ready.user.slice(0, 1).toUpperCase();
  const hue = [...`${ready.tenant}/${ready.user}`].reduce((sum, each) => (sum * 31 + each.codePointAt(0)) % 360, 7);
  $("avatar").style.setProperty("--who", `hsl(${hue} 55% 48%)`);
  document.title = `${ready.user} · factorychain`;
}

function showState({ state, retryMs, error }) {
  const badge = $("state");
  badge.className = `state ${state}`;
  const texts = { connecting: "connecting", online: "live", waiting: `reconnecting in ${duration(retryMs ?? 0)}`, closed: "disconnected" };
  $("state-text").textContent = texts[state];
  if (state === "waiting") logLine("mark-line", "", "connection lost", "");
  if (state === "online" && page.count) logLine("mark-line", "", "resumed", "");
  if (state === "closed" && error && page.who) showError(error);
}

function askWhoItIs(error) {
  $("app").hidden = true;
  $("sign-in").hidden = false;
  $("sign-in-error").hidden = !error;
  $("sign-in-error").textContent = error?.message ?? "";
}

// --- lists -----------------------------------------------------------------------------------

async function loadAgents() {
  const agents = await page.client.agents();
  $("agent").replaceChildren(...agents.map((each) => {
    const option = make("option", "", each.available ? each.name : `${each.name} (unavailable)`);
    option.value = each.name;
    option.disabled = !each.available;
    option.selected = each.is_default && each.available;
    option.dataset.hint = each.available ? each.description : `misses ${each.missing.join(", ")}`;
    return option;
  }));
  showHint();
}

function showHint() {
  const hint = $("agent").selectedOptions[0]?.dataset.hint ?? "no agent is registered";
  $("agent-hint").textContent = hint.split("\n")[0];
}

async function loadThreads() {
  const { threads } = await page.client.threads();
  const buttons = threads.map((each) => {
    const button = make("button", each.active_run ? "busy" : "", each.title || page.titles.get(each.thread) || each.thread);
    button.title = each.thread;
    if (each.thread === page.thread) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => openThread(each.thread).catch(showError));
    return button;
  });
  $("threads").replaceChildren(...(buttons.length ? buttons : [make("p", "", "None yet.")]));
}

async function loadUsage() {
  const usage = await page.client.usage();
  const used = usage.active_runs, most = usage.max_active_runs;
  $("meter-text").textContent = `${used} of ${most} running`;
  $("meter").title = `Runs that are active now, and how many you may have. ${usage.recorded_runs} runs recorded, a run may take ${usage.lifetime_s} s.`;
  $("places").className = used >= most ? "places full" : "places";
  $("places").replaceChildren(...Array.from({ length: Math.min(most, 12) }, (_, at) => make("i", at < used ? "used" : "")));
}

let refreshing = null;
/** The lists follow what happens, at most four times a second. */
function refresh() {
  refreshing ??= setTimeout(() => {
    refreshing = null;
    Promise.all([loadThreads(), loadUsage()]).catch(() => {}); // offline: they are loaded again later
  }, 250);
}

// --- the open conversation -------------------------------------------------------------------

function clear(thread) {
  page.unfollow?.();
  page.unfollow = null;
  page.thread = thread;
  page.cards.clear();
  page.count = 0;
  page.lastMs = 0;
  $("log").replaceChildren();
  $("log-count").textContent = "";
  $("runs").replaceChildren();
  hideNotice();
  $("thread-id").textContent = thread ?? "";
  $("title").textContent = page.titles.get(thread) ?? (thread ? thread : "New conversation");
}

function newThread() {
  clear(null);
  $("runs").append(make("div", "empty", make("h2"), make("p", "", "Every step of the run appears here as it happens, and only you see it.")));
  invite();
  for (const each of $("threads").children) each.removeAttribute("aria-current");
  $("text").focus();
}

/** Says who is asked, while there is no run in the conversation. */
function invite() {
  const invitation = $("runs").querySelector(".empty h2");
  if (invitation) invitation.textContent = `Ask ${$("agent").value || "the agent"} something`;
}

async function openThread(thread) {
  clear(thread);
  const [{ runs }] = await Promise.all([page.client.thread(thread), loadThreads()]);
  if (page.thread !== thread) return;
  for (const run of runs) card(run.run).record(run);
  nameThread(thread, runs.length ? textOf(runs[0].input) : thread);
  await follow(thread, {});
}

async function follow(thread, position) {
  const unfollow = await page.client.subscribe(thread, {
    onEvent: (event) => { if (page.thread === thread) onEvent(event); },
    onReset: ({ reason }) => { if (page.thread === thread) logLine("mark-line", "", `reset: ${reason}`, ""); },
    onCaughtUp: ({ seq }) => {
      if (page.thread !== thread || !seq) return;
      logLine("mark-line", seq, "caught up", "");
      $("runs").scrollTo({ top: $("runs").scrollHeight, behavior: "instant" });
    },
  }, position);
  if (page.thread === thread) page.unfollow = unfollow;
  else unfollow();
}

function nameThread(thread, text) {
  if (!text) return;
  page.titles.set(thread, text);
  if (page.thread === thread) $("title").textContent = text;
}

function card(run) {
  let found = page.cards.get(run);
  if (!found) {
    found = new RunCard(run, (id) => page.client.cancel(id).then(refresh, showError), respond);
    page.cards.set(run, found);
    $("runs").querySelector(".empty")?.remove();
    $("runs").append(found.element);
  }
  return found;
}

/** The page follows the open conversation already, and so the run that goes on in it. */
async function respond(run, request, value) {
  await page.client.respond(run, request, value);
  refresh();
}

function onEvent(event) {
  if (event.type === "agent_started" && event.data.resumes) page.cards.get(event.data.resumes)?.resumed();
  const atBottom = isAtBottom();
  card(event.run).event(event);
  const atMs = Date.parse(event.at);
  logLine(event.type, event.seq, event.type, page.lastMs ? `+${duration(atMs - page.lastMs)}` : "", event);
  page.lastMs = atMs;
  if (event.type === "agent_started" || ENDINGS.has(event.type)) refresh();
  if (atBottom) $("runs").scrollTo({ top: $("runs").scrollHeight, behavior: "instant" });
}

function isAtBottom() {
  const runs = $("runs");
  return runs.scrollHeight - runs.scrollTop - runs.clientHeight < 120;
}

/** Deltas that follow each other share a line, so that the steps of a run stay in sight. */
function foldDelta(event) {
  const line = $("log").lastElementChild;
  if (!event?.type.endsWith("_delta") || line?.className !== event.type) return false;
  line.dataset.last = event.seq;
  const times = event.seq - Number(line.dataset.first) + 1;
  line.querySelector(".type").textContent = `${event.type} ×${times}`;
  return true;
}

function logLine(className, seq, type, at, event) {
  const log = $("log");
  if (event) $("log-count").textContent = `${++page.count}`;
  if (foldDelta(event)) return;
  const line = make("li", className, make("span", "seq", String(seq)), make("span", "type", type), make("span", "at", at));
  if (event) {
    line.title = JSON.stringify(event.data, null, 1).slice(0, 2000);
    line.dataset.first = line.dataset.last = event.seq;
  }
  const atBottom = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.append(line);
  if (log.childElementCount > LOG_MAX) log.firstElementChild.remove();
  if (atBottom) log.scrollTop = log.scrollHeight;
}

// --- asking ----------------------------------------------------------------------------------

async function ask(text) {
  hideNotice();
  const thread = page.thread ?? undefined;
  const position = { after: 0, epoch: 0 };
  const started = await page.client.start({ text }, {}, { agent: $("agent").value || undefined, thread, on_busy: "enqueue" });
  if (page.thread !== (thread ?? null)) return; // another conversation was opened meanwhile
  card(started.run).ask(text, $("agent").value);
  if (!thread) {
    page.thread = started.thread;
    $("thread-id").textContent = started.thread;
    nameThread(started.thread, text);
  }
  if (!page.unfollow) await follow(started.thread, { ...position, after: started.after, epoch: started.epoch });
  $("runs").scrollTo({ top: $("runs").scrollHeight });
  refresh();
}

// --- errors ----------------------------------------------------------------------------------

function showError(error) {
  clearInterval(page.retryTimer);
  const notice = $("notice");
  const until = error.retryAfterS ? Date.now() + error.retryAfterS * 1000 : 0;
  notice.hidden = false;
  notice.className = until ? "notice wait" : "notice";
  const text = make("span", "", error.message);
  const code = make("code", "", error.reason ?? error.name);
  const wait = make("b", "", "");
  const close = make("button", "quiet", "Dismiss");
  close.type = "button";
  close.addEventListener("click", hideNotice);
  notice.replaceChildren(code, text, wait, close);
  const tick = () => {
    const leftMs = until - Date.now();
    wait.textContent = until ? (leftMs > 0 ? `again in ${Math.ceil(leftMs / 1000)} s` : "try again now") : "";
    if (leftMs <= 0) clearInterval(page.retryTimer);
  };
  tick();
  page.retryTimer = setInterval(tick, 250);
}

function hideNotice() {
  clearInterval(page.retryTimer);
  $("notice").hidden = true;
}

// --- the page --------------------------------------------------------------------------------

$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = $("in-token").value.trim();
  const who = token ? { token } : { user: $("in-user").value.trim(), tenant: $("in-tenant").value.trim() || "default" };
  signIn(who).catch(askWhoItIs);
});
$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  $("text").value = "";
  resize();
  ask(text).catch((error) => { $("text").value ||= text; resize(); showError(error); });
});
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); $("ask").requestSubmit(); }
});
$("text").addEventListener("input", resize);
$("agent").addEventListener("change", showHint);
$("new-thread").addEventListener("click", newThread);
$("cut").addEventListener("click", () => page.client.cut());
$("leave").addEventListener("click", () => {
  sessionStorage.removeItem("who");
  history.replaceState(null, "", "/");
  page.who = null;
  page.client.close();
  clear(null);
  askWhoItIs(null);
});

function resize() {
  const text = $("text");
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight}px`;
}

function knownUser() {
  const hash = new URLSearchParams(location.hash.slice(1));
  if (hash.get("user")) return { user: hash.get("user"), tenant: hash.get("tenant") || "default" };
  return JSON.parse(sessionStorage.getItem("who") ?? "null");
}

const known = knownUser();
if (known) signIn(known).catch(askWhoItIs);
else askWhoItIs(null);
