// Who is in each channel.

import { avatar, displayName, element } from "./dom.js";

// Several connections of one user are one member; the anonymous are told apart by their connections.
const keyOf = ({ user_id: userId, connection_id: connectionId }) =>
  userId === null || userId === undefined ? `connection ${connectionId}` : `user ${userId}`;

/** The members of all channels, and the list that shows those of the selected one. */
export class Members {
  #list;
  #heading;
  #note;
  #isMe;
  #onPick;
  // channel -> {count, members: Map | null, note}: null where the channel is too large to be listed.
  #rosters = new Map();
  #selected = null;

  /** `isMe` tells whether a member is this page; `onPick` is called with the user id of a member that is chosen. */
  constructor({ list, heading, note, isMe, onPick }) {
    this.#list = list;
    this.#heading = heading;
    this.#note = note;
    this.#isMe = isMe;
    this.#onPick = onPick;
  }

  /** Replace the roster of `channel` by what a `presence` command or a join answered. */
  set(channel, { count, users }) {
    const members = Array.isArray(users) ? new Map(users.map((member) => [keyOf(member), member])) : null;
    this.#rosters.set(channel, { count: count ?? members?.size ?? 0, members });
    this.#show(channel);
  }

  /** Take note of why we are not told who is in `channel`. */
  refuse(channel, note) {
    this.#rosters.set(channel, { count: 0, members: new Map(), note });
    this.#show(channel);
  }

  /** Returns whether `member` is new to the channel. */
  enter(channel, member) {
    const roster = this.#rosters.get(channel);
    if (!roster || roster.members?.has(keyOf(member))) return false;
    roster.count += 1;
    roster.members?.set(keyOf(member), member);
    this.#show(channel);
    return true;
  }

  /** Returns whether `member` was in the channel. */
  exit(channel, member) {
    const roster = this.#rosters.get(channel);
    if (!roster || (roster.members && !roster.members.delete(keyOf(member)))) return false;
    roster.count = Math.max(0, roster.count - 1);
    this.#show(channel);
    return true;
  }

  forget(channel) {
    this.#rosters.delete(channel);
    this.#show(channel);
  }

  clear() {
    this.#rosters.clear();
    this.#show(this.#selected);
  }

  select(channel) {
    this.#selected = channel;
    this.#show(channel);
  }

  #show(channel) {
    if (channel !== this.#selected) return;
    const { count, members, note } = this.#rosters.get(channel) ?? { count: 0, members: new Map() };
    this.#heading.textContent = String(count);
    this.#note.textContent = note ?? (members ? "" : "Too many to list here.");
    this.#note.hidden = !this.#note.textContent;
    const sorted = [...(members?.values() ?? [])].sort(
      (a, b) => this.#isMe(b) - this.#isMe(a) || displayName(a).localeCompare(displayName(b)),
    );
    this.#list.replaceChildren(...sorted.map((member) => this.#item(member)));
  }

  #item(member) {
    const name = displayName(member);
    const me = this.#isMe(member);
    const content = [avatar(name), element("span", { class: "member-name" }, name)];
    if (me) content.push(element("span", { class: "tag" }, "you"));
    const anonymous = member.user_id === null || member.user_id === undefined;
    if (me || anonymous) {
      return element("li", { "data-me": me, title: member.connection_id }, element("span", { class: "member" }, ...content));
    }
    const button = element("button", { type: "button", class: "member", title: `Write to ${name}` }, ...content);
    button.addEventListener("click", () => this.#onPick(String(member.user_id)));
    return element("li", {}, button);
  }
}
