// What was asked of the server, each with an id of its own, and has not been answered yet.

import { encodeFrame } from "./binary-frames.js";
import { random } from "./random.js";

/**
 * An error that the server answered with, or why there was no answer: `code` in snake_case, `message` for people,
 * `retryAfter` in seconds, or null, where another try may succeed after that.
 */
export class CommandError extends Error {
  constructor(code, message, retryAfter = null) {
    super(message);
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

const REPLY_TIMEOUT = 10;

export class Requests {
  #transmit;
  // id -> {resolve, reject, timer, payload, sent, repeated}; `payload`, a text or what a binary frame carries, only of a
  // publication, which may have to be sent again;
  // `sent` once it was sent, `repeated` once it was sent on another connection too.
  #pending = new Map();
  #serial = 0;
  // An id makes a publication idempotent for the user, who may have other tabs and may reload: it must not be reused.
  #prefix = random(2);

  /** `transmit` is called with each payload that is to be sent. */
  constructor(transmit) {
    this.#transmit = transmit;
  }

  /**
   * Ask something; resolves to the `data` of the response, rejects with a CommandError. `now`: whether it can be sent, or
   * else waits for `resume`; `again`: whether it is sent again after a loss; `patient`: without a limit of time; `data`:
   * the bytes of a message that is a file.
   */
  ask(message, { now = true, again = false, patient = false, data = null } = {}) {
    const id = `${this.#prefix}-${++this.#serial}`;
    const asked = { ...message, id };
    const payload = data === null ? JSON.stringify(asked) : encodeFrame(asked, data);
    return new Promise((resolve, reject) => {
      const timer = patient || !now ? 0 : this.#overdue(id);
      this.#pending.set(id, { resolve, reject, timer, payload: again ? payload : null, sent: now, repeated: false });
      if (now) this.#transmit(payload);
    });
  }

  /** Take a message; returns whether it was an answer, which is for nobody else. */
  settle({ type, id, data, code, message, retry_after: retryAfter }) {
    if (type !== "response" && type !== "error") return false;
    const asked = this.#pending.get(id);
    if (!asked) return type === "response";
    this.#pending.delete(id);
    clearTimeout(asked.timer);
    if (type === "response") asked.resolve(data ?? {});
    else if (asked.repeated) {
      // What is refused is this sending; the one before may have been published.
      asked.reject(new CommandError("connection_lost", "The connection was lost before the server answered."));
    } else asked.reject(new CommandError(code ?? "error", message ?? "The server refused.", retryAfter ?? null));
    return true;
  }

  /** Take note of a loss: only publications wait for the next connection. */
  suspend() {
    for (const [id, { timer, payload }] of [...this.#pending]) {
      clearTimeout(timer);
      if (payload === null) this.#reject(id, "disconnected", "The connection ended before the server answered.");
    }
  }

  /**
   * Send what was not acknowledged on an earlier connection, before anything that is published on this one, if the server
   * is `known` to know what it has got.
   */
  resume(known) {
    for (const [id, asked] of this.#pending) {
      if (asked.payload === null) continue;
      if (known) {
        asked.timer = this.#overdue(id);
        // A signal that was kept while there was no connection has not been sent before.
        asked.repeated = asked.sent;
        asked.sent = true;
        this.#transmit(asked.payload);
      } else {
        this.#reject(id, "connection_lost", "The connection was lost before the server answered.");
      }
    }
  }

  giveUp() {
    for (const id of [...this.#pending.keys()]) {
      this.#reject(id, "disconnected", "The connection ended before the server answered.");
    }
  }

  #overdue(id) {
    return setTimeout(() => {
      const { reject } = this.#pending.get(id);
      this.#pending.delete(id);
      reject(new CommandError("no_answer", `The server did not answer within ${REPLY_TIMEOUT} seconds.`));
    }, REPLY_TIMEOUT * 1000);
  }

  #reject(id, code, message) {
    const { reject, timer } = this.#pending.get(id);
    clearTimeout(timer);
    this.#pending.delete(id);
    reject(new CommandError(code, message));
  }
}
