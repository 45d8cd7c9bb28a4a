// A client of the chain for browsers and Node, without dependencies (protocol factorychain.v1.json).
//
//   const client = new Client("http://127.0.0.1:8080", () => fetchToken());
//   await client.connect();
//   const run = await client.start({ text: "What is a closure?" }, { onEvent: (event) => … });
//   await run.ended;
//
// Invariants: a listener gets each event once and in order, across any number of connections; a request is
// answered exactly once; and what cannot be continued is said (`onReset`), never skipped.

const SUBPROTOCOL = "factorychain.v1.json";
const FIRST_WAIT_MS = 100;
const MOST_WAIT_MS = 10_000;
const HEALTHY_MS = 10_000;
// A server or a network that is lost closes nothing: so long without a frame, and then without an answer.
const QUIET_MS = 10_000;
const ANSWER_MS = 5_000;
const ENDINGS = new Set(["agent_completed", "agent_failed", "agent_cancelled"]);

/** A refusal: `code` (as gRPC names it), `reason` (upper snake case), `retryAfterS` where it helps. */
export class ChainError extends Error {
  constructor(error) {
    super(error.message ?? error.reason ?? "unknown error");
    this.name = "ChainError";
    this.code = error.code ?? "UNKNOWN";
    this.reason = error.reason ?? "UNKNOWN";
    this.retryAfterS = error.retry_after_s;
    this.details = error;
  }
}

/** Closes after which a new connection is of no use. */
function fatal(code, reason) {
  if (code === 4001) return { code: "UNAUTHENTICATED", reason: reason.split(":")[0] || "TOKEN_INVALID", message: reason.replace(/^[A-Z_]+: /, "") || "the token is not valid" };
  if (code === 4009) return { code: "RESOURCE_EXHAUSTED", reason: "CAPACITY", message: reason, retry_after_s: 5 };
  if (code === 4010 || code === 1002 || code === 1007) return { code: "INVALID_ARGUMENT", reason: "PROTOCOL", message: reason };
  return null;
}

export class Client {
  #url; #token; #WebSocket; #on; #ws = null; #ready = null; #closed = false; #tokenRefused = false;
  #nextId = 0; #requests = new Map(); #threads = new Map();
  #wait = FIRST_WAIT_MS; #askedMs = null; #timer = null; #first = null;
  #quietMs; #answerMs; #pulse = null; #heardMs = 0; #waitsSinceMs = null;

