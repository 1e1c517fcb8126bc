// Perfect negotiation between two peers (W3C WebRTC 1.0, section 10.7): one peer's half. It decides, and does nothing:
// what comes in are events of a peer connection and the other side's signals, what goes out are effects, to be carried
// out in order. The rules are those of rtcore.signaling.negotiation, the machine in Python, where they are explained.
//
// Events: NegotiationNeeded, LocalDescriptionSet {type, sdp}, RemoteDescriptionSet, RolledBack, OperationFailed,
// CandidateGathered {candidate}, IceStateChanged {state}; each with the `build` of its connection.
// Effects: Build {instance, build}, SetLocalDescription, SetRemoteDescription {type, sdp}, Rollback,
// AddCandidate {candidate}, RestartIce, Close, Send {message}; each with a `peerId`.

const MAX_DOUBLINGS = 32;
// How often the time for an answer is doubled.
const MAX_PATIENCE = 3;
const MAX_BUILD = 2 ** 31 - 1;
const UFRAG = "a=ice-ufrag:";

/** Seconds, and numbers of attempts and candidates. `connectTimeout` may be null. */
export const NEGOTIATION = { connectTimeout: 10, restartInterval: 8, maxInterval: 60, maxRestarts: 3, maxHeld: 64 };

export class Negotiation {
  // "stable", "offering", "offered", "rolling back", "accepting", "receiving", "answering", "broken" or "closed".
  phase;
  build;

  #roomId;
  #peerId;
  #ownInstance;
  #polite;
  #entropy;
  #rollback;
  #config;
  #serial = 0;
  // Since ICE was connected last.
  #failures = 0;
  #needed;
  #restart;
  // Whether the local offer that was made last restarts ICE.
  #restarting;
  #yielding;
  // The last negotiation that was begun, by either side.
  #negotiation;
  // What is set on the connection, or being set.
  #remote;
  #ignored;
  #waiting;
  #held;
  #ice;
  #retryAt;
  // Until when an answer is waited for, once "offered"; and how often that has passed in a row.
  #answerBy;
  #unanswered;

  /** By `ownInstance`, this side's, the server knows what has waited for too long; it may be null. */
  constructor({ roomId, peerId, instance, ownInstance = null, polite, entropy, ...options }) {
    const { rollback = true, build = 0, config = NEGOTIATION } = options;
    this.#roomId = roomId;
    this.#peerId = peerId;
    this.instance = instance;
    this.#ownInstance = ownInstance;
    this.#polite = polite;
    this.#entropy = entropy;
    this.#rollback = rollback;
    this.#config = config;
    this.#reset(build);
    this.#needed = false;
  }

