// One Server-Sent Events stream: an EventSource, and what the browser leaves to the page once it has given up.

import { Credentials } from "./credentials.js";
import { endpoint } from "./endpoints.js";
import { Reconnection } from "./reconnection.js";
import { TokenRefresh } from "./token-refresh.js";

// EventSource tells only of names that were asked for. These are the server's own.
const SERVER_EVENTS = [
  "connected", "heartbeat", "notification", "binary_data", "user_joined", "user_left", "gap", "unsubscribed", "system",
  "disconnect", "webrtc_signal", "error",
];

// What the server tells of the stream itself.
const HOUSEKEEPING = new Set(["connected", "unsubscribed", "disconnect"]);

/**
 * States: "closed" -> "connecting" -> "open" -> "waiting" -> "open" … -> "closed".
 *
 * Events (CustomEvent, with `detail`):
 * - "state": {state, code, reason, retryAt}. `code` is the server's close code, or its status where it refused the stream.
 *   `retryAt`, in Date.now() milliseconds, only where the page and not the browser decides when to try again.
 * - "event": {name, id, data}.
 * - "expires": {at}, when what we came with ends, in Date.now() milliseconds, or null for never; with each stream.
 *   "not-renewed": {error}, why there is no other token yet.
 */
export class EventStream extends EventTarget {
  state = "closed";
  lastEventId = "";
  retries = 0;

  #names = new Set(["message", ...SERVER_EVENTS]);
  #query = [];
  #credentials = new Credentials();
  #refresh = new TokenRefresh(() => this.#renewInTime());
  #reconnection = new Reconnection();
  #source = null;
  // What there is of it, as long as it has not been given up.
  #attempt = null;
  #farewell = null;
  // Whether the stream's own address asks for channels that have ended for us.
  #isStale = false;
  #probe = null;
  #retryTimer = 0;

