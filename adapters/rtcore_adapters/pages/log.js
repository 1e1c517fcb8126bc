// A log of what came and went: bounded, with a filter and a pause, each row unfolding into indented JSON.

import { bound, byId, element, pretty, timeElement } from "./dom.js";

const LIMIT = 500;
const PREVIEW = 400;

/**
 * `name` is the id of the list; its controls are `{name}-filter`, `{name}-pause`, `{name}-clear`, `{name}-count`,
 * and `{name}-empty` is shown while there is nothing in it.
 */
export class Log {
  #list;
  #filter;
  #pause;
  #count;
  #empty;
  #held = [];
  #total = 0;

  constructor(name) {
    this.#list = byId(name);
    this.#filter = byId(`${name}-filter`);
    this.#pause = byId(`${name}-pause`);
    this.#count = byId(`${name}-count`);
    this.#empty = byId(`${name}-empty`);
    this.#filter.addEventListener("input", () => this.#applyFilter());
    this.#pause.addEventListener("click", () => this.#setPaused(!this.#paused));
    byId(`${name}-clear`).addEventListener("click", () => this.clear());
  }

  /**
   * Add a row: `attributes` for the list item, `badges` (elements) between the time and the text, `text` unfolded on
   * demand, `search` for what the filter looks at beside the text, `view` a function that returns an element to be shown
   * below it, or null.
   */
  add({ attributes, badges, text, search = "", view = null }) {
    this.#total += 1;
    const row = { attributes, badges, text, search, view, at: Date.now() };
    if (this.#paused) {
      this.#held.push(row);
      if (this.#held.length > LIMIT) this.#held.shift();
    } else {
      this.#append(row);
    }
    this.#describe();
  }

  clear() {
    this.#list.replaceChildren();
    this.#held = [];
    this.#total = 0;
    this.#describe();
  }

  get #paused() {
    return this.#pause.getAttribute("aria-pressed") === "true";
  }

  #setPaused(paused) {
    this.#pause.setAttribute("aria-pressed", String(paused));
    if (!paused) {
      for (const row of this.#held) this.#append(row);
      this.#held = [];
    }
    this.#describe();
  }

  #append({ attributes, badges, text, search, view, at }) {
    const preview = element("code", { class: "preview" }, text.length > PREVIEW ? `${text.slice(0, PREVIEW)}…` : text);
    const details = element("details", {}, element("summary", {}, timeElement(at, { exact: true }), ...badges, preview));
    details.addEventListener("toggle", () => {
      if (details.open && !details.querySelector("pre")) {
        details.append(element("pre", { tabindex: "0" }, pretty(text)));
      }
      // What the last rows unfold into would be below the edge of the list.
      if (details.open) details.scrollIntoView({ block: "nearest" });
    });
    const item = element("li", attributes, details);
    if (view) item.append(view());
    item.searched = `${search} ${text}`.toLowerCase();
    item.hidden = !this.#matches(item);
    const follow = this.#list.scrollHeight - this.#list.scrollTop - this.#list.clientHeight < 40;
    this.#list.append(item);
    bound(this.#list, LIMIT);
    if (follow) this.#list.scrollTop = this.#list.scrollHeight;
  }

  // Words that must all be there; one that begins with a minus sign must not.
  #matches({ searched }) {
    const words = this.#filter.value.toLowerCase().split(/\s+/).filter((word) => word && word !== "-");
    return words.every((word) => (word.startsWith("-") ? !searched.includes(word.slice(1)) : searched.includes(word)));
  }

  #applyFilter() {
    for (const item of this.#list.children) item.hidden = !this.#matches(item);
    this.#list.scrollTop = this.#list.scrollHeight;
  }

  #describe() {
    const held = this.#held.length;
    this.#count.textContent = held ? `${held} waiting` : String(this.#total);
    this.#pause.textContent = this.#paused ? "Resume" : "Pause";
    this.#empty.hidden = this.#list.childElementCount > 0;
  }
}
