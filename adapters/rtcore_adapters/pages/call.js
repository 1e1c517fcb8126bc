// A call with all others in a WebRTC room: who is there, what they send, and a chat from peer to peer. It shows nothing.

import { displayName } from "./dom.js";
import { endpoint } from "./endpoints.js";
import { PeerConnections } from "./mesh.js";

const KINDS = ["audio", "video"];
const CHAT = "chat";
const MAX_TEXT = 4000;
// TURN credentials are good for an hour, unless the server is told otherwise.
const REFRESH_SERVERS_EVERY = 10 * 60;
const ROOM_TYPES = new Set(["peer_joined", "peer_left", "room_updated", "room_closed", "webrtc_signal"]);
// A tab has one name in its room. Only while it is not open does the name lie in the storage, which a copy of the tab
// would have too.
const STORED_AS = "rtcore.peer_id";

/**
 * States: "idle" -> "joining" -> "joined" -> "idle".
 *
 * Events (CustomEvent, with `detail`):
 * - "state": {state, reason}; `reason`, for people, where a call has ended otherwise than by `leave`.
 * - "room": {name, max_participants, names}, on joining; `names` are those of the others who are there.
 * - "person": a person who has come or changed: {peerId, name, stream, state, chat, media}. `state` is that of the
 *   connection: "new", "connecting", "connected", "disconnected", "failed". `chat` tells whether messages reach them,
 *   `media` what they say that they send: {microphone, camera, screen}, or null.
 * - "came": a person who has come since; "gone": {person, reason}.
 * - "text": {person, text}.
 * - "channel": {person, channel}, a data channel that they have opened for something else than the chat.
 */
export class Call extends EventTarget {
  state = "idle";
  roomId = null;
  people = new Map();

  #connection;
  #devices;
  #peers = null;
  // What the server says of the others, by peer id; and why those left who did last.
  #described = new Map();
  #reasons = new Map();
  #peerId = takeName();
  #metadata = {};
  #welcoming = false;
  #refresh = 0;
  // It groups what is sent, so that lips and voices stay together.
  #stream = new MediaStream();

