// Whether a client tries again after a loss, and when. The rules are those of rtcore.client, the client in Python.

/**
 * Seconds to wait before attempt number `attempt` (from 0): anything up to a ceiling that doubles each time. Full jitter:
 * after a restart of the server its clients must not come back in step.
 */
export function backoff(attempt, { base = 1, cap = 30 } = {}) {
  return Math.random() * Math.min(cap, base * 2 ** Math.min(attempt, 16));
}

// Seconds to wait at least before the server is asked again for what it has refused for now.
const LEAST_WAIT = 0.5;
export const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, Math.max(LEAST_WAIT, seconds) * 1000));

/** The close code of a credential that was refused, has expired or was revoked. */
export const UNAUTHORIZED = 4401;

// After these a new connection ends the same way: the fault is in what this client is or says.
const FINAL_CODES = new Set([1000, 1002, 1003, 1007, 1008, 1009, 4400, UNAUTHORIZED, 4403]);
// A connection that lived this long counts as good, and the next back-off starts from the beginning.
const GOOD_AFTER = 5;

/** The attempts of a client since its last lasting connection. */
export class Reconnection {
  #attempts = 0;
  // Whether a token was refused, or had expired, since the last welcome.
  #unauthorized = false;

  /** Begin anew, as nothing has failed yet. */
  begin() {
    this.#attempts = 0;
    this.#unauthorized = false;
  }

  /** Take note that the server has welcomed the client, and so its token. */
  welcomed() {
    this.#unauthorized = false;
  }

  /**
   * Take note of a loss: `code` says why; `reconnect`, whether the server wants another attempt, where it has said so, and
   * `retryAfter`, in how many seconds; `stood`, for how many seconds the connection had; `refreshes`, whether there are
   * fresh tokens. Returns the seconds until the next attempt, and how many of them the server wants: {delay, least}; or
   * null if there is none.
   */
  lost(code, { reconnect, retryAfter, stood = 0, refreshes = false }) {
    if (stood >= GOOD_AFTER) this.#attempts = 0;
    // What the server said in words counts more than what its close code means in general.
    let again = reconnect ?? !FINAL_CODES.has(code);
    if (code === UNAUTHORIZED && refreshes) {
      // A fresh token may be better than the last one. If the next one is refused too, its age is not the reason.
      again ||= !this.#unauthorized;
      this.#unauthorized = true;
    }
    if (!again) return null;
    const least = Number.isFinite(retryAfter) ? Math.max(0, retryAfter) : 0;
    return { delay: least + backoff(this.#attempts++), least };
  }
}