  #reset(build) {
    this.build = build;
    this.phase = "stable";
    // Of two sides that cannot roll back, one may wait for the other's offer: so that one makes one in any case.
    this.#needed = !this.#rollback && !this.#polite;
    this.#restart = false;
    this.#restarting = false;
    this.#yielding = false;
    this.#negotiation = null;
    this.#remote = null;
    this.#ignored = null;
    this.#waiting = null;
    this.#held = [];
    this.#ice = "new";
    this.#retryAt = null;
    this.#answerBy = null;
    this.#unanswered = 0;
  }

  /** Whether ICE is connected, by the descriptions that are in force. */
  get connected() {
    return this.#ice === "connected" || this.#ice === "completed";
  }

  /** Begin; the other side is told if there were former connections. */
  start() {
    return this.build ? [this.#bye(), this.#built()] : [this.#built()];
  }

  close() {
    if (this.phase === "closed") return [];
    this.phase = "closed";
    this.#retryAt = null;
    return [this.#effect("Close")];
  }

  /** Take what a connection reports; what is of another build is ignored. `now` is in seconds. */
  handle(event, now) {
    if (event.build !== this.build || this.phase === "broken" || this.phase === "closed") return [];
    switch (event.name) {
      case "NegotiationNeeded":
        this.#needed = true;
        return this.#proceed();
      case "LocalDescriptionSet":
        if (this.phase === "offering" && event.type === "offer") return this.#offered(event.sdp, now);
        if (this.phase === "answering" && event.type === "answer") return this.#answered(event.sdp, now);
        break;
      case "RemoteDescriptionSet":
        if (this.phase === "accepting") {
          this.#settle(now);
          return [...this.#release(), ...this.#proceed()];
        }
        if (this.phase === "receiving") return this.#received();
        break;
      case "RolledBack":
        if (this.phase === "rolling back") {
          this.phase = "stable";
          return this.#proceed();
        }
        break;
      case "OperationFailed":
        if (this.phase !== "stable" && this.phase !== "offered") return this.#break(now);
        break;
      case "CandidateGathered":
        return [this.#send("ice-candidate", { ice_candidate: event.candidate })];
      case "IceStateChanged":
        return this.#watch(event.state, now);
    }
    throw new Error(`${event.name} while ${this.phase}`);
  }

  /** Take a `webrtc_signal` from the other side; one that makes no sense is ignored. */
  receive(message) {
    if (this.phase === "closed") return [];
    if (message.instance !== undefined && message.instance !== this.instance) return [];
    const signal = parse(message);
    if (!signal) return [];
    const build = signal.build ?? this.build + (signal.type === "bye" ? 1 : 0);
    // It is about a former connection; the other knows by now, or hears soon, that there is another.
    if (build < this.build) return [];
    const effects = [];
    if (build > this.build) {
      this.#reset(build);
      effects.push(this.#built());
    }
    if (signal.type === "offer") {
      this.#keep(signal);
      if (this.phase !== "broken" && !this.#isKnown(signal.negotiation)) this.#waiting = signal;
    } else if (signal.type === "answer") {
      this.#keep(signal);
      if (this.phase === "offered" && (signal.negotiation === null || signal.negotiation === this.#negotiation)) {
        return [...effects, ...this.#setRemote(signal, "accepting")];
      }
    } else if (signal.type === "ice-candidate") {
      effects.push(...this.#take(signal));
    }
    return [...effects, ...this.#proceed()];
  }

  /** Mend what is broken if signals were lost, in either direction; the other side does the same. */
  resync(polite) {
    this.#polite = polite;
    if (this.phase === "broken" || this.phase === "closed") return [];
    if (this.phase === "stable" && !this.#remote) {
      // The other may not know of this connection, and nothing else will tell it.
      return this.build ? [this.#bye()] : [];
    }
    if (!this.connected) {
      if (!this.#rollback) return this.#rebuild();
      this.#needed = this.#restart = true;
    }
    return this.phase === "offered" ? this.#offerAnew() : this.#proceed();
  }

  /** When `handleTimeout` has something to do, or null. */
  nextTimeout() {
    const times = [this.#retryAt, this.phase === "offered" ? this.#answerBy : null].filter((time) => time !== null);
    return times.length ? Math.min(...times) : null;
  }

  handleTimeout(now) {
    const effects = [];
    if (this.#retryAt !== null && this.#retryAt <= now) {
      effects.push(...(this.phase === "broken" ? this.#rebuild() : this.#repair(now)));
    }
    if (this.phase === "offered" && this.#answerBy !== null && this.#answerBy <= now) {
      this.#restart ||= this.#restarting;
      this.#unanswered += 1;
      effects.push(...this.#offerAnew());
    }
    return effects;
  }

  /** Make the offer that waits for an answer once more: one of the two was lost. */
  #offerAnew() {
    this.#needed = true;
    if (this.#rollback) {
      this.phase = "rolling back";
      return [this.#effect("Rollback")];
    }
    // An offer may take the place of another (RFC 8829, section 4.1.8).
    this.phase = "stable";
    return this.#proceed();
  }

  /** Begin what was waiting, unless an operation is under way: the other's offer first. */
  #proceed() {
    const offer = this.#waiting;
    if (
      offer &&
      (this.phase === "stable" ||
        this.phase === "offered" ||
        // What is about to be offered anew is as good as offered.
        (this.phase === "rolling back" && !this.#polite))
    ) {
      this.#waiting = null;
      return this.#meet(offer);
    }
    if (this.phase !== "stable" || !this.#needed || this.#yielding) return [];
    this.#serial += 1;
    this.#negotiation = `${this.#entropy}.${this.#serial}`;
    this.#restarting = this.#restart;
    this.#needed = this.#restart = false;
    this.phase = "offering";
    const restart = this.#restarting ? [this.#effect("RestartIce")] : [];
    return [...restart, this.#effect("SetLocalDescription")];
  }

  #offered(sdp, now) {
    this.phase = "offered";
    const { connectTimeout: timeout } = this.#config;
    // Where signals are slow, more of them would make it worse.
    this.#answerBy = timeout === null ? null : now + timeout * 2 ** Math.min(this.#unanswered, MAX_PATIENCE);
    // It is taken back at once, so the other need not hear of it.
    if (this.#waiting && this.#polite) return this.#proceed();
    return [this.#send("offer", { sdp }), ...this.#proceed()];
  }

  #isKnown(negotiation) {
    return negotiation !== null && (negotiation === this.#remote?.negotiation || negotiation === this.#ignored);
  }

  /** Take an offer while no operation is under way. */
  #meet(offer) {
    if (this.phase === "offered" || this.phase === "rolling back") {
      if (!this.#polite) {
        this.#ignored = offer.negotiation;
        return [];
      }
      if (!this.#rollback) {
        const effects = this.#rebuild();
        this.#yielding = true;
        return effects;
      }
      if (this.#restarting && !this.#restarts(offer)) this.#needed = this.#restart = true;
    }
    if (!this.#rollback && this.#restarts(offer)) return this.#rebuild();
    this.#negotiation = offer.negotiation;
    return this.#setRemote(offer, "receiving");
  }

  #received() {
    const offer = this.#waiting;
    if (offer) {
      // The other has taken the former one back, so nobody waits for an answer to it.
      this.#waiting = null;
      return this.#meet(offer);
    }
    this.phase = "answering";
    this.#yielding = false;
    return [...this.#release(), this.#effect("SetLocalDescription")];
  }

  #answered(sdp, now) {
    this.#settle(now);
    if (this.#waiting) return this.#proceed();
    return [this.#send("answer", { sdp }), ...this.#proceed()];
  }

  #setRemote(description, phase) {
    // What the connection last reported was about candidates that count no longer.
    if (this.#restarts(description)) this.#ice = "checking";
    this.#remote = description;
    this.#unanswered = 0;
    this.phase = phase;
    return [this.#effect("SetRemoteDescription", { type: description.type, sdp: description.sdp })];
  }

  #restarts(description) {
    if (!this.#remote) return false;
    const before = usernameFragments(this.#remote.sdp);
    return before.length > 0 && !usernameFragments(description.sdp).some((each) => before.includes(each));
  }

  /** Add a candidate, or keep it until its description comes, or drop it. */
  #take(candidate) {
    if (this.phase === "broken") return [];
    if (this.#remote && belongs(candidate, this.#remote)) {
      if (this.phase !== "receiving" && this.phase !== "accepting") return [this.#add(candidate)];
      this.#hold(candidate);
    } else if (!this.#isKnown(candidate.negotiation)) {
      this.#hold(candidate);
    }
    return [];
  }

  #hold(candidate) {
    if (this.#held.length < this.#config.maxHeld) this.#held.push(candidate);
  }

  /** Forget what was held for a description that was never sent, now that another has come: they come in order. */
  #keep(description) {
    const current = this.#remote ?? description;
    this.#held = this.#held.filter((each) => belongs(each, description) || belongs(each, current));
  }

  /** Add what was held for the description that was set. */
  #release() {
    const ready = this.#held.filter((each) => belongs(each, this.#remote));
    this.#held = this.#held.filter((each) => !belongs(each, this.#remote));
    return ready.map((each) => this.#add(each));
  }

  #watch(state, now) {
    this.#ice = state;
    if (this.connected) {
      this.#failures = 0;
      this.#retryAt = null;
    } else if (state === "closed") {
      return this.#break(now);
    } else if (state === "failed") {
      const delay = this.#delay();
      if (!delay) return this.#repair(now);
      this.#retryAt ??= now + delay;
    }
    return [];
  }

  #settle(now) {
    this.phase = "stable";
    const { connectTimeout: timeout } = this.#config;
    if (!this.connected && timeout !== null) this.#retryAt ??= now + timeout;
  }

  #delay() {
    if (!this.#failures) return 0;
    const doubled = this.#config.restartInterval * 2 ** Math.min(this.#failures - 1, MAX_DOUBLINGS);
    return Math.min(doubled, this.#config.maxInterval);
  }

  /** Restart ICE, or give the connection up. */
  #repair(now) {
    this.#failures += 1;
    if (this.#failures > this.#config.maxRestarts || !this.#rollback) return this.#rebuild();
    this.#retryAt = now + this.#delay();
    this.#needed = this.#restart = true;
    return this.#proceed();
  }

  /** Give up a connection that is of no use: at once, or when it is time to. */
  #break(now) {
    const delay = this.#delay();
    this.#failures += 1;
    if (!delay) return this.#rebuild();
    this.phase = "broken";
    this.#retryAt = now + delay;
    return [];
  }

  #rebuild() {
    this.#reset(this.build + 1);
    return [this.#bye(), this.#built(), ...this.#proceed()];
  }

  #effect(name, content) {
    return { name, peerId: this.#peerId, ...content };
  }

  #built() {
    return this.#effect("Build", { instance: this.instance, build: this.build });
  }

  #add({ init }) {
    return this.#effect("AddCandidate", { candidate: init });
  }

  #bye() {
    return this.#send("bye");
  }

  #send(signalType, content) {
    const message = {
      type: "webrtc_signal",
      signal_type: signalType,
      room_id: this.#roomId,
      target_peer_id: this.#peerId,
      target_instance: this.instance,
      build: this.build,
      ...content,
    };
    if (this.#ownInstance !== null) message.instance = this.#ownInstance;
    if (this.#negotiation !== null && signalType !== "bye") message.negotiation = this.#negotiation;
    return this.#effect("Send", { message });
  }
}

/** What a signal says, as far as it makes sense, or null. */
function parse({ signal_type: type, negotiation = null, build = null, sdp, ice_candidate: init }) {
  if (negotiation !== null && typeof negotiation !== "string") return null;
  if (build !== null && !(Number.isInteger(build) && build >= 0 && build <= MAX_BUILD)) return null;
  switch (type) {
    case "offer":
    case "answer":
      return typeof sdp === "string" ? { type, negotiation, build, sdp } : null;
    case "ice-candidate":
      return init === null || typeof init?.candidate === "string" ? { type, negotiation, build, init } : null;
    case "bye":
      return { type, build };
  }
  return null;
}

/** Whether a candidate is one of what a description describes: its generation tells, where both have one. */
function belongs({ negotiation, init }, description) {
  const fragment = init?.usernameFragment;
  const fragments = usernameFragments(description.sdp);
  if (typeof fragment === "string" && fragments.length) return fragments.includes(fragment);
  return negotiation === null || negotiation === description.negotiation;
}

function usernameFragments(sdp) {
  const lines = sdp.split("\n").filter((line) => line.startsWith(UFRAG));
  return lines.map((line) => line.slice(UFRAG.length).replace(/\r+$/, ""));
}