  /**
   * @param {string} url of the edge: http://host:port
   * @param {string | (() => string | Promise<string>)} token the user's, or what gives one when needed
   * @param {{onState?: (state: object) => void, onReady?: (ready: object) => void, WebSocket?: any, quietMs?: number, answerMs?: number}} options
   *   `onState` hears {state: "connecting" | "online" | "waiting" | "closed", retryMs?, error?}. A server that
   *   says nothing for `quietMs` (10,000) is asked, and left if it does not answer within `answerMs` (5,000).
   */
  constructor(url, token, options = {}) {
    this.#url = url.replace(/^http/, "ws").replace(/\/+$/, "") + "/v1/ws";
    this.#token = token;
    this.#WebSocket = options.WebSocket ?? globalThis.WebSocket;
    this.#quietMs = options.quietMs ?? QUIET_MS;
    this.#answerMs = options.answerMs ?? ANSWER_MS;
    this.#on = { state: options.onState ?? (() => {}), ready: options.onReady ?? (() => {}) };
    if (!this.#WebSocket) throw new Error("no WebSocket here: pass one as options.WebSocket");
  }

  /** What the server said at the last `auth`; null while not connected. */
  get ready() { return this.#ready; }

  /** Resolves when the server has accepted the token; rejects with a ChainError if it does not. */
  connect() {
    this.#first ??= deferred();
    if (!this.#ws) this.#open();
    return this.#first.promise;
  }

  /** Lets go. Runs that were started go on. */
  close() { this.#end(new ChainError({ code: "CANCELLED", reason: "CLOSED", message: "the client was closed" })); }

  /** Drops the connection as a network would; it comes back by itself. */
  cut() { this.#ws?.close(3000, "cut"); }

  // --- operations ----------------------------------------------------------------------------

  /** One operation's result. @returns {Promise<object>} */
  request(op, fields = {}, onResult = () => {}) {
    if (this.#closed) return Promise.reject(new ChainError({ code: "CANCELLED", reason: "CLOSED", message: "the client was closed" }));
    const id = String(++this.#nextId);
    const frame = JSON.stringify({ op, id, ...fields });
    return new Promise((resolve, reject) => {
      this.#requests.set(id, { frame, resolve, reject, onResult });
      if (this.#ready) this.#send(frame);
    });
  }

  /**
   * Starts a run. `listener` gets onEvent(event), onReset(reset), and the run's events only. `options` are
   * the other fields of `start`: agent, thread, on_busy ("reject", "enqueue", "interrupt"), …
   * @returns {Promise<{run: string, thread: string, position: number, ended: Promise<object>}>} `position`: in
   *   the queue, 1 is next, 0 if it does not wait; `ended`: the ending event
   */
  async start(input, listener = {}, options = {}) {
    const request = { input, request_id: newRequestId(), ...options };
    const [onResult, ended] = this.#run(listener);
    const result = await this.request("start", request, onResult);
    return { ...result, ended: ended.promise };
  }

  /**
   * Answers what an agent asks. If the run that asked has ended with its requests, and this was the last
   * answer that it waited for, another run goes on: `listener` gets its events.
   * @returns {Promise<{run: string, open: string[], ended?: Promise<object>}>} `run`: the one that goes on;
   *   `open`: requests that have to be answered before it does; `ended`: of another run, its ending event
   */
  async respond(run, request, value, listener = {}) {
    const [onResult, ended] = this.#run(listener);
    const result = await this.request("respond", { run, request, value }, (found) => { if (found.run !== run) onResult(found); });
    return result.run === run ? result : { ...result, ended: ended.promise };
  }

  /** What the reply to a start does, and when the run has ended. */
  #run(listener) {
    const ended = deferred();
    return [(found) => {
      const onEvent = (event) => {
        if (event.run !== found.run) return;
        listener.onEvent?.(event);
        if (ENDINGS.has(event.type)) { unlisten(); ended.resolve(event); }
      };
      // In the frame's own turn: the run's events come right behind the reply.
      const unlisten = this.#listen(found.thread, { ...listener, onEvent, seq: found.after, epoch: found.epoch, active: true });
      const followed = this.#threads.get(found.thread);
      if (found.existing && followed.delivered) this.#follow(found.thread).catch(() => {});
      followed.delivered = true;
    }, ended];
  }

  /** Follows a thread from a position: onEvent, onReset, onCaughtUp. @returns {Promise<() => void>} what ends it */
  async subscribe(thread, listener, { after = 0, epoch = 0 } = {}) {
    const unlisten = this.#listen(thread, { ...listener, seq: after, epoch, active: false });
    try {
      await this.#follow(thread);
    } catch (error) {
      unlisten();
      throw error;
    }
    return unlisten;
  }

  cancel(run) { return this.request("cancel", { run }); }
  async agents() { return (await this.request("agents")).agents ?? []; }
  threads(pageToken = "") { return this.request("threads", { page_token: pageToken }); }
  thread(thread, pageToken = "") { return this.request("thread", { thread, page_token: pageToken }); }
  usage() { return this.request("usage"); }

  // --- listening -----------------------------------------------------------------------------

  #listen(thread, listener) {
    const followed = this.#threads.get(thread) ?? { delivered: false, last: 0, listeners: new Set() };
    followed.listeners.add(listener);
    this.#threads.set(thread, followed);
    return () => {
      followed.listeners.delete(listener);
      if (followed.listeners.size || this.#threads.get(thread) !== followed) return;
      this.#threads.delete(thread);
      if (this.#ready && followed.delivered) this.request("unsubscribe", { thread }).catch(() => {});
    };
  }

  #follow(thread) {
    const [frame, onResult] = this.#subscription(thread);
    return this.request("subscribe", frame, onResult);
  }

  #subscription(thread) {
    const followed = this.#threads.get(thread);
    const listeners = [...followed.listeners];
    const epochs = new Set(listeners.map((each) => each.epoch));
    const after = epochs.size === 1 ? Math.min(...listeners.map((each) => each.seq)) : 0;
    const epoch = epochs.size === 1 ? [...epochs][0] : 0;
    return [{ thread, after, epoch }, (found) => {
      followed.delivered = true;
      followed.last = found.last;
      for (const each of listeners) each.active = true;
    }];
  }

  #onEvents(frame) {
    for (const event of frame.events) {
      for (const each of this.#threads.get(frame.thread)?.listeners ?? []) {
        if (!each.active) continue;
        if (each.epoch && each.epoch !== frame.epoch) this.#reset(each, { ...frame, reason: "EPOCH_CHANGED" });
        if (event.seq <= each.seq) continue;
        each.epoch = frame.epoch;
        each.seq = event.seq;
        each.onEvent?.(event, frame);
      }
    }
  }

  #onReset(frame) {
    const followed = this.#threads.get(frame.thread);
    for (const each of followed?.listeners ?? []) {
      // One that is further on within the same numbering has lost nothing and skips what it has.
      const unharmed = each.epoch === frame.epoch && each.seq > 0 && each.seq <= followed.last;
      if (each.active && !(unharmed && frame.reason === "POSITION_UNKNOWN")) this.#reset(each, frame);
    }
  }

  #reset(listener, { thread, epoch, reason }) {
    if (epoch !== listener.epoch || reason === "POSITION_UNKNOWN") listener.seq = 0;
    listener.epoch = epoch;
    listener.onReset?.({ thread, epoch, reason });
  }

  // --- connection ----------------------------------------------------------------------------

  #open() {
    this.#on.state({ state: "connecting" });
    const ws = new this.#WebSocket(this.#url, SUBPROTOCOL);
    this.#ws = ws;
    // A connection that does not come about is left as late as one that falls silent.
    this.#waitsSinceMs = this.#heardMs = Date.now() + this.#quietMs;
    clearInterval(this.#pulse);
    this.#pulse = setInterval(() => this.#listenForLife(ws), this.#answerMs / 2);
    ws.onopen = () => this.#authenticate();
    ws.onmessage = (message) => {
      if (ws !== this.#ws) return;
      this.#heardMs = Date.now();
      this.#waitsSinceMs = null;
      this.#onFrame(JSON.parse(message.data));
    };
    ws.onclose = (close) => { if (ws === this.#ws) this.#onClose(close.code, close.reason ?? ""); };
    ws.onerror = () => {};
  }

  /** Timers of pages in the background are late: what counts is that a question is not answered. */
  #listenForLife(ws) {
    if (ws !== this.#ws) return;
    const nowMs = Date.now();
    if (this.#waitsSinceMs !== null) {
      if (nowMs - this.#waitsSinceMs < this.#answerMs) return;
      this.#onClose(1006, "the server does not answer");
      ws.close();
    } else if (nowMs - this.#heardMs >= this.#quietMs) {
      this.#waitsSinceMs = nowMs;
      this.#send(JSON.stringify({ op: "ping", id: "still there" }));
    }
  }

  async #authenticate() {
    try {
      const token = typeof this.#token === "function" ? await this.#token() : this.#token;
      this.#send(JSON.stringify({ op: "auth", token }));
    } catch (error) {
      if (error instanceof ChainError) this.#end(error);
      else this.#ws?.close();
    }
  }

  #send(frame) { if (this.#ws?.readyState === 1) this.#ws.send(frame); }

  #onFrame(frame) {
    if (frame.op === "events") this.#onEvents(frame);
    else if (frame.op === "reply") this.#onReply(frame);
    else if (frame.op === "caught_up") for (const each of this.#threads.get(frame.thread)?.listeners ?? []) { if (each.active) each.onCaughtUp?.(frame); }
    else if (frame.op === "reset") this.#onReset(frame);
    else if (frame.op === "ready") this.#onReady(frame);
    else if (frame.op === "token_expiring" && typeof this.#token === "function") this.#authenticate();
    else if (frame.op === "closing") this.#askedMs = frame.reconnect_after_ms;
  }

  #onReply({ id, result, error }) {
    const request = this.#requests.get(id);
    if (!request) return;
    this.#requests.delete(id);
    if (error) return request.reject(new ChainError(error));
    request.onResult(result ?? {});
    request.resolve(result ?? {});
  }

  #onReady(frame) {
    const again = this.#ready !== null;
    this.#ready = { ...frame, since: Date.now() };
    this.#tokenRefused = false;
    this.#on.ready(frame);
    if (again) return;
    const waiting = [...this.#requests.values()];
    for (const thread of this.#threads.keys()) this.#follow(thread).catch(() => {});
    for (const request of waiting) this.#send(request.frame);
    this.#on.state({ state: "online" });
    this.#first?.resolve();
  }

  #onClose(code, reason) {
    const goodForMs = this.#ready ? Date.now() - this.#ready.since : 0;
    this.#ws = null;
    this.#ready = null;
    clearInterval(this.#pulse);
    for (const followed of this.#threads.values()) {
      followed.delivered = false;
      for (const each of followed.listeners) each.active = false;
    }
    if (this.#closed) return;
    const error = fatal(code, reason);
    const renewable = code === 4001 && typeof this.#token === "function" && !this.#tokenRefused;
    if (error && !renewable) return this.#end(new ChainError(error));
    this.#tokenRefused ||= code === 4001;
    if (goodForMs > HEALTHY_MS) this.#wait = FIRST_WAIT_MS;
    const retryMs = Math.round(this.#askedMs ?? this.#wait * (0.5 + 0.5 * Math.random()));
    if (this.#askedMs === null) this.#wait = Math.min(2 * this.#wait, MOST_WAIT_MS);
    this.#askedMs = null;
    this.#on.state({ state: "waiting", retryMs, code });
    this.#timer = setTimeout(() => this.#open(), retryMs);
  }

  #end(error) {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#timer);
    clearInterval(this.#pulse);
    const ws = this.#ws;
    this.#ws = null;
    ws?.close();
    for (const request of this.#requests.values()) request.reject(error);
    this.#requests.clear();
    this.#first?.promise.catch(() => {});
    this.#first?.reject(error);
    this.#on.state({ state: "closed", error });
  }
}

/** Random, and unlike `crypto.randomUUID` there on pages without TLS, too. */
function newRequestId() {
  return Array.from(globalThis.crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function deferred() {
  let resolve, reject;
  const promise = new Promise((yes, no) => { resolve = yes; reject = no; });
  return { promise, resolve, reject };
}
