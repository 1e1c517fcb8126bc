// One WebSocket connection to an rtcore server: commands and publications with their answers, reconnection with full
// jitter, and channels and WebRTC rooms that are joined again, from where they were left, after every reconnection. What
// others publish is heard once and in order, or else there is a `gap`; what this client publishes is published once.

import { decodeFrame } from "./binary-frames.js";
import { Credentials, withoutCredential } from "./credentials.js";
import { socketEndpoint } from "./endpoints.js";
import { Hearing, Positions } from "./positions.js";
import { random } from "./random.js";
import { pause, Reconnection } from "./reconnection.js";
import { CommandError, Requests } from "./requests.js";
import { TokenRefresh } from "./token-refresh.js";

const CONNECT_TIMEOUT = 15;
// What a peer hears of its room is a stream like a channel's; no channel that anybody may join is called so.
const ROOM = "$room:";
const isRoom = (channel) => channel.startsWith(ROOM);
const targetOf = (channel) => (isRoom(channel) ? { room_id: channel.slice(ROOM.length) } : { channel });

/**
 * States: "closed" -> "connecting" -> "open" -> "waiting" -> "connecting" … -> "closed".
 *
 * Events (CustomEvent, with `detail`):
 * - "state": {state, code, reason, retryAt}. `retryAt`, in Date.now() milliseconds, only while waiting.
 * - "frame": {direction: "in" | "out", text, size}, everything on the wire but tokens and keys; `size` in bytes of a
 *   binary frame, of which `text` is the head.
 * - "message": every message that is not the answer to a command or publication of ours. What a channel publishes comes
 *   once, in order; where something is missing, a message of type "gap" comes first. A file is a message of type "binary"
 *   with its bytes in `data`, or, where it is large, with a `url`: see files.js. After one of type "unsubscribed"
 *   this client is in its channel no more, and does not join it again.
 * - "history": {channel, publications}: what was said last before a channel is joined for the first time; or
 *   "history-refused": {channel, error}.
 * - "joined": {channel, data, again}, the answer to a join; `again` after a reconnection.
 * - "refused": {channel, error, again}: the server does not let us in, and it is not tried again.
 * - "room": {roomId, data, again}, the answer to a join of a room: the first one, each later one, with `again` after a
 *   reconnection, and one more where something was missed. What peers say and do in the room comes as "message".
 * - "room-refused": {roomId, error}.
 * - "expires": {at}, when what this client came with ends, in Date.now() milliseconds, or null for never; after each
 *   welcome, and again once it was renewed. "not-renewed": {error}, why there is no other token yet.
 */
export class Connection extends EventTarget {
  state = "closed";
  connectionId = null;
  userId = null;

  #query = [];
  #socket = null;
  #farewell = null;
  #credentials = new Credentials();
  #refresh = new TokenRefresh(() => this.#renewInTime());
  #reconnection = new Reconnection();
  // What there is of it, as long as it has not been given up.
  #attempt = null;
  #openedAt = 0;
  #retryTimer = 0;
  #notBefore = 0;
  #watchdog = 0;
  #silenceLimit = CONNECT_TIMEOUT;
  // channel -> {joining, data, history, shown}: whether the answer to a join is to come, what goes with each join, how much
  // of its history is wanted, and which of that has been told; in the order of joining. Rooms are among them.
  #channels = new Map();
  #positions = new Positions();
  #hearing = new Hearing();
  #requests = new Requests((payload) => this.#transmit(payload));
  // By this the server knows this client again, and what it has got of it.
  #session = random(5);
  #sessionEpoch = null;

