// One WebSocket connection to an rtcore server: commands and publications with their answers, reconnection with full
// jitter, and channels that are joined again, from where they were left, after every reconnection.

/** The address of `path` beside this page, whatever the prefix the pages are served under. */
export function endpoint(path, query = []) {
  const url = new URL(path, new URL(".", location.href));
  for (const [name, value] of query) if (value !== "") url.searchParams.append(name, value);
  return url;
}

/** The same for a WebSocket: ws: beside http:, wss: beside https:. */
export function socketEndpoint(path, query = []) {
  const url = endpoint(path, query);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url;
}

/**
 * Seconds to wait before attempt number `attempt` (from 0): anything up to a ceiling that doubles each time. Full jitter:
 * after a restart of the server its clients must not come back in step.
 */
export function backoff(attempt, { base = 1, cap = 30 } = {}) {
  return Math.random() * Math.min(cap, base * 2 ** Math.min(attempt, 16));
}

/** An error that the server answered with, or why there was no answer: `code` in snake_case, `message` for people. */
export class CommandError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

// After these a new connection ends the same way: the fault is in what this client is or says.
const FINAL_CODES = new Set([1000, 1002, 1003, 1007, 1008, 1009, 4400, 4401, 4403]);
// Comings and goings are a stream beside the channel's publications, numbered for itself in the same epoch.
const PRESENCE_TYPES = new Set(["user_joined", "user_left"]);
const CONNECT_TIMEOUT = 15;
const REPLY_TIMEOUT = 10;
// A connection that lived this long counts as good, and the next back-off starts from the beginning.
const GOOD_AFTER = 5;

/**
 * States: "closed" -> "connecting" -> "open" -> "waiting" -> "connecting" … -> "closed".
 *
 * Events (CustomEvent, with `detail`):
 * - "state": {state, code, reason, retryAt}. `retryAt`, in Date.now() milliseconds, only while waiting.
 * - "frame": {direction: "in" | "out", text}, everything on the wire.
 * - "message": every message that is not the answer to a command or publication of ours.
 * - "joined": {channel, data, again}, the answer to a join; `again` after a reconnection.
 * - "refused": {channel, error}: the server does not let us in, and it is not tried again.
 */
export class Connection extends EventTarget {
  state = "closed";
  connectionId = null;
  userId = null;

  #url = null;
  #socket = null;
  #farewell = null;
  #attempt = 0;
  #openedAt = 0;
  #retryTimer = 0;
  #notBefore = 0;
  #watchdog = 0;
  #silenceLimit = CONNECT_TIMEOUT;
  // channel -> {since: {epoch, offset} | null, heard: {epoch, offset} | null}, in the order of joining.
  #channels = new Map();
  #pending = new Map();
  #serial = 0;
  // An id makes a publication idempotent for the user, who may have other tabs and may reload: it must not be reused.
  #prefix = Array.from(crypto.getRandomValues(new Uint32Array(2)), (n) => n.toString(36)).join("");

  constructor() {
    super();
    addEventListener("online", () => this.#hurry());
    document.addEventListener("visibilitychange", () => document.hidden || this.#hurry());
  }

  get channels() {
    return [...this.#channels.keys()];
  }

  /** Connect, and stay connected until `close`. `query` is a list of [name, value]: such as user_id. */
  open(query = []) {
    if (this.state !== "closed") return;
    this.#url = socketEndpoint("ws", query);
    this.#attempt = 0;
    this.#connect();
  }

  /** Disconnect for good. The channels are kept and joined again by the next `open`. */
  close() {
    if (this.state === "closed") return;
    this.#release();
    this.#become("closed", { code: null, reason: "" });
  }

  /** While waiting: do not wait any longer. */
  retry() {
    if (this.state === "waiting") this.#connect();
  }

  /** Join `channel` now if connected, and after every reconnection. */
  join(channel) {
    if (this.#channels.has(channel)) return;
    this.#channels.set(channel, { since: null, heard: null });
    if (this.state === "open") this.#join(channel, { again: false });
  }

  leave(channel) {
    if (!this.#channels.delete(channel) || this.state !== "open") return;
    this.command("leave_channel", { channel }).catch(() => {
      // The channel is forgotten on this side; whatever ends the connection makes the server forget it too.
    });
  }

  /** Run a command; resolves to the `data` of its response, rejects with a CommandError. */
  command(name, data = {}) {
    return this.#ask({ type: "command", command: name, data });
  }

  /** Publish an object with a `channel` or a `recipient_id`; resolves to {channel, offset, epoch}. */
  publish(message) {
    return this.#ask(message);
  }

  /** Send a text frame as it is. Returns whether there was a connection to send it on. */
  send(text) {
    if (this.state !== "open") return false;
    this.#transmit(text);
    return true;
  }

  #ask(message) {
    if (this.state !== "open") {
      return Promise.reject(new CommandError("not_connected", "There is no connection at the moment."));
    }
    const id = `${this.#prefix}-${++this.#serial}`;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#pending.delete(id);
        reject(new CommandError("no_answer", `The server did not answer within ${REPLY_TIMEOUT} seconds.`));
      }, REPLY_TIMEOUT * 1000);
      this.#pending.set(id, { resolve, reject, timer });
      this.#transmit(JSON.stringify({ ...message, id }));
    });
  }