  /** Listen for a further event name, now and in every later stream. */
  listen(name) {
    if (this.#names.has(name)) return;
    this.#names.add(name);
    if (this.#source) this.#attach(this.#source, name);
  }

  /**
   * Open a stream and keep it. `query` is a list of [name, value]: channel and user_id. `given` says who we are, as to
   * `Connection.open`. If the server has ended a stream like this one, it goes on after what was heard.
   */
  open(query = [], given = {}) {
    if (this.state !== "closed") return;
    if (JSON.stringify(query) !== JSON.stringify(this.#query)) this.lastEventId = "";
    this.#query = query;
    this.#credentials = new Credentials(given);
    this.#reconnection.begin();
    this.retries = 0;
    this.#connect();
  }

  /** Go on with another credential, `given` as to `open`: in another stream, after what was heard in this one. */
  renew(given) {
    if (this.state === "closed") return;
    this.#credentials = new Credentials(given);
    this.#reconnection.begin();
    this.#release();
    this.#connect();
  }

  /** End the stream for good; the next one begins anew. */
  close() {
    if (this.state === "closed") return;
    this.#release();
    this.lastEventId = "";
    this.#become("closed");
  }

  /** What proves to the server who we are, for requests beside this stream. */
  get credentials() {
    return this.#credentials;
  }

  async #connect() {
    const attempt = (this.#attempt = Symbol());
    this.#become("connecting");
    let credential;
    try {
      credential = await this.#credentials.query();
    } catch ({ message }) {
      if (this.#attempt === attempt) this.#again(null, { reason: message });
      return;
    }
    if (this.#attempt === attempt) this.#start(credential);
  }

  #start(credential) {
    this.#source?.close();
    this.#farewell = null;
    this.#isStale = false;
    // A new EventSource sends no Last-Event-ID header; the query says the same.
    const resume = ["last_event_id", this.lastEventId];
    const source = new EventSource(endpoint("events", [...this.#query, ...credential, resume]));
    this.#source = source;
    source.addEventListener("open", (event) => {
      if (!(event instanceof MessageEvent)) this.#become("open");
    });
    for (const name of this.#names) this.#attach(source, name);
  }

  // The token of a stream cannot be replaced, but another stream goes on after what was heard in this one: nothing is
  // missing, nothing comes twice, and for the others we were never away.
  async #renewInTime() {
    const attempt = this.#attempt;
    try {
      const credential = await this.#credentials.query();
      if (this.#attempt === attempt) this.#start(credential);
    } catch (error) {
      if (this.#attempt !== attempt) return;
      this.#refresh.failed();
      this.#emit("not-renewed", { error });
    }
  }

  // The browser's own "error" event and one that the server named so arrive by the same way; "open" likewise.
  #attach(source, name) {
    source.addEventListener(name, (event) => {
      if (source !== this.#source) return;
      if (event instanceof MessageEvent) this.#heard(event);
      else if (name === "error") this.#failed(source);
    });
  }

  #heard({ type, lastEventId, data }) {
    this.lastEventId = lastEventId;
    if (HOUSEKEEPING.has(type)) this.#takeNote(type, messageOf(data));
    this.#emit("event", { name: type, id: lastEventId, data });
  }

  #takeNote(name, message) {
    if (name === "connected") {
      this.#reconnection.begin();
      const { expires_in: expiresIn } = message;
      this.#refresh.accepted(this.#credentials.refreshes ? expiresIn : undefined);
      this.#emit("expires", { at: Number.isFinite(expiresIn) ? Date.now() + expiresIn * 1000 : null });
    } else if (name === "unsubscribed") {
      this.#query = this.#query.filter(([key, value]) => key !== "channel" || value !== message.channel);
      this.#isStale = true;
    } else {
      this.#refresh.clear();
      this.#farewell = message;
    }
  }

  #failed(source) {
    this.retries += 1;
    const { code, reason, reconnect } = this.#farewell ?? {};
    // The browser knows nothing of what was said: it would come again, and again with the same address.
    if (reconnect === false || this.#isStale) this.#again(code, { reconnect, reason: reason || "The stream ended." });
    // HTML, 9.2.3: after a status other than 200, "fail the connection": the browser does not try again.
    else if (source.readyState === EventSource.CLOSED) this.#ask();
    else this.#become("waiting", { reason: "The stream ended; the browser connects again by itself." });
  }

  // EventSource does not say why it failed, but the same request made by fetch does.
  async #ask() {
    this.#release();
    const probe = new AbortController();
    this.#probe = probe;
    this.#become("waiting", { reason: "The stream was refused; asking why." });
    let refusal = { reason: "The server cannot be reached.", reconnect: true, retryAfter: 0 };
    try {
      const headers = { Accept: "text/event-stream" };
      const init = { headers, cache: "no-store", signal: probe.signal };
      refusal = await explain(await this.#credentials.fetch(endpoint("events", this.#query), init));
    } catch {
      // Unreachable, as it says already; or closed meanwhile, which the next line sees.
    }
    if (this.#probe === probe) this.#again(refusal.code, refusal);
  }

  #again(code, { reason, reconnect, retryAfter }) {
    this.#release();
    const { refreshes } = this.#credentials;
    const next = this.#reconnection.lost(code, { reconnect, retryAfter, refreshes });
    if (next === null) {
      this.#become("closed", { code, reason });
      return;
    }
    this.#retryTimer = setTimeout(() => this.#connect(), next.delay * 1000);
    this.#become("waiting", { code, reason, retryAt: Date.now() + next.delay * 1000 });
  }

  #release() {
    clearTimeout(this.#retryTimer);
    this.#refresh.clear();
    this.#attempt = null;
    this.#source?.close();
    this.#source = null;
    this.#probe?.abort();
    this.#probe = null;
  }

  #become(state, detail = {}) {
    this.state = state;
    this.#emit("state", { state, ...detail });
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** The object in the data of an event, or an empty one. */
export function messageOf(data) {
  try {
    const message = JSON.parse(data);
    return message !== null && typeof message === "object" ? message : {};
  } catch {
    return {};
  }
}

async function explain(response) {
  if (response.ok) return { reason: "The stream ended.", reconnect: true };
  const { code, message } = await errorOf(response);
  const { status } = response;
  return {
    code: status,
    reason: `The server answered ${status}: ${message} (${code})`,
    // Nothing that this page does by itself can mend a request that is wrong; a full or broken server may recover.
    reconnect: status >= 500 || status === 429 || status === 408,
    retryAfter: Number(response.headers.get("Retry-After")) || 0,
  };
}

/** The {code, message} of a reply that is an error, whoever wrote it: the server, or a proxy on the way. */
export async function errorOf(response) {
  try {
    const { error } = await response.json();
    return { code: error.code, message: error.message };
  } catch {
    return { code: "http_error", message: response.statusText || "no explanation" };
  }
}