  constructor() {
    super();
    addEventListener("online", () => this.#hurry());
    addEventListener("offline", () => {
      // Nothing else would tell for a while: no packet that could have been answered with an error is on its way.
      if (this.state === "connecting" || this.state === "open") this.#ended(null, "the browser is offline");
    });
    document.addEventListener("visibilitychange", () => document.hidden || this.#hurry());
  }

  get channels() {
    return [...this.#channels.keys()].filter((channel) => !isRoom(channel));
  }

  /**
   * Connect, and stay connected until `close`. `query` is a list of [name, value]: such as user_id. `given` says who we
   * are: {token}, a text or an async function that returns a fresh one, which is asked before each attempt, and again
   * before that token ends; or {apiKey}.
   */
  open(query = [], given = {}) {
    if (this.state !== "closed") return;
    this.#query = query;
    this.#credentials = new Credentials(given);
    this.#reconnection.begin();
    this.#connect();
  }

  /**
   * Go on with another credential, `given` as to `open`. While connected that is another token of the same user, and
   * where the server refuses it, which rejects, everything is as before; while connecting or waiting, anything.
   */
  async renew(given) {
    if (this.state === "closed") throw new CommandError("not_connected", "There is no connection to renew.");
    if (this.state === "open") {
      if (typeof given.token !== "string") throw new CommandError("not_renewable", "Only a token can take the place of another.");
      const expiresIn = await this.#show(given.token);
      this.#credentials = new Credentials(given);
      this.#accepted(expiresIn);
      return;
    }
    this.#credentials = new Credentials(given);
    this.#reconnection.begin();
    this.#release();
    this.#connect();
  }

  /** What proves to the server who we are, for requests beside this connection. */
  get credentials() {
    return this.#credentials;
  }

  /** As `fetch` does, saying who we are. */
  fetch(url, init) {
    return this.#credentials.fetch(url, init);
  }

  /** Disconnect for good. The channels are kept and joined again by the next `open`. */
  close() {
    if (this.state === "closed") return;
    this.#release();
    this.#requests.giveUp();
    this.#become("closed", { code: null, reason: "" });
  }

  /** While waiting: do not wait any longer. */
  retry() {
    if (this.state === "waiting") this.#connect();
  }

  /** Join `channel` now if connected, and after every reconnection; `history`: tell what was said last, so many. */
  join(channel, { history = 0 } = {}) {
    this.#enter(channel, {}, history);
  }

  leave(channel) {
    this.#depart(channel, "leave_channel");
  }

  /**
   * Be a peer in a WebRTC room, which is made if there is none, now if connected and after every reconnection; `peerId`:
   * as whom, made up if left out; `metadata`: what the others are told. The answers come as "room", or "room-refused".
   */
  joinRoom(roomId, { peerId, metadata = {} } = {}) {
    const instance = random(4);
    this.#enter(`${ROOM}${roomId}`, { peer_id: peerId ?? instance, instance, metadata }, 0);
  }

  leaveRoom(roomId) {
    this.#depart(`${ROOM}${roomId}`, "leave_room");
  }

  /** All rooms. */
  async rooms() {
    return (await this.command("get_rooms")).rooms;
  }

  /**
   * Say something to another peer in a room; resolves and rejects as `publish` does. While there is no connection it is
   * kept: the next one carries it, after the rooms were joined again, if the server knows what it has got.
   */
  sendSignal(signal) {
    return this.#ask({ ...signal, type: "webrtc_signal" }, { again: true, keep: this.state !== "closed" });
  }

  #enter(channel, data, history) {
    if (this.#channels.has(channel)) return;
    const joined = { joining: false, data: { ...targetOf(channel), ...data }, history, shown: new Set() };
    this.#channels.set(channel, joined);
    if (this.state === "open") this.#join(channel);
  }

  #depart(channel, command) {
    this.#positions.forget(channel);
    if (this.#channels.delete(channel) && this.state === "open") this.#leave(channel, command);
  }

  async #leave(channel, command) {
    const { connectionId } = this;
    // It is forgotten on this side; whatever ends the connection makes the server forget it too.
    while (this.state === "open" && this.connectionId === connectionId && !this.#channels.has(channel)) {
      try {
        await this.command(command, targetOf(channel));
        return;
      } catch ({ retryAfter }) {
        if (retryAfter === null) return;
        await pause(retryAfter);
      }
    }
  }

  /** Run a command; resolves to the `data` of its response, rejects with a CommandError. */
  command(name, data = {}) {
    return this.#ask({ type: "command", command: name, data });
  }

  /**
   * Publish an object with a `channel` or a `recipient_id`; resolves to {channel, offset, epoch}. After a loss it is sent
   * again if the server knows what it has got; if not, it is rejected with "connection_lost", and may have been published.
   * A file that fits in one message, of type "binary", is its `data`, an ArrayBuffer or a view of one.
   */
  publish(message, data = null) {
    return this.#ask(message, { again: true, data });
  }

  /**
   * Send a frame as it is: a text, or the payload of a binary frame, a Uint8Array. Returns whether there was a connection
   * to send it on.
   */
  send(payload) {
    if (this.state !== "open") return false;
    this.#transmit(payload);
    return true;
  }

  #ask(message, { keep = false, ...how } = {}) {
    const open = this.state === "open";
    if (!open && !keep) {
      return Promise.reject(new CommandError("not_connected", "There is no connection at the moment."));
    }
    return this.#requests.ask(message, { now: open, ...how });
  }

  #transmit(payload) {
    this.#socket.send(payload);
    if (typeof payload === "string") this.#emit("frame", { direction: "out", text: withoutCredential(payload) });
    else this.#emit("frame", { direction: "out", text: decodeFrame(payload.buffer).text, size: payload.byteLength });
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  #become(state, detail = {}) {
    this.state = state;
    this.#emit("state", { state, ...detail });
  }