  #transmit(text) {
    this.#socket.send(text);
    this.#emit("frame", { direction: "out", text });
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  #become(state, detail = {}) {
    this.state = state;
    this.#emit("state", { state, ...detail });
  }

  #connect() {
    clearTimeout(this.#retryTimer);
    const socket = new WebSocket(this.#url);
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code, reason }) => this.#ended(code, reason);
    this.#socket = socket;
    this.#farewell = null;
    this.#silenceLimit = CONNECT_TIMEOUT;
    this.#watch();
    this.#become("connecting");
  }

  // Any frame proves the link; silence is the only sign of one that is half open, where no close event ever comes.
  #watch() {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => {
      this.#ended(null, `nothing heard for ${Math.round(this.#silenceLimit)} seconds`);
    }, this.#silenceLimit * 1000);
  }

  #hurry() {
    if (this.state === "waiting" && Date.now() >= this.#notBefore) this.#connect();
  }

  #release() {
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#watchdog);
    const socket = this.#socket;
    this.#socket = null;
    this.connectionId = null;
    if (socket) {
      socket.onmessage = socket.onclose = null;
      socket.close(1000);
    }
    for (const { reject, timer } of this.#pending.values()) {
      clearTimeout(timer);
      reject(new CommandError("disconnected", "The connection ended before the server answered."));
    }
    this.#pending.clear();
  }

  #ended(code, reason) {
    const said = this.#farewell;
    const unopened = this.state === "open" ? "" : "no connection could be opened";
    if (this.state === "open" && performance.now() - this.#openedAt >= GOOD_AFTER * 1000) this.#attempt = 0;
    this.#release();
    const why = { code: said?.code ?? code, reason: said?.reason || reason || unopened };
    // What the server said in words counts more than what its close code means in general.
    if (said ? said.reconnect === false : FINAL_CODES.has(code)) {
      this.#become("closed", why);
      return;
    }
    const least = Number.isFinite(said?.retry_after) ? Math.max(0, said.retry_after) * 1000 : 0;
    const delay = least + backoff(this.#attempt++) * 1000;
    this.#notBefore = Date.now() + least;
    this.#retryTimer = setTimeout(() => this.#connect(), delay);
    this.#become("waiting", { ...why, retryAt: Date.now() + delay });
  }

  #receive(data) {
    this.#watch();
    if (typeof data !== "string") {
      this.#emit("frame", { direction: "in", text: `binary frame, ${data.byteLength} bytes` });
      return;
    }
    this.#emit("frame", { direction: "in", text: data });
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      return;
    }
    if (typeof message?.type !== "string" || this.#settle(message) || this.#repeats(message)) return;
    if (message.type === "connected") this.#welcome(message);
    else if (message.type === "disconnect") this.#farewell = message;
    this.#emit("message", message);
  }

  #settle({ type, id, data, code, message }) {
    if (type !== "response" && type !== "error") return false;
    const asked = this.#pending.get(id);
    if (!asked) return type === "response";
    this.#pending.delete(id);
    clearTimeout(asked.timer);
    if (type === "response") asked.resolve(data ?? {});
    else asked.reject(new CommandError(code ?? "error", message ?? "The server refused."));
    return true;
  }

  // A replay may overlap what was heard already. What is heard moves the position before anybody is told of it.
  #repeats({ type, channel, meta }) {
    const joined = this.#channels.get(channel);
    if (!joined || !Number.isInteger(meta?.offset) || PRESENCE_TYPES.has(type)) return false;
    const { epoch, offset } = meta;
    if (joined.heard?.epoch === epoch && offset <= joined.heard.offset) return true;
    joined.heard = { epoch, offset };
    if (joined.since?.epoch !== epoch || offset > joined.since.offset) joined.since = { epoch, offset };
    return false;
  }

  #welcome({ connection_id: connectionId, user_id: userId, heartbeat_interval: interval }) {
    this.connectionId = connectionId;
    this.userId = userId ?? null;
    if (interval > 0) this.#silenceLimit = 2.5 * interval;
    this.#openedAt = performance.now();
    this.#watch();
    // The joins go out first: whatever the listeners ask for, they ask as a member.
    this.state = "open";
    for (const [channel, { since }] of this.#channels) this.#join(channel, { again: since !== null });
    this.#become("open");
  }

  async #join(channel, { again }) {
    const joined = this.#channels.get(channel);
    const { since } = joined;
    try {
      const data = await this.command("join_channel", since ? { channel, since } : { channel });
      if (this.#channels.get(channel) !== joined) return;
      // Recovered: the position moves with each replayed message, so a loss in the middle of a replay costs nothing.
      if (data.recovered !== true && Number.isInteger(data.offset)) {
        joined.since = { epoch: data.epoch, offset: data.offset };
      }
      this.#emit("joined", { channel, data, again });
    } catch (error) {
      if (error.code === "disconnected" || this.#channels.get(channel) !== joined) return;
      this.#channels.delete(channel);
      this.#emit("refused", { channel, error });
    }
  }
}
