// How far each channel was heard: what is new, what was heard before, and what is missing. The rules are those of
// rtcore.client, the client in Python.

/** A message is "new", "repeated" (heard before, or about to be replayed) or "early" (something before it is missing). */
class Position {
  // Whether what was missed has been asked for, and has not begun to come; and at which offset it was asked for last on
  // this connection.
  recovering = false;
  askedAt = null;
  // Of what was kept for later joiners, the last one heard while more of it is to come, and how much that is.
  persistent;
  owed = 0;

  /** `stream` is "presence" for comings and goings, as in a `gap`. */
  constructor(channel, { epoch, offset, persistent = null }, stream = "") {
    this.channel = channel;
    this.stream = stream;
    this.epoch = epoch;
    this.offset = offset;
    this.persistent = persistent;
  }

  hear(offset) {
    if (offset <= this.offset) {
      if (this.persistent === null || offset <= this.persistent || this.recovering) return "repeated";
      this.persistent = offset;
      this.owed -= 1;
      if (this.owed === 0) this.persistent = null;
      return "new";
    }
    if (this.recovering) return "repeated";
    if (offset !== this.offset + 1) return "early";
    // What was kept for later joiners has come before anything newer.
    this.persistent = null;
    this.owed = 0;
    this.skipTo(offset);
    return "new";
  }

  /** Everything up to `offset` was heard, or may be missing, which somebody is told. */
  skipTo(offset) {
    if (offset <= this.offset) return;
    this.offset = offset;
    this.askedAt = null;
  }
}

/** The positions in all channels that were joined: in their publications, and in who came and went. */
export class Positions {
  #publications = new Map();
  #changes = new Map();
  // Epochs differ between any two streams, so they tell for certain what a message belongs to: its `channel` may be
  // anything that a publisher has put there.
  #byEpoch = new Map();

  /**
   * Begin on a new connection: what another one could not bring may come on this one. Each channel is joined again from
   * where it was heard, and until that is answered nothing moves the position.
   */
  begin() {
    for (const heard of this.#publications.values()) {
      heard.askedAt = null;
      heard.recovering = true;
    }
    for (const heard of this.#changes.values()) heard.askedAt = null;
  }

  /** The position that a message belongs to, or undefined. */
  of({ meta }) {
    return Number.isInteger(meta?.offset) ? this.#byEpoch.get(meta.epoch) : undefined;
  }

  /** What a join of `channel` says of how far it was heard, or null. */
  since(channel) {
    const heard = this.#publications.get(channel);
    if (!heard) return null;
    const { epoch, offset, persistent } = heard;
    return persistent === null ? { epoch, offset } : { epoch, offset, persistent };
  }

  /**
   * Take note of the answer to a join that said `since`. Returns whether something is missing that it asked for.
   *
   * Recovered: the position moves with each replayed message, so a loss in the middle of a replay costs nothing.
   */
  joined(channel, { epoch, offset, recovered, replayed = 0, presence }, since) {
    let heard = this.#publications.get(channel);
    let missing = false;
    if (recovered === true && since) {
      if (heard?.epoch !== since.epoch) heard = new Position(channel, since);
      if (!replayed) heard.persistent = null;
    } else if (heard?.epoch !== epoch || heard.offset < offset) {
      // A server that does not know of `since` says nothing of it, and what it did not replay is missing too.
      missing = recovered === false || heard !== undefined;
      let owedAfter = 0;
      for (const known of [since, heard]) {
        if (known?.epoch === epoch) owedAfter = Math.max(owedAfter, known.persistent ?? known.offset);
      }
      heard = new Position(channel, { epoch, offset, persistent: replayed ? owedAfter : null });
    }
    // Otherwise another answer has come before that tells the same, and what follows this one was heard.
    heard.owed = heard.persistent === null ? 0 : replayed;
    heard.recovering = false;
    this.#put(this.#publications, heard);
    // The roster in the answer is the truth as of its offset.
    if (presence?.epoch) this.#put(this.#changes, new Position(channel, presence, "presence"));
    else this.#drop(this.#changes, channel);
    return missing;
  }

  /** Take note of a `gap`, by which the server says that something is missing. */
  interrupted({ channel, stream = "", epoch, offset, reason }) {
    const streams = stream === "presence" ? this.#changes : this.#publications;
    const heard = streams.get(channel);
    if (!heard) return;
    // On a new connection, what is kept for later joiners of what is missing comes after the notice.
    const comes = reason !== "slow_consumer" && stream === "";
    if (heard.epoch === epoch) {
      if (comes && heard.offset < offset) heard.persistent ??= heard.offset;
      heard.skipTo(offset);
    } else {
      this.#put(streams, new Position(channel, { epoch, offset, persistent: comes ? 0 : null }, stream));
    }
  }

  forget(channel) {
    this.#drop(this.#publications, channel);
    this.#drop(this.#changes, channel);
  }

  #drop(streams, channel) {
    this.#byEpoch.delete(streams.get(channel)?.epoch);
    streams.delete(channel);
  }

  #put(streams, position) {
    this.#drop(streams, position.channel);
    streams.set(position.channel, position);
    this.#byEpoch.set(position.epoch, position);
  }
}

/** How far everything was heard that needs no joining: what goes to this client, to its user and to everybody. */
export class Hearing {
  // INSTANCE-NUMBER, or INSTANCE-NUMBER.PERSISTENT until all that was kept for later joiners has come.
  #heard = null;

  /** What to resume after on the next connection, or "". */
  get token() {
    if (!this.#heard) return "";
    const { instance, number, persistent } = this.#heard;
    return `${instance}-${number}${persistent === null ? "" : `.${persistent}`}`;
  }

  /** Take note of where a new connection goes on. */
  welcome(token) {
    this.#heard = parse(token);
  }

  /** Take note of a message; `joined` if it is of a channel that was joined, whose replays come when asked for. */
  hear({ meta }, { joined }) {
    const token = parse(meta?.id);
    const heard = this.#heard;
    if (!token || token.instance !== heard?.instance) return;
    // One connection hears its server in order, so everything before it was heard too.
    if (token.number > heard.number) this.#heard = { ...token, persistent: null };
    else if (!joined && heard.persistent !== null && token.number > heard.persistent) heard.persistent = token.number;
  }
}

function parse(token) {
  const found = typeof token === "string" && /^(.+)-(\d{1,18})(?:\.(\d{1,18}))?$/s.exec(token);
  if (!found) return null;
  const [, instance, number, persistent] = found;
  return { instance, number: Number(number), persistent: persistent === undefined ? null : Number(persistent) };
}
