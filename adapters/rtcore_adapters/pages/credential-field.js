// The field of a token or an API key. What is in it is in no log, no storage and no address, and is gone with the page.

import { byId } from "./dom.js";

// Seconds before its end in which a token is warned of, or half of its life.
const WARNING = 60;

// What is behind the # is not sent to the server, but it would be in the history, and in what people copy.
function takeFromAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const [token, apiKey] = [given.get("token"), given.get("api_key")];
  if (token === null && apiKey === null) return null;
  history.replaceState(null, "", `${location.pathname}${location.search}`);
  return token !== null ? { token } : { apiKey };
}

/** Events: "use", with {token} or {apiKey} as `detail`: what is in the field is to take the place of what is used. */
export class CredentialField extends EventTarget {
  #input = byId("credential");
  #kind = byId("credential-kind");
  #show = byId("credential-show");
  #use = byId("credential-use");
  #note = byId("credential-note");
  #state = "closed";
  // What is used at the moment, since when and until when that was good, and what more there is to say.
  #used = {};
  #from = null;
  #until = null;
  #trouble = "";

  constructor() {
    super();
    this.#take();
    addEventListener("hashchange", () => this.#take());
    this.#input.addEventListener("input", () => this.#offer());
    this.#kind.addEventListener("change", () => this.#offer());
    this.#show.addEventListener("click", () => this.#reveal(this.#input.type === "password"));
    this.#use.addEventListener("click", () => this.#emit());
    this.#input.addEventListener("keydown", (event) => {
      // Otherwise it would press the button of the form, which disconnects.
      if (event.key !== "Enter" || this.#state === "closed") return;
      event.preventDefault();
      if (!this.#use.hidden) this.#emit();
    });
    setInterval(() => this.#tick(), 1000);
  }

  /** Whether there is something in it. */
  get filled() {
    return this.#input.value.trim() !== "";
  }

  /**
   * What to come with: {token} or {apiKey}, or {} for nothing. Where nothing was entered, and a script has put a function
   * that returns tokens into `window.rtcoreToken`, that.
   */
  get given() {
    const text = this.#input.value.trim();
    if (text) return { [this.#kind.value]: text };
    return typeof window.rtcoreToken === "function" ? { token: window.rtcoreToken } : {};
  }

  /** What was given for the present connection, or the last one. */
  get used() {
    return this.#used;
  }

  /** Take note of what is used from now on. */
  begin(used) {
    this.#used = used;
    this.#offer();
  }

  /** Take note of the state of the connection, and whether it ended since we are not known. */
  showState(state, { refused = false } = {}) {
    this.#state = state;
    if (state !== "open") this.#until = null;
    if (refused) this.#input.setAttribute("aria-invalid", "true");
    else if (state === "open") this.#input.removeAttribute("aria-invalid");
    this.#offer();
  }

  /** Take note of when what is used ends, in Date.now() milliseconds, or null. */
  expires(at) {
    this.#from = Date.now();
    this.#until = at;
    this.#trouble = "";
    this.#offer();
  }

  /** Take note that there is no other token yet. */
  notRenewed({ message }) {
    this.#trouble = `The token could not be renewed yet, and it is tried again. ${message}`;
    this.#tick();
  }

  #take() {
    const found = takeFromAddress();
    if (!found) return;
    const [[kind, text]] = Object.entries(found);
    this.#kind.value = kind;
    this.#input.value = text;
    this.#reveal(false);
    this.#offer();
  }

  #reveal(shown) {
    this.#input.type = shown ? "text" : "password";
    this.#show.setAttribute("aria-pressed", String(shown));
    this.#show.textContent = shown ? "Hide" : "Show";
  }

  #emit() {
    this.dispatchEvent(new CustomEvent("use", { detail: this.given }));
  }

  #offer() {
    const { token, apiKey } = this.given;
    const other = this.filled && (token !== this.#used.token || apiKey !== this.#used.apiKey);
    // While connected only a token of the same user can take the place of one.
    const fits = this.#state !== "open" || (token !== undefined && this.#used.token !== undefined);
    this.#use.hidden = this.#state === "closed" || !other || !fits;
    this.#tick();
  }

  #tick() {
    const left = this.#until === null ? null : Math.max(0, Math.ceil((this.#until - Date.now()) / 1000));
    byId("access").textContent = this.#state === "open" ? describe(this.#used, left) : "–";
    const half = this.#until === null ? 0 : (this.#until - this.#from) / 2000;
    const ends = left !== null && typeof this.#used.token === "string" && left <= Math.min(WARNING, half);
    const text = ends
      ? "Your token is about to end, and the connection with it. Enter another one, and choose “Use it”."
      : this.#trouble;
    if (this.#note.textContent !== text) this.#note.textContent = text;
    this.#note.hidden = !text || this.#state !== "open";
  }
}

function describe({ token, apiKey }, left) {
  if (apiKey) return "API key";
  if (!token) return "without a token";
  return left === null ? "token" : `token, ${span(left)} left`;
}

function span(seconds) {
  if (seconds < 100) return `${seconds} s`;
  if (seconds < 100 * 60) return `${Math.round(seconds / 60)} min`;
  return seconds < 48 * 3600 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
}
