// The call in the page: a tile for everybody, buttons for what is sent, and the chat of the call.

import { Call } from "./call.js";
import { Devices } from "./devices.js";
import { avatar, bound, byId, element, timeElement } from "./dom.js";
import { FILE_PROTOCOL, receiveFile } from "./received-files.js";
import { toast } from "./toasts.js";

const STATES = {
  new: "Connecting…",
  connecting: "Connecting…",
  connected: "Connected",
  disconnected: "Reconnecting…",
  failed: "Reconnecting…",
  closed: "Reconnecting…",
};
const GONE = { left: "left", timeout: "did not come back", removed: "was taken out", replaced: "left" };
const LIMIT = 200;
const OWN = Symbol("the tile of oneself");

export class CallPanel {
  #devices = new Devices();
  #call;
  #connection;
  #name;
  #connect;
  #changed;
  // By peer id, or OWN: {item, video, name, state, tags}.
  #tiles = new Map();
  // Whether people want to be seen and heard, in this call or the next.
  #wanted = { camera: true, microphone: true };
  #most = null;
  // While cameras are asked for, it is not said yet that nothing can be heard: with them on, browsers allow it.
  #starting = false;
  #told = false;

  /** `name` tells what we are called, `connect` opens the connection, `changed` hears that `roomId` has changed. */
  constructor(connection, { name, connect, changed }) {
    this.#connection = connection;
    this.#name = name;
    this.#connect = connect;
    this.#changed = changed;
    const call = new Call(connection, this.#devices);
    this.#call = call;
    const hear = (type, heard) => call.addEventListener(type, ({ detail }) => heard(detail));
    hear("state", (detail) => this.#showState(detail));
    hear("room", (detail) => this.#showRoom(detail));
    hear("person", (person) => this.#showPerson(person));
    hear("came", ({ name: who }) => this.#note(`${who} is here`));
    hear("gone", ({ person, reason }) => this.#remove(person, reason));
    hear("text", ({ person, text }) => this.#write(person.name, text));
    hear("channel", ({ person, channel }) => this.#receiveFile(person, channel));
    this.#devices.addEventListener("change", () => this.#showOwn());

    byId("call-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const room = byId("call-room").value.trim();
      if (room) this.join(room);
    });
    byId("call-leave").addEventListener("click", () => {
      this.leave();
      byId("call-room").focus();
    });
    for (const device of ["camera", "microphone"]) {
      const button = byId(`call-${device}`);
      button.addEventListener("click", () => this.#switch(button, device, button.getAttribute("aria-pressed") !== "true"));
    }
    byId("call-screen").addEventListener("click", () => this.#share(this.#devices.screen === null));
    byId("call-screen").hidden = !navigator.mediaDevices?.getDisplayMedia;
    byId("call-composer").addEventListener("submit", (event) => {
      event.preventDefault();
      const text = byId("call-message").value.trim();
      if (!text || !this.#call.say(text)) return;
      byId("call-message").value = "";
      this.#write("you", text);
    });
    // Without a click some browsers let nothing be heard; any click will do.
    for (const type of ["pointerdown", "keydown"]) addEventListener(type, () => this.#unmute());
  }

  get roomId() {
    return this.#call.roomId;
  }

  /** Write the name of a room into its field. */
  offer(room) {
    byId("call-room").value = room;
  }

  async join(room) {
    if (this.#call.state !== "idle") return;
    this.#complain([]);
    if (this.#connection.state === "closed") this.#connect();
    const joining = this.#call.join(room, { name: this.#name() });
    const wanted = Object.keys(this.#wanted).filter((device) => this.#wanted[device]);
    this.#starting = true;
    const refusals = await this.#devices.start(wanted);
    this.#starting = false;
    this.#unmute();
    // Who has hung up meanwhile does not want to be filmed either.
    if (this.#call.roomId !== room) this.#devices.stop();
    else if (refusals.length) this.#complain([...refusals, "You still see, hear and write to the others."]);
    await joining;
  }

  leave() {
    this.#call.leave();
  }

  /** Take a message of the server; returns whether it was about rooms. */
  receive(message) {
    if (message.type === "room_updated" && message.room_id === this.#call.roomId) {
      this.#most = message.max_participants;
      this.#showAbout();
    }
    return this.#call.receive(message);
  }

  // ---- What we send ----

  async #switch(button, device, on) {
    // Not `disabled`, which takes the focus away; to give it back would take it from wherever people are by then.
    if (button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true");
    try {
      await this.#devices.set(device, on);
      this.#wanted[device] = on;
      this.#complain([]);
    } catch (error) {
      this.#complain([error.message]);
    }
    button.setAttribute("aria-disabled", "false");
    if (this.#call.roomId === null) this.#devices.stop();
  }

  async #share(on) {
    try {
      await this.#devices.share(on);
    } catch (error) {
      this.#complain([error.message]);
    }
    if (this.#call.roomId === null) this.#devices.stop();
  }

  // ---- What is shown ----

  #complain(lines) {
    byId("call-problem").textContent = lines.join(" ");
    byId("call-problem").hidden = !lines.length;
  }

  #showState({ state, reason }) {
    const idle = state === "idle";
    byId("call").dataset.state = state;
    byId("call-stage").hidden = idle;
    byId("call-form").hidden = !idle;
    if (idle) {
      this.#devices.stop();
      this.#tiles.clear();
      byId("call-people").replaceChildren();
      this.#complain(reason ? [reason] : []);
    } else if (state === "joining") {
      byId("call-log").replaceChildren();
      this.#most = null;
    }
    this.#showOwn();
    this.#changed();
  }

  #showRoom({ name, max_participants: most, names, again }) {
    this.#most = most;
    this.#showAbout();
    if (again) this.#note("Connected to the server again; the call went on");
    else this.#note(names.length ? `You are in ${name} with ${list(names)}` : `You are the first in ${name}`);
  }

  #showAbout() {
    const { state, roomId, people } = this.#call;
    const about = byId("call-about");
    if (state === "idle") about.textContent = "Enter a room, and see whoever else is in it.";
    else if (state === "joining") about.textContent = `Entering ${roomId}…`;
    else if (people.size) about.textContent = `${roomId}: ${people.size + 1} of ${this.#most}`;
    else about.textContent = `${roomId}: nobody else is here yet. Open this page in a second window, or send its address.`;
    const reached = [...people.values()].filter(({ chat }) => chat).length;
    byId("call-send").disabled = reached === 0;
    byId("call-reach").textContent =
      reached === people.size
        ? "Goes straight to the others, not through the server."
        : `Reaches ${reached} of ${people.size} at the moment.`;
  }

  #showOwn() {
    const sending = this.#devices.sending;
    byId("call-camera").setAttribute("aria-pressed", String(sending.camera));
    byId("call-microphone").setAttribute("aria-pressed", String(sending.microphone));
    byId("call-screen").setAttribute("aria-pressed", String(sending.screen));
    this.#showAbout();
    if (this.#call.roomId === null) return;
    const name = this.#connection.userId ?? (this.#name() || "You");
    const tile = this.#tile(OWN, `${name} (you)`);
    tile.item.dataset.mirrored = String(!sending.screen);
    const track = this.#devices.track("video");
    if (tile.track !== track) {
      tile.track = track;
      tile.video.srcObject = track && new MediaStream([track]);
    }
    this.#describe(tile, { state: "connected", label: "", shows: track !== null, media: sending });
  }

  #showPerson(person) {
    const { peerId, name, stream, state, media } = person;
    const tile = this.#tile(peerId, name);
    if (tile.video.srcObject !== stream) tile.video.srcObject = stream;
    this.#describe(tile, { state, label: STATES[state], shows: this.#shows(tile.video, person), media });
    this.#play(tile.video);
    this.#showAbout();
  }

  // What a track says of being muted is not to be relied on: in Chromium it may stay so though pictures come. But without
  // a picture of its own the element has no width.
  #shows(video, { stream, media }) {
    const live = stream.getVideoTracks().some(({ readyState }) => readyState === "live");
    return live && video.videoWidth > 0 && (media === null || media.camera || media.screen);
  }

  #describe(tile, { state, label, shows, media }) {
    tile.item.dataset.state = state;
    tile.item.dataset.shows = String(shows);
    if (tile.state.textContent !== label) tile.state.textContent = label;
    const tags = [];
    if (media && !media.microphone) tags.push("muted");
    if (media?.screen) tags.push("screen");
    else if (media && !media.camera) tags.push("camera off");
    if (tags.join() !== tile.tags.dataset.tags) {
      tile.tags.dataset.tags = tags.join();
      tile.tags.replaceChildren(...tags.map((tag) => element("span", { class: "tag" }, tag)));
    }
  }

  #tile(key, name) {
    const known = this.#tiles.get(key);
    if (known) {
      if (known.name.textContent !== name) known.name.textContent = name;
      return known;
    }
    const own = key === OWN;
    const video = element("video", { playsinline: true, autoplay: true, "aria-label": `Picture of ${name}` });
    // One's own voice is not to be heard.
    video.muted = own;
    video.addEventListener("resize", () => {
      const person = this.#call.people.get(key);
      if (person) this.#showPerson(person);
    });
    const parts = {
      video,
      name: element("span", { class: "tile-name" }, name),
      state: element("span", { class: "tile-state" }),
      tags: element("span", { class: "tile-tags" }),
    };
    const foot = element("div", { class: "tile-foot" }, parts.name, parts.tags, parts.state);
    const item = element("li", { class: "tile", "data-peer": own ? null : key, "data-own": own }, avatar(name), video, foot);
    byId("call-people").append(item);
    this.#tiles.set(key, { ...parts, item });
    return this.#tiles.get(key);
  }

  #remove(person, reason) {
    this.#tiles.get(person.peerId)?.item.remove();
    this.#tiles.delete(person.peerId);
    this.#note(`${person.name} ${GONE[reason] ?? "is gone"}`);
    this.#showAbout();
  }

  #play(video) {
    if (!video.paused) return;
    video.play().catch((error) => {
      if (error.name !== "NotAllowedError" || video.muted) return;
      video.muted = true;
      video.dataset.silenced = "";
      video.play().catch(() => {
        // Nothing has come yet, or it has ended already.
      });
      if (!this.#starting && !this.#told) {
        this.#told = true;
        toast({ title: "Your browser keeps the sound off", content: "Click anywhere to hear the others.", type: "warning" });
      }
    });
  }

  #unmute() {
    for (const { video } of this.#tiles.values()) {
      if (!("silenced" in video.dataset)) continue;
      video.muted = false;
      delete video.dataset.silenced;
      this.#play(video);
    }
  }

  // ---- The chat of the call ----

  #write(name, ...said) {
    const head = element("header", {}, element("span", { class: "sender" }, name), timeElement(Date.now()));
    this.#append(element("li", { class: "call-text" }, head, element("p", {}, ...said)));
  }

  async #receiveFile({ name: who }, channel) {
    if (channel.protocol !== FILE_PROTOCOL) return;
    try {
      const { name, blob } = await receiveFile(channel);
      const link = element("a", { href: URL.createObjectURL(blob), download: name }, name);
      const size = `${Math.ceil(blob.size / 1024).toLocaleString()} KB`;
      this.#write(who, link, ` (${size})`);
    } catch (error) {
      this.#note(`A file from ${who} did not arrive. ${error.message}`);
    }
  }

  #note(text) {
    this.#append(element("li", { class: "call-note" }, text));
  }

  #append(item) {
    const log = byId("call-log");
    log.append(item);
    bound(log, LIMIT);
    log.scrollTop = log.scrollHeight;
  }
}

function list(names) {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}
