// One Server-Sent Events stream: an EventSource, and what the browser leaves to the page once it has given up.

import { backoff, endpoint } from "./rtcore.js";

// EventSource tells only of names that were asked for. These are the server's own.
const SERVER_EVENTS = [
  "connected", "heartbeat", "notification", "binary_data", "user_joined", "user_left", "gap", "system", "disconnect",
  "webrtc_signal", "error",
];

/**
 * States: "closed" -> "connecting" -> "open" -> "waiting" -> "open" … -> "closed".
 *
 * Events (CustomEvent, with `detail`):
 * - "state": {state, reason, retryAt}. `retryAt`, in Date.now() milliseconds, only where the page and not the browser
 *   decides when to try again.
 * - "event": {name, id, data}.
 */
export class EventStream extends EventTarget {
  state = "closed";
  lastEventId = "";
  retries = 0;

  #names = new Set(["message", ...SERVER_EVENTS]);
  #query = [];
  #source = null;
  #probe = null;
  #retryTimer = 0;
  #attempt = 0;

  /** Listen for a further event name, now and in every later stream. */
  listen(name) {
    if (this.#names.has(name)) return;
    this.#names.add(name);
    if (this.#source) this.#attach(this.#source, name);
  }

  /** Open a stream and keep it. `query` is a list of [name, value]: channel and user_id. */
  open(query = []) {
    if (this.state !== "closed") return;
    this.#query = query;
    this.#attempt = 0;
    this.lastEventId = "";
    this.retries = 0;
    this.#connect();
  }

  close() {
    if (this.state === "closed") return;
    this.#release();
    this.#become("closed");
  }

  #connect() {
    // A new EventSource sends no Last-Event-ID header; the query says the same.
    const source = new EventSource(endpoint("events", [...this.#query, ["last_event_id", this.lastEventId]]));
    this.#source = source;
    source.addEventListener("open", (event) => {
      if (event instanceof MessageEvent) return;
      this.#attempt = 0;
      this.#become("open");
    });
    for (const name of this.#names) this.#attach(source, name);
    this.#become("connecting");
  }

  // The browser's own "error" event and one that the server named so arrive by the same way; "open" likewise.
  #attach(source, name) {
    source.addEventListener(name, (event) => {
      if (event instanceof MessageEvent) this.#heard(event);
      else if (name === "error") this.#failed(source);
    });
  }

  #heard({ type, lastEventId, data }) {
    this.lastEventId = lastEventId;
    this.dispatchEvent(new CustomEvent("event", { detail: { name: type, id: lastEventId, data } }));
  }

  #failed(source) {
    if (source !== this.#source) return;
    this.retries += 1;
    // HTML, 9.2.3: after a status other than 200, "fail the connection": the browser does not try again.
    if (source.readyState === EventSource.CLOSED) this.#ask();
    else this.#become("waiting", { reason: "The stream ended; the browser connects again by itself." });
  }

  // EventSource does not say why it failed, but the same request made by fetch does.
  async #ask() {
    this.#release();
    const probe = new AbortController();
    this.#probe = probe;
    this.#become("waiting", { reason: "The stream was refused; asking why." });
    let refusal = { reason: "The server cannot be reached.", final: false, retryAfter: 0 };
    try {
      const headers = { Accept: "text/event-stream" };
      const response = await fetch(endpoint("events", this.#query), { headers, cache: "no-store", signal: probe.signal });
      refusal = await explain(response);
    } catch {
      // Unreachable, as it says already; or closed meanwhile, which the next line sees.
    }
    if (this.#probe !== probe) return;
    this.#release();
    if (refusal.final) {
      this.#become("closed", { reason: refusal.reason });
      return;
    }
    const delay = (refusal.retryAfter + backoff(this.#attempt++)) * 1000;
    this.#retryTimer = setTimeout(() => this.#connect(), delay);
    this.#become("waiting", { reason: refusal.reason, retryAt: Date.now() + delay });
  }

  #release() {
    clearTimeout(this.#retryTimer);
    this.#source?.close();
    this.#source = null;
    this.#probe?.abort();
    this.#probe = null;
  }

  #become(state, detail = {}) {
    this.state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: { state, ...detail } }));
  }
}

async function explain(response) {
  if (response.ok) return { reason: "The stream ended.", final: false, retryAfter: 0 };
  const { code, message } = await errorOf(response);
  const { status } = response;
  return {
    reason: `The server answered ${status}: ${message} (${code})`,
    // Nothing that this page does by itself can mend a request that is wrong; a full or broken server may recover.
    final: status < 500 && status !== 429 && status !== 408,
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