  constructor(connection, devices) {
    super();
    this.#connection = connection;
    this.#devices = devices;
    connection.addEventListener("room", ({ detail }) => this.#entered(detail));
    connection.addEventListener("room-refused", ({ detail }) => this.#refused(detail));
    connection.addEventListener("state", ({ detail: { state } }) => {
      if (state === "closed" && this.roomId !== null) this.#end("The call ended with the connection to the server.");
    });
    devices.addEventListener("change", () => this.#sendAll());
    addEventListener("pagehide", () => {
      // The others see at once that nobody is here, and who is back after a reload has the same name.
      keepName(this.#peerId);
      this.leave();
    });
    addEventListener("pageshow", ({ persisted }) => persisted && takeName());
  }

  /** The name of this tab in its room, or null. */
  get peerId() {
    return this.#peerId;
  }

  /** The RTCPeerConnection to each of the others, by peer id. */
  get connections() {
    return this.#peers?.connections ?? new Map();
  }

  /** Enter a room; `name` is what others call us where the server knows no user. */
  async join(roomId, { name = "" } = {}) {
    if (this.state !== "idle") return;
    this.roomId = roomId;
    this.#become("joining");
    const configuration = await this.#configuration();
    if (this.roomId !== roomId) return;
    const peers = new PeerConnections(roomId, {
      configuration,
      send: (signal) => {
        this.#connection.sendSignal(signal).catch(() => {
          // It came too late to be of use, or was lost: with more than that, and then the room is joined anew, or
          // alone, without an answer in time, and then the negotiation makes good an offer that nobody answers.
        });
      },
      built: (peerId, connection) => this.#built(peerId, connection),
      closed: (peerId) => {
        // Another connection may take its place at once.
        queueMicrotask(() => this.#peers === peers && !peers.connections.has(peerId) && this.#part(peerId));
      },
    });
    this.#peers = peers;
    this.#refresh = setInterval(() => this.#configure(), REFRESH_SERVERS_EVERY * 1000);
    this.#metadata = name ? { name } : {};
    this.#enter();
  }

  #enter() {
    this.#connection.joinRoom(this.roomId, { peerId: this.#peerId ?? undefined, metadata: this.#metadata });
  }

  /** Hang up. */
  leave() {
    if (this.roomId === null) return;
    this.#connection.leaveRoom(this.roomId);
    this.#end();
  }

  /** Write to the others; returns how many of them it goes to. */
  say(text) {
    const message = JSON.stringify({ type: "chat", text: text.slice(0, MAX_TEXT) });
    const reached = [...this.people.values()].filter((person) => transmit(person, message));
    return reached.length;
  }

  /** Take a message of the server; returns whether it was about rooms. */
  receive(message) {
    const { type, room_id: roomId, peer_id: peerId } = message;
    if (!ROOM_TYPES.has(type)) return type === "gap" && String(message.channel).startsWith("$room:");
    if (roomId !== this.roomId || !this.#peers) return true;
    if (type === "peer_joined") {
      this.#described.set(peerId, message);
    } else if (type === "peer_left") {
      this.#reasons.set(peerId, message.reason);
    }
    this.#peers.receive(message);
    if (type === "room_closed") this.#dismiss("The room was closed.");
    else if (type === "peer_left" && peerId === this.#peerId) this.#dismiss(whyOut(message.reason));
    return true;
  }

  #entered({ roomId, data }) {
    if (roomId !== this.roomId || !this.#peers) return;
    const { name, max_participants: most, participants, peer_id: peerId } = data;
    this.#peerId = peerId;
    for (const each of participants) this.#described.set(each.peer_id, each);
    const first = this.state === "joining";
    this.#welcoming = first;
    this.#peers.join(data);
    this.#welcoming = false;
    if (first) this.#become("joined");
    else this.#configure();
    this.#emit("room", { name, max_participants: most, names: participants.map(nameOf), again: !first });
  }

  #refused({ roomId, error }) {
    if (roomId !== this.roomId || !this.#peers) return;
    if (error.code === "peer_id_taken" && this.#peerId) {
      // As after a crash, when the server waits for the tab that has crashed, whose secret is gone.
      this.#peerId = null;
      this.#enter();
      return;
    }
    this.#end(whyNot(error));
  }

  #dismiss(reason) {
    this.#connection.leaveRoom(this.roomId);
    this.#end(reason);
  }

  #end(reason = "") {
    clearInterval(this.#refresh);
    const peers = this.#peers;
    this.#peers = null;
    this.roomId = null;
    peers?.close();
    this.people.clear();
    this.#described.clear();
    this.#reasons.clear();
    this.#become("idle", reason);
  }

  #become(state, reason = "") {
    this.state = state;
    this.#emit("state", { state, reason });
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  // ---- The others ----

  #built(peerId, connection) {
    const known = this.people.get(peerId);
    const name = nameOf(this.#described.get(peerId) ?? { peer_id: peerId });
    const person = known ?? { peerId, media: null };
    Object.assign(person, { name, connection, senders: {}, stream: new MediaStream(), state: connection.connectionState });
    const changed = () => {
      // What has ended has still things to tell.
      if (person.connection === connection && this.people.get(peerId) === person) this.#emit("person", person);
    };
    connection.addEventListener("connectionstatechange", () => {
      person.state = connection.connectionState;
      changed();
    });
    connection.addEventListener("track", ({ track }) => {
      for (const other of person.stream.getTracks()) if (other.kind === track.kind) person.stream.removeTrack(other);
      person.stream.addTrack(track);
      track.addEventListener("ended", changed);
      changed();
    });
    connection.addEventListener("datachannel", ({ channel }) => {
      if (channel.label === CHAT) this.#listen(person, channel);
      else this.#emit("channel", { person, channel });
    });
    // Each side writes on a channel of its own: so none has to be the one that opens it.
    const channel = connection.createDataChannel(CHAT);
    Object.assign(person, { channel, chat: false });
    this.#listen(person, channel);
    for (const event of ["open", "close"]) {
      channel.addEventListener(event, () => {
        if (person.channel !== channel) return;
        person.chat = channel.readyState === "open";
        if (person.chat) transmit(person, this.#media());
        changed();
      });
    }
    this.people.set(peerId, person);
    for (const kind of KINDS) this.#send(person, kind);
    this.#emit("person", person);
    if (!known && !this.#welcoming) this.#emit("came", person);
  }

  #part(peerId) {
    const person = this.people.get(peerId);
    if (!person) return;
    this.people.delete(peerId);
    this.#emit("gone", { person, reason: this.#reasons.get(peerId) ?? "lost" });
    this.#reasons.delete(peerId);
  }

  #listen(person, channel) {
    channel.addEventListener("message", ({ data }) => {
      const message = typeof data === "string" ? parse(data) : null;
      if (message?.type === "media") {
        const { microphone, camera, screen } = message;
        person.media = { microphone: microphone === true, camera: camera === true, screen: screen === true };
        this.#emit("person", person);
      } else if (message?.type === "chat" && typeof message.text === "string") {
        this.#emit("text", { person, text: message.text.slice(0, MAX_TEXT) });
      }
    });
  }

  // ---- What we send ----

  #media() {
    return JSON.stringify({ type: "media", ...this.#devices.sending });
  }

  #sendAll() {
    for (const person of this.people.values()) {
      for (const kind of KINDS) this.#send(person, kind);
      transmit(person, this.#media());
    }
  }

  #send(person, kind) {
    const track = this.#devices.track(kind);
    const sender = person.senders[kind];
    if (sender) {
      // Takes the place of the other one without a word to the other side.
      sender.replaceTrack(track).catch(() => {
        // The connection was closed meanwhile, and the next one begins with what is sent then.
      });
    } else if (track) {
      person.senders[kind] = person.connection.addTrack(track, this.#stream);
    }
  }

  // ---- STUN and TURN ----

  async #configuration() {
    try {
      const response = await this.#connection.fetch(endpoint("webrtc/ice-servers"), { cache: "no-store" });
      const { ice_servers: iceServers } = await response.json();
      return Array.isArray(iceServers) ? { iceServers } : {};
    } catch {
      return {}; // without them, those in the same network still reach each other
    }
  }

  async #configure() {
    const peers = this.#peers;
    const configuration = await this.#configuration();
    if (configuration.iceServers && this.#peers === peers) peers?.configure(configuration);
  }
}

function transmit({ channel }, text) {
  if (channel.readyState !== "open") return false;
  channel.send(text);
  return true;
}

/** What is said on a chat; a text that is not one of our messages is just said, as by other programs. */
function parse(data) {
  try {
    const message = JSON.parse(data);
    if (typeof message?.type === "string") return message;
  } catch {
    // It is a text.
  }
  return { type: "chat", text: data };
}

function nameOf({ user_id: userId, peer_id: peerId, metadata }) {
  if (userId === null || userId === undefined) {
    const name = metadata?.name;
    if (typeof name === "string" && name.trim()) return name.trim().slice(0, 128);
  }
  return displayName({ user_id: userId, connection_id: peerId });
}

function takeName() {
  try {
    const name = sessionStorage.getItem(STORED_AS);
    sessionStorage.removeItem(STORED_AS);
    return name;
  } catch {
    return null; // there is no storage for pages that are not trusted with one
  }
}

function keepName(name) {
  try {
    if (name !== null) sessionStorage.setItem(STORED_AS, name);
  } catch {
    // Then whoever is back has another name.
  }
}

function whyNot({ code, message }) {
  if (code === "room_full") return "This room is full. Come back when somebody has left, or choose another room.";
  if (code === "webrtc_disabled") return "This server has calls switched off.";
  return `The server did not let you in: ${message}`;
}

function whyOut(reason) {
  if (reason === "replaced") return "This call goes on in another tab or window.";
  if (reason === "removed") return "You were taken out of the room.";
  return "You are not in the room any more.";
}
