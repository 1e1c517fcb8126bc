// What proves to the server who we are: a token, a function that tokens are had from, an API key, or nothing.

/** Nothing of it is in an error, nor in what it shows of itself. */
export class Credentials {
  #token;
  #apiKey;
  // The last token that the function has returned, and what it is about to.
  #last = null;
  #asking = null;

  /** `token`: a text, or an async function that returns a fresh one; `apiKey`: a text. One of them, or neither. */
  constructor({ token = "", apiKey = "" } = {}) {
    this.#token = token;
    this.#apiKey = apiKey;
  }

  /** Whether there are fresh tokens. */
  get refreshes() {
    return typeof this.#token === "function";
  }

  /** A token, a fresh one where there are such. The function is never called twice at a time. */
  fresh() {
    if (!this.refreshes) return this.#token;
    this.#asking ??= this.#ask().finally(() => (this.#asking = null));
    return this.#asking;
  }

  /**
   * What the query of a WebSocket or an EventSource says, with a fresh token: a list of [name, value].
   *
   * A page can give neither of them a header. An EventSource has nothing else than its address to say it by. A WebSocket
   * could say it in its first message, but only where the server waits for that: where it takes in those without a
   * credential too, it has welcomed us as nobody before we have said a word. The query is right for both. Over TLS nobody
   * on the way can read it, nor on loopback, and a page's own requests are in no history and in no Referer; but it may
   * be in the log of a proxy, so tokens that do not live for long are better than keys.
   */
  async query() {
    return this.#apiKey ? [["api_key", this.#apiKey]] : [["token", await this.fresh()]];
  }

  /** As `fetch` does, saying who we are; once more with a fresh token where the last one is not accepted. */
  async fetch(url, init = {}) {
    const ask = async (how) => fetch(url, { ...init, headers: { ...init.headers, ...(await this.headers(how)) } });
    const response = await ask();
    return response.status === 401 && this.refreshes ? ask({ fresh: true }) : response;
  }

  /** The headers of a request that say who we are; `fresh`: with a fresh token, as the last one is not accepted. */
  async headers({ fresh = false } = {}) {
    if (this.#apiKey) return { "X-API-Key": this.#apiKey };
    const token = await this.#recent(fresh);
    return token ? { Authorization: `Bearer ${token}` } : {};
  }

  /** A URL for what can have no headers, such as an img or a player, as a text; `fresh` as for `headers`. */
  async address(url, { fresh = false } = {}) {
    const address = new URL(url);
    const [name, value] = this.#apiKey ? ["api_key", this.#apiKey] : ["token", await this.#recent(fresh)];
    if (value) address.searchParams.set(name, value);
    return address.href;
  }

  async #recent(fresh) {
    if (fresh) this.#last = null;
    return this.#last ?? (await this.fresh());
  }

  async #ask() {
    const ask = this.#token;
    let token;
    try {
      token = await ask();
    } catch {
      // What it says is not passed on, for who knows what is in it.
    }
    if (typeof token !== "string" || !token) throw new Error("No token could be had.");
    this.#last = token;
    return token;
  }
}

/** The text of a frame without the credential in it, for people to see. */
export function withoutCredential(text) {
  if (!/"(?:refresh_token|authenticate)"/.test(text)) return text;
  return text.replace(/("(?:token|api_key)"\s*:\s*)"(?:[^"\\]|\\.)*"/g, '$1"…"');
}
