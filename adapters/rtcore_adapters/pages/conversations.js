// The conversations, one for each channel and one for all that has no channel, and the messages in them.

import { avatar, bound, element, readable, timeElement } from "./dom.js";
import { releaseRemoved } from "./file-view.js";

/** The conversation of what has no channel: echoes, messages between users, broadcasts. */
export const DIRECT = "";

const LIMIT = 500;
const GROUP_WITHIN = 3 * 60 * 1000;

/** Events: "select" and "leave", with the channel as `detail`. */
export class Conversations extends EventTarget {
  selected = DIRECT;

  #tabs;
  #messages;
  // channel -> {tab, badge, unread, last}: last is {sender, at} of the newest message, for grouping.
  #open = new Map();
  #follows = true;

  constructor({ tabs, messages }) {
    super();
    this.#tabs = tabs;
    this.#messages = messages;
    releaseRemoved(messages);
    // A picture has its height once it is there. Who reads the newest messages goes on to see them.
    messages.addEventListener("scroll", () => (this.#follows = this.#isAtEnd));
    for (const name of ["load", "loadedmetadata"]) {
      messages.addEventListener(name, () => this.#follows && this.#scrollToEnd(), { capture: true });
    }
    document.addEventListener("visibilitychange", () => document.hidden || this.#read(this.selected));
  }

  has(channel) {
    return this.#open.has(channel);
  }

  /** Open a conversation; does nothing if it is open. */
  add(channel) {
    if (this.#open.has(channel)) return;
    const label = channel === DIRECT ? "Direct" : channel;
    const badge = element("span", { class: "badge", hidden: true });
    const select = element(
      "button",
      { type: "button", class: "tab-name", "data-testid": "tab", "data-channel": channel },
      element("span", { class: "tab-mark", "aria-hidden": "true" }, channel === DIRECT ? "@" : "#"),
      element("span", { class: "tab-label" }, label),
      badge,
    );
    select.addEventListener("click", () => this.select(channel));
    const tab = element("li", { class: "tab", "data-joined": channel === DIRECT ? "true" : "false" }, select);
    if (channel !== DIRECT) {
      const leave = element(
        "button",
        { type: "button", class: "quiet icon", "data-testid": "leave", "data-channel": channel, "aria-label": `Leave ${label}` },
        "×",
      );
      leave.addEventListener("click", () => this.#emit("leave", channel));
      tab.append(leave);
    }
    this.#tabs.append(tab);
    this.#open.set(channel, { tab, select, badge, unread: 0, last: null });
  }

  /** Close a conversation and forget its messages. */
  remove(channel) {
    const conversation = this.#open.get(channel);
    if (!conversation) return;
    conversation.tab.remove();
    this.#open.delete(channel);
    for (const item of [...this.#messages.children]) if (item.dataset.channel === channel) item.remove();
    if (this.selected === channel) this.select([...this.#open.keys()].at(-1) ?? DIRECT);
    this.#showUnread();
  }

  /** Mark whether the server has us in the channel at the moment. */
  setJoined(channel, joined) {
    const conversation = this.#open.get(channel);
    if (!conversation) return;
    conversation.tab.dataset.joined = String(joined);
    if (joined) this.#setLeft(conversation, false);
  }

  /** Mark that the server has taken us out of the channel, and that we shall not join it again by ourselves. */
  setLeft(channel) {
    const conversation = this.#open.get(channel);
    if (!conversation) return;
    conversation.tab.dataset.joined = "false";
    this.#setLeft(conversation, true);
  }

  #setLeft({ tab, select }, left) {
    tab.toggleAttribute("data-left", left);
    if (left) select.title = "You are not in this channel any more";
    else select.removeAttribute("title");
  }

  select(channel) {
    this.selected = channel;
    for (const [name, { select }] of this.#open) {
      if (name === channel) select.setAttribute("aria-current", "true");
      else select.removeAttribute("aria-current");
    }
    for (const item of this.#messages.children) item.hidden = item.dataset.channel !== channel;
    this.#scrollToEnd();
    this.#read(channel);
    this.#open.get(channel)?.tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    this.#emit("select", channel);
  }

  /**
   * Add a message: {sender, own, label, body, at, type, unread}; `label` says how it came, where that is not by the
   * channel, `body` may be an element, and `unread` whether it is news.
   */
  say(channel, { sender, own, label = "", body, at, type, unread = true }) {
    const conversation = this.#open.get(channel);
    const { last } = conversation;
    const follows = last !== null && last.sender === sender && last.label === label && at - last.at < GROUP_WITHIN;
    conversation.last = { sender, label, at };
    const head = element("header", { class: "message-head" }, element("span", { class: "sender" }, own ? `${sender} (you)` : sender));
    if (label) head.append(element("span", { class: "tag" }, label));
    head.append(timeElement(at));
    const isShown = typeof body === "string" || body instanceof Element;
    const content = element("div", { class: isShown ? "body" : "body json" }, isShown ? body : readable(body));
    const item = element(
      "li",
      { class: "message", "data-channel": channel, "data-own": own, "data-type": type, "data-follows": follows },
      avatar(sender),
      element("div", { class: "bubble" }, head, content),
    );
    this.#append(channel, item);
    if (unread && !own && (channel !== this.selected || document.hidden)) {
      conversation.unread += 1;
      this.#showUnread();
    }
  }

  /** Add a line that is nobody's message: who came and went, what was recovered. */
  notice(channel, text) {
    const conversation = this.#open.get(channel);
    if (!conversation) return;
    conversation.last = null;
    this.#append(channel, element("li", { class: "notice", "data-channel": channel }, text));
  }

  #append(channel, item) {
    const list = this.#messages;
    const follow = this.#isAtEnd || "own" in item.dataset;
    item.hidden = channel !== this.selected;
    list.append(item);
    bound(list, LIMIT);
    if (follow && !item.hidden) this.#scrollToEnd();
  }

  get #isAtEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.#messages;
    return scrollHeight - scrollTop - clientHeight < 80;
  }

  #scrollToEnd() {
    this.#messages.scrollTop = this.#messages.scrollHeight;
    this.#follows = true;
  }

  #read(channel) {
    const conversation = this.#open.get(channel);
    if (conversation) conversation.unread = 0;
    this.#showUnread();
  }

  #showUnread() {
    let total = 0;
    for (const { badge, unread } of this.#open.values()) {
      total += unread;
      badge.hidden = unread === 0;
      badge.textContent = unread > 99 ? "99+" : String(unread);
      badge.setAttribute("aria-label", `${unread} unread`);
    }
    document.title = document.title.replace(/^\(\d+\) /, "");
    if (total) document.title = `(${total}) ${document.title}`;
  }

  #emit(name, channel) {
    this.dispatchEvent(new CustomEvent(name, { detail: channel }));
  }
}
