// A peer that is connected to each other peer of its room. `Mesh` decides, by the rules of rtcore.signaling.mesh, the
// machine in Python. `PeerConnections` carries out what it decides, with the browser's RTCPeerConnection.

import { Negotiation, NEGOTIATION } from "./negotiation.js";

const MAX_FORMER = 256;

export class Mesh {
  #roomId;
  #entropy;
  #rollback;
  #peerTtl;
  #config;
  #serial = 0;
  #peerId = null;
  #instance = null;
  #inside = false;
  // By peer id: the negotiation, and until when the peer is waited for if it is not in the room, or null.
  #pairs = new Map();
  // The numbers of the last connections to peers that have left: the other side may still have its own.
  #former = new Map();

  /** `entropy` differs between any two meshes, past ones included; `peerTtl` is in seconds. */
  constructor(roomId, { entropy, rollback = true, peerTtl = 15, config = NEGOTIATION }) {
    this.#roomId = roomId;
    this.#entropy = entropy;
    this.#rollback = rollback;
    this.#peerTtl = peerTtl;
    this.#config = config;
  }

  get(peerId) {
    return this.#pairs.get(peerId)?.negotiation;
  }

  /** Take the answer to `join_room`: the first one, or one that goes on after a connection was lost. */
  join({ peer_id: peerId, instance, recovered, participants }, now) {
    if (typeof peerId !== "string" || typeof instance !== "string") return [];
    const effects = [];
    if (this.#peerId !== peerId || this.#instance !== instance) {
      // To the others this is somebody new, and they build their connections anew.
      effects.push(...this.close());
      this.#peerId = peerId;
      this.#instance = instance;
      this.#former.clear();
    } else if (recovered === true && this.#inside) {
      return [];
    }
    this.#inside = true;
    for (const pair of this.#pairs.values()) pair.missingBy ??= now + this.#peerTtl;
    for (const participant of Array.isArray(participants) ? participants : []) {
      effects.push(...this.#meet(participant, true));
    }
    return effects;
  }

  /** Take a message of the room. */
  receive(message, now) {
    if (message.room_id !== undefined && message.room_id !== this.#roomId) return [];
    const { type, peer_id: peerId, instance } = message;
    const pair = typeof peerId === "string" ? this.#pairs.get(peerId) : undefined;
    switch (type) {
      case "webrtc_signal":
        return pair ? said(pair, pair.negotiation.receive(message)) : [];
      case "peer_joined":
        return this.#meet(message, message.rejoined === true);
      case "peer_left":
        if (typeof peerId !== "string" || typeof instance !== "string") return [];
        if (peerId === this.#peerId && instance === this.#instance) return this.close();
        return pair?.negotiation.instance === instance ? this.#part(peerId) : [];
      case "room_closed":
        return this.close();
    }
    return [];
  }

  /** Take what the connection to a peer reports. */
  handle(peerId, event, now) {
    const pair = this.#pairs.get(peerId);
    if (!pair) return [];
    const failed = event.name === "IceStateChanged" && (event.state === "failed" || event.state === "closed");
    if (pair.missingBy !== null && failed && event.build === pair.negotiation.build) return this.#part(peerId);
    return said(pair, pair.negotiation.handle(event, now));
  }

  /** End all connections; the mesh may join again. */
  close() {
    this.#inside = false;
    return [...this.#pairs.keys()].flatMap((peerId) => this.#part(peerId));
  }

  /** When `handleTimeout` has something to do, or null. */
  nextTimeout() {
    const pairs = [...this.#pairs.values()];
    const times = pairs.flatMap(({ missingBy, negotiation }) => [missingBy, negotiation.nextTimeout()]);
    const due = times.filter((time) => time !== null);
    return due.length ? Math.min(...due) : null;
  }

  handleTimeout(now) {
    return [...this.#pairs].flatMap(([peerId, pair]) => {
      if (pair.missingBy !== null && pair.missingBy <= now) return this.#part(peerId);
      return said(pair, pair.negotiation.handleTimeout(now));
    });
  }

  /** Connect to a peer, or go on with it if it is known. */
  #meet(participant, rejoined) {
    const { peer_id: peerId, instance, polite } = participant ?? {};
    if (typeof peerId !== "string" || typeof instance !== "string" || typeof polite !== "boolean") return [];
    if (peerId === this.#peerId) return [];
    const effects = [];
    const pair = this.#pairs.get(peerId);
    if (pair?.negotiation.instance === instance) {
      // Somebody who was missing has missed what was said meanwhile.
      const lost = rejoined || pair.missingBy !== null;
      pair.missingBy = null;
      return lost ? pair.negotiation.resync(polite) : [];
    }
    if (pair) effects.push(...this.#part(peerId));
    this.#serial += 1;
    const key = JSON.stringify([peerId, instance]);
    const former = this.#former.get(key);
    this.#former.delete(key);
    const negotiation = new Negotiation({
      roomId: this.#roomId,
      peerId,
      instance,
      ownInstance: this.#instance,
      polite,
      entropy: `${this.#entropy}.${this.#serial}`,
      rollback: this.#rollback,
      build: former === undefined ? 0 : former + 1,
      config: this.#config,
    });
    this.#pairs.set(peerId, { negotiation, missingBy: null });
    return [...effects, ...negotiation.start()];
  }

  #part(peerId) {
    const { negotiation } = this.#pairs.get(peerId);
    this.#pairs.delete(peerId);
    this.#former.set(JSON.stringify([peerId, negotiation.instance]), negotiation.build);
    if (this.#former.size > MAX_FORMER) this.#former.delete(this.#former.keys().next().value);
    return negotiation.close();
  }
}

/** Leave out what is said to somebody who is not there: it is made good when they come back. */
function said({ missingBy }, effects) {
  return missingBy === null ? effects : effects.filter(({ name }) => name !== "Send");
}

/**
 * The browser's connections to all other peers of a room.
 *
 * Hand it the answers to `join_room` and every message of the room, in order:
 *
 *     const peers = new PeerConnections("room", {
 *       send: (signal) => socket.send(JSON.stringify(signal)),
 *       built: (peerId, connection) => {
 *         for (const track of stream.getTracks()) connection.addTrack(track, stream);
 *         connection.addEventListener("track", ({ streams }) => show(peerId, streams[0]));
 *       },
 *       closed: (peerId) => hide(peerId),
 *     });
 *     peers.join(answer);
 *     peers.receive(message);
 *     peers.close();
 *
 * `built` fills a new connection with all that it is to carry. It is called again when one is built anew, after
 * `closed` for the old one. Signals go out in the order of the calls of `send`, or not at all. What was asked of a
 * connection and failed goes to `failed`, for a log: it is repaired all the same.
 */
export class PeerConnections {
  #mesh;
  #configuration;
  #send;
  #built;
  #closed;
  #failed;
  #timer;
  // By peer id: {connection, build, last}, where `last` is the promise of the last effect's end.
  #open = new Map();

  constructor(roomId, { send, built, closed = () => {}, failed = () => {}, configuration = {}, ...mesh }) {
    const entropy = [...crypto.getRandomValues(new Uint8Array(12))].map((each) => each.toString(16).padStart(2, "0"));
    this.#mesh = new Mesh(roomId, { entropy: entropy.join(""), ...mesh });
    this.#configuration = configuration;
    this.#send = send;
    this.#built = built;
    this.#closed = closed;
    this.#failed = failed;
  }

  /** The RTCPeerConnection to each peer, by peer id, as of now. */
  get connections() {
    return new Map([...this.#open].map(([peerId, { connection }]) => [peerId, connection]));
  }

  /** Replace what connections are built with from now on, such as `iceServers` whose credentials have expired. */
  configure(configuration) {
    this.#configuration = configuration;
    for (const { connection } of this.#open.values()) connection.setConfiguration(configuration);
  }

  join(answer) {
    this.#carryOut(this.#mesh.join(answer, now()));
  }

  receive(message) {
    this.#carryOut(this.#mesh.receive(message, now()));
  }

  close() {
    this.#carryOut(this.#mesh.close());
  }

  #report(peerId, { build }, event) {
    this.#carryOut(this.#mesh.handle(peerId, { ...event, build }, now()));
  }

  #carryOut(effects) {
    for (const effect of effects) {
      const { name, peerId } = effect;
      if (name === "Send") {
        this.#send(effect.message);
      } else if (name === "Build") {
        this.#end(peerId);
        this.#begin(peerId, effect.build);
      } else if (name === "Close") {
        this.#end(peerId);
      } else {
        const entry = this.#open.get(peerId);
        entry.last = entry.last.then(() => this.#perform(peerId, entry, effect));
      }
    }
    clearTimeout(this.#timer);
    const due = this.#mesh.nextTimeout();
    if (due === null) return;
    this.#timer = setTimeout(() => this.#carryOut(this.#mesh.handleTimeout(now())), Math.max(0, due - now()) * 1000);
  }

  #begin(peerId, build) {
    const entry = { connection: null, build, last: Promise.resolve() };
    this.#open.set(peerId, entry);
    this.#connect(peerId, entry);
  }

  #connect(peerId, entry) {
    const connection = new RTCPeerConnection(this.#configuration);
    entry.connection = connection;
    const report = (name, content) => {
      // A connection that was closed has nothing more to say.
      if (entry.connection === connection) this.#report(peerId, entry, { name, ...content });
    };
    connection.addEventListener("negotiationneeded", () => report("NegotiationNeeded"));
    connection.addEventListener("icecandidate", ({ candidate }) => {
      // `null` says only that gathering has ended, and not of which generation.
      if (candidate) report("CandidateGathered", { candidate: candidate.toJSON() });
    });
    connection.addEventListener("iceconnectionstatechange", () => {
      report("IceStateChanged", { state: connection.iceConnectionState });
    });
    this.#built(peerId, connection);
  }

  #end(peerId) {
    const entry = this.#open.get(peerId);
    if (!entry) return;
    this.#open.delete(peerId);
    entry.connection.close();
    this.#closed(peerId, entry.connection);
  }

  async #perform(peerId, entry, effect) {
    const isOpen = () => this.#open.get(peerId) === entry;
    if (!isOpen()) return;
    let event;
    try {
      if (takesBackTheFirst(entry.connection, effect)) {
        // Now and then Chromium gathers no candidates on a connection whose very first offer was rolled back. The other
        // side has nothing from this one yet, so another does as well.
        const { connection } = entry;
        connection.close();
        this.#closed(peerId, connection);
        this.#connect(peerId, entry);
        event = effect.name === "Rollback" ? { name: "RolledBack" } : await perform(entry.connection, effect);
      } else {
        event = await perform(entry.connection, effect);
      }
    } catch (error) {
      if (!isOpen()) return;
      this.#failed(peerId, error);
      // Without one candidate there are others.
      if (effect.name !== "AddCandidate") event = { name: "OperationFailed" };
    }
    if (event && isOpen()) this.#report(peerId, entry, event);
  }
}

/** Whether an effect rolls back an offer, and there was no description before that. */
function takesBackTheFirst({ signalingState, currentLocalDescription }, { name, type }) {
  const takesBack = name === "Rollback" || (name === "SetRemoteDescription" && type === "offer");
  return takesBack && signalingState === "have-local-offer" && !currentLocalDescription;
}

/** Carry an effect out on a connection; returns what it reports, if it does. */
async function perform(connection, { name, type, sdp, candidate }) {
  switch (name) {
    case "SetLocalDescription":
      await connection.setLocalDescription();
      ({ type, sdp } = connection.localDescription);
      return { name: "LocalDescriptionSet", type, sdp };
    case "SetRemoteDescription":
      await connection.setRemoteDescription({ type, sdp });
      return { name: "RemoteDescriptionSet" };
    case "Rollback":
      await connection.setLocalDescription({ type: "rollback" });
      return { name: "RolledBack" };
    case "RestartIce":
      return connection.restartIce();
    case "AddCandidate":
      return connection.addIceCandidate(candidate ?? undefined);
  }
}

function now() {
  return performance.now() / 1000;
}
