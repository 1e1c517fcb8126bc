// When a fresh token is due, before the one of a connection has expired. The rules are those of rtcore.client.

// Seconds before its end; of a token that lives for less than twice as long, in the middle.
const MARGIN = 30;
const BACKOFF = { base: 0.5, cap: 30 };
// Browsers count up to 2^31 milliseconds, and of anything longer they make nothing at all.
const LONGEST = 2_000_000;

export class TokenRefresh {
  #due;
  #timer = 0;
  #expires = false;
  #failures = 0;

  /** `due` is called once each time that a fresh token is wanted; then `accepted` or `failed` must follow. */
  constructor(due) {
    this.#due = due;
  }

  /** Take note that the server has accepted a token, for so many seconds, or for good where that is undefined. */
  accepted(expiresIn) {
    this.clear();
    if (!Number.isFinite(expiresIn)) return;
    this.#expires = true;
    // What tokens are had from may give the same one again and again until it expires: each time half as long would be
    // no time at all in the end.
    this.#wait(Math.max(expiresIn - MARGIN, expiresIn / 2, BACKOFF.base));
  }

  /** Take note that there was no fresh token, or that the server did not accept it. */
  failed(retryAfter = 0) {
    if (this.#expires) this.#wait(Math.max(retryAfter, Math.min(BACKOFF.cap, BACKOFF.base * 2 ** this.#failures++)));
  }

  /** Forget the token, with its connection. */
  clear() {
    clearTimeout(this.#timer);
    this.#expires = false;
    this.#failures = 0;
  }

  #wait(seconds) {
    clearTimeout(this.#timer);
    const now = Math.min(seconds, LONGEST);
    this.#timer = setTimeout(() => (now < seconds ? this.#wait(seconds - now) : this.#due()), now * 1000);
  }
}