  async #connect() {
    clearTimeout(this.#retryTimer);
    const attempt = (this.#attempt = Symbol());
    this.#farewell = null;
    this.#silenceLimit = CONNECT_TIMEOUT;
    this.#watch();
    this.#become("connecting");
    let credential;
    try {
      credential = await this.#credentials.query();
    } catch ({ message }) {
      if (this.#attempt === attempt) this.#ended(null, message);
      return;
    }
    if (this.#attempt !== attempt) return;
    const resume = [["session", this.#session], ["last_event_id", this.#hearing.token]];
    const socket = new WebSocket(socketEndpoint("ws", [...this.#query, ...credential, ...resume]));
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code, reason }) => this.#ended(code, reason);
    this.#socket = socket;
  }

  async #renewInTime() {
    const attempt = this.#attempt;
    try {
      const token = await this.#credentials.fresh();
      if (this.#attempt === attempt) this.#accepted(await this.#show(token));
    } catch (error) {
      if (this.#attempt !== attempt) return;
      this.#refresh.failed(error.retryAfter ?? 0);
      this.#emit("not-renewed", { error });
    }
  }

  // Returns for how many seconds it is good.
  async #show(token) {
    return (await this.command("refresh_token", { token })).expires_in;
  }

  #accepted(expiresIn) {
    this.#refresh.accepted(this.#credentials.refreshes ? expiresIn : undefined);
    this.#emit("expires", { at: Number.isFinite(expiresIn) ? Date.now() + expiresIn * 1000 : null });
  }

  // Any frame proves the link; silence is the only sign of one that is half open, where no close event ever comes.
  #watch() {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => {
      this.#ended(null, `nothing heard for ${Math.round(this.#silenceLimit)} seconds`);
    }, this.#silenceLimit * 1000);
  }

  #hurry() {
    if (this.state === "waiting" && Date.now() >= this.#notBefore) this.#connect();
  }

  #release() {
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#watchdog);
    this.#refresh.clear();
    this.#attempt = null;
    const socket = this.#socket;
    this.#socket = null;
    this.connectionId = null;
    if (socket) {
      socket.onmessage = socket.onclose = null;
      socket.close(1000);
    }
    for (const joined of this.#channels.values()) joined.joining = false;
    this.#requests.suspend();
  }

  #ended(code, reason) {
    const said = this.#farewell;
    const open = this.state === "open";
    const unopened = open ? "" : "no connection could be opened";
    const stood = open ? (performance.now() - this.#openedAt) / 1000 : 0;
    this.#release();
    const why = { code: said?.code ?? code, reason: said?.reason || reason || unopened };
    const { reconnect, retry_after: retryAfter } = said ?? {};
    const { refreshes } = this.#credentials;
    const next = this.#reconnection.lost(why.code, { reconnect, retryAfter, stood, refreshes });
    if (next === null) {
      this.#requests.giveUp();
      this.#become("closed", why);
      return;
    }
    this.#notBefore = Date.now() + next.least * 1000;
    this.#retryTimer = setTimeout(() => this.#connect(), next.delay * 1000);
    this.#become("waiting", { ...why, retryAt: Date.now() + next.delay * 1000 });
  }

  #receive(data) {
    this.#watch();
    let message;
    try {
      if (typeof data === "string") {
        this.#emit("frame", { direction: "in", text: data });
        message = JSON.parse(data);
      } else {
        const frame = decodeFrame(data);
        this.#emit("frame", { direction: "in", text: frame.text, size: data.byteLength });
        message = frame.message;
      }
    } catch {
      return;
    }
    if (typeof message?.type !== "string" || this.#requests.settle(message)) return;
    if (message.type === "connected") {
      this.#welcome(message);
      this.#emit("message", message);
      for (const gap of message.gaps ?? []) this.#emit("message", { ...gap, type: "gap" });
      return;
    }
    if (message.type === "disconnect") {
      this.#farewell = message;
      // The server wants nothing more, and a fresh token the least of all.
      this.#refresh.clear();
    } else if (message.type === "unsubscribed") this.#removed(message.channel);
    else if (message.type === "gap") this.#positions.interrupted(message);
    const position = this.#positions.of(message);
    // The positions move before anybody is told: a loss at this very moment must not bring the message again.
    const isNew = !position || this.#isNew(position, message.meta.offset);
    this.#hearing.hear(message, { joined: position !== undefined });
    if (isNew) this.#emit("message", message);
  }

  #removed(channel) {
    // A first join that the server has not answered stands on its own.
    if (this.#channels.get(channel)?.joining && this.#positions.since(channel) === null) return;
    this.#channels.delete(channel);
    this.#positions.forget(channel);
  }

  #isNew(position, offset) {
    const { channel, stream, epoch } = position;
    const verdict = position.hear(offset);
    if (verdict !== "early") return verdict === "new" && !this.#channels.get(channel)?.shown.delete(`${epoch} ${offset}`);
    if (position.askedAt !== position.offset) {
      // Have what is missing replayed; until then, what comes of that stream is left to the replay.
      position.recovering = true;
      position.askedAt = position.offset;
      this.#join(channel);
      return false;
    }
    // That was in vain.
    position.skipTo(offset - 1);
    position.hear(offset);
    const gap = { type: "gap", channel, ...(stream && { stream }), epoch, offset: offset - 1, reason: "history_lost" };
    this.#emit("message", gap);
    return true;
  }

  #welcome({ connection_id: connectionId, user_id: userId, heartbeat_interval: interval, ...message }) {
    this.connectionId = connectionId;
    this.userId = userId ?? null;
    if (interval > 0) this.#silenceLimit = 2.5 * interval;
    this.#openedAt = performance.now();
    this.#reconnection.welcomed();
    this.#watch();
    this.#hearing.welcome(message.last_event_id);
    this.#positions.begin();
    // Not whether it knows the session at all: it may do so from an attempt whose welcome was lost.
    const known = this.#sessionEpoch !== null && message.session_epoch === this.#sessionEpoch;
    this.#sessionEpoch = message.session_epoch ?? null;
    // The joins go out first: whatever the listeners ask for, they ask as a member.
    this.state = "open";
    for (const channel of this.#channels.keys()) this.#join(channel, { again: true });
    this.#requests.resume(known);
    this.#become("open");
    this.#accepted(message.expires_in);
  }

  async #join(channel, { again = false } = {}) {
    const joined = this.#channels.get(channel);
    if (joined.joining) return;
    joined.joining = true;
    const { room_id: roomId } = joined.data;
    try {
      const heard = this.#positions.since(channel);
      const since = heard ?? (await this.#recall(channel, joined));
      if (this.#channels.get(channel) !== joined) return;
      // Without a time limit for a member who comes back: where a crowd does, after a restart, the server answers late.
      const command = roomId === undefined ? "join_channel" : "join_room";
      const data = await this.#ask(
        { type: "command", command, data: since ? { ...joined.data, since } : joined.data },
        { patient: heard !== null },
      );
      if (this.#channels.get(channel) !== joined) return;
      joined.joining = false;
      this.#positions.joined(channel, data, since);
      const came = { data, again: again && heard !== null };
      if (roomId === undefined) this.#emit("joined", { channel, ...came });
      else this.#emit("room", { roomId, ...came });
    } catch (error) {
      if (error.code === "disconnected" || this.#channels.get(channel) !== joined) return;
      if (error.retryAfter !== null && this.#positions.since(channel) !== null) {
        // A member who comes back is let in later.
        const { connectionId } = this;
        await pause(error.retryAfter);
        if (this.connectionId !== connectionId || this.#channels.get(channel) !== joined) return;
        joined.joining = false;
        this.#join(channel, { again });
        return;
      }
      const was = this.#positions.since(channel) !== null;
      this.#channels.delete(channel);
      this.#positions.forget(channel);
      if (roomId === undefined) this.#emit("refused", { channel, error, again: was });
      else this.#emit("room-refused", { roomId, error });
    }
  }

  // Tell what was said last, and return where that ends: joining from there, nothing in between is missed.
  async #recall(channel, joined) {
    const limit = joined.history;
    if (!limit) return null;
    let page;
    try {
      page = await this.command("history", { channel, limit });
    } catch (error) {
      if (error.code === "disconnected") throw error;
      this.#emit("history-refused", { channel, error });
      return null;
    }
    const { epoch, offset, publications, more } = page;
    if (!offset || this.#channels.get(channel) !== joined) return null;
    joined.history = 0;
    for (const { meta } of publications) joined.shown.add(`${meta.epoch} ${meta.offset}`);
    this.#emit("history", { channel, publications });
    // What is kept for later joiners and is older still comes by joining.
    return more ? { epoch, offset, persistent: 0 } : { epoch, offset };
  }
}
