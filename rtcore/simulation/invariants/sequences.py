"""What subscribers hear is what their channels say: in order, each once, and no hole that they are not told of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from rtcore.channels import BROADCAST, user_channel
from rtcore.errors import Refusal
from rtcore.filters import Filter, parse_filters
from rtcore.messages import Message

from .invariant import Invariant
from .ledger import Ledger, Line, Publication, number_of

if TYPE_CHECKING:
    from rtcore.simulation.client import SimulatedClient
    from rtcore.simulation.server import SimulatedServer

__all__ = ["Sequences"]


@attrs.define(eq=False)
class _Listening:
    """How far one client has heard one channel.

    Attributes:
        line: What it hears.
        index: How many publications of it are behind the client: heard, announced as missing, or before its time.
        filter: What it wants to hear of it; ``None`` for everything.
        heard: The persistent publications that it has heard.
        owed: Those that it is yet to hear, since they were kept when it came.
        dropped: From where on what is behind it was announced as dropped on its way, and on which connection. Such a
            gap does not move the token after which an event stream goes on, or a client in the channels of its URL, so
            all of that may come on the next connection after all.
        early: Whether it may have come before `index`: an event stream may end between the position that it begins with
            and its welcome, and goes on from there on the next connection.
        elsewhere: Where it was before another server told it of a gap. The last gap of several moves the position of an
            event stream; cut off before that, it may go on where it was.
        by_hand: Whether it was joined by hand to a channel of its URL, maybe beyond its token. Then a gap that a server
            tells as of the token may be behind it.
    """

    line: Line
    index: int
    filter: Filter | None = None
    heard: dict[Publication, None] = attrs.field(factory=dict)
    owed: dict[Publication, None] = attrs.field(factory=dict)
    dropped: tuple[int, str | None] | None = None
    early: bool = False
    elsewhere: tuple[Line, int] | None = None
    by_hand: bool = False


class Sequences(Invariant):
    """Each subscriber's sequence is the channel's from where it joined.

    Args:
        ledger: What was published.

    Attributes:
        gaps: How many gaps were announced, by reason.
        heard: How many publications were heard.
    """

    name = "heard_in_order_each_once"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._listening: dict[str, dict[str, _Listening]] = {}
        self._starts: dict[str, list[tuple[Line, int]]] = {}
        # How much each line had said when each client came to it last, until a gap shows that it has missed something.
        self._came: dict[str, dict[Line, int]] = {}
        # What clients have left, and servers may not know yet.
        self._left: dict[str, dict[str, None]] = {}
        # What servers have taken clients out of on their last connection.
        self._removed: dict[str, dict[str, None]] = {}
        # The persistent publications that clients had heard of channels when they left them.
        self._formerly: dict[tuple[str, str], dict[Publication, None]] = {}
        # The publication that each event stream has heard last, and on which connection.
        self._newest: dict[str, tuple[str | None, Publication]] = {}
        self.gaps: dict[str, int] = {}
        self.heard = 0

    # Where it begins

    def server_connected(
        self,
        server: SimulatedServer,
        connection_id: str,
        user_id: str | None,
        channels: tuple[str, ...],
        *,
        last_event_id: str | None,
    ) -> None:
        """See `Observer`."""
        names = [BROADCAST, *channels] if user_id is None else [BROADCAST, user_channel(user_id), *channels]
        lines = [self._ledger.line(server, name) for name in names]
        self._starts[connection_id] = [(line, len(line.publications)) for line in lines]

    def client_connected(self, client: SimulatedClient, connection_id: str, *, resumes: bool) -> None:
        """See `Observer`."""
        listening = self._listening.setdefault(client.name, {})
        starts = self._starts.pop(connection_id)
        self._came[client.name] = dict(starts)
        left = self._left.get(client.name, {})
        removed = self._removed.get(client.name, {})
        for line, index in starts:
            if line.channel in left:
                # Its URL names a channel that it leaves again.
                continue
            # Who was here before has a claim to what was said meanwhile, or to be told of the gap.
            if line.channel not in listening:
                self._begin(client, line, index)
                # A token goes for all channels: into one that it was not in before, a client comes as of the token.
                listening[line.channel].early = resumes and (client.streams or client.is_given(line.channel))
                if line.channel in removed and resumes:
                    listening[line.channel].owed.clear()
            else:
                _forgive(listening[line.channel], line, index)
            removed.pop(line.channel, None)

    def client_joined(self, client: SimulatedClient, channel: str, answer: Message, *, again: bool) -> None:
        """See `Observer`."""
        if channel not in client.channels:
            # It was left again before the answer came.
            return
        self._left.get(client.name, {}).pop(channel, None)
        self._removed.get(client.name, {}).pop(channel, None)
        listening = self._listening[client.name]
        line, index = self._position(client, channel, answer)
        if channel in listening and (again or client.is_given(channel)):
            self._came[client.name][line] = index
            _forgive(listening[channel], line, index)
            return
        self._begin(client, line, index, str(answer["epoch"]), filter=_filter(client, channel))
        if client.is_given(channel):
            # What is kept there was told as it connected, but for what had been before its token.
            listening[channel].owed.clear()
            listening[channel].by_hand = True
        # To a server that has refused the leave, it was a member all along.
        for publication in self._formerly.pop((client.name, channel), {}):
            listening[channel].owed.pop(publication, None)

    def client_left(self, client: SimulatedClient, channel: str) -> None:
        """See `Observer`."""
        listening = self._listening.get(client.name, {}).pop(channel, None)
        if listening is not None:
            self._formerly[client.name, channel] = listening.heard
        self._left.setdefault(client.name, {})[channel] = None

    def client_removed(self, client: SimulatedClient, channel: str) -> None:
        """See `Observer`."""
        self._listening.setdefault(client.name, {}).pop(channel, None)
        self._removed.setdefault(client.name, {})[channel] = None

    # What is heard

    def client_heard(self, client: SimulatedClient, message: Message) -> None:
        """See `Observer`."""
        if message["type"] == "gap":
            self._gap(client, message)
            return
        meta = message.get("meta")
        if not isinstance(meta, dict) or message["type"] in ("user_joined", "user_left"):
            return
        publication = self._ledger.publications.get((meta["epoch"], meta["offset"]))
        if publication is None or publication.number != number_of(message):
            raise self.broken(f"{client} hears {message}, but there is {publication}")
        line = publication.line
        listening = self._listening.get(client.name, {}).get(line.channel)
        if listening is None:
            if line.channel in client.channels and line.channel not in self._left.get(client.name, {}):
                raise self.broken(f"{client} hears {publication} before it is told that it has joined")
            return
        self.heard += 1
        _go_back(listening, line)
        listening.elsewhere = None
        is_kept = publication.persistent and line is listening.line and publication.index < listening.index
        if listening.early and not is_kept:
            listening.early = False
            before = listening.index if line is listening.line else publication.index
            listening.line, listening.index = line, min(before, publication.index)
        if listening.filter is not None and not listening.filter.matches(publication.message):
            raise self.broken(f"{client} hears {publication}, which its filter keeps away")
        if publication.persistent:
            if line is listening.line and publication.index < listening.index and publication not in listening.heard:
                # One of those that were kept.
                listening.owed.pop(publication, None)
                listening.heard[publication] = None
                return
            listening.heard[publication] = None
            listening.owed.pop(publication, None)
        if line is not listening.line:
            raise self.broken(
                f"{client} hears {publication} of life {line.life}, and was in {listening.line.life}: it was not told"
            )
        if listening.dropped is not None and publication.index < listening.index:
            since, connection_id = listening.dropped
            if publication.index >= since and client.connection_id != connection_id:
                listening.dropped = (publication.index + 1, connection_id)
                return
        if publication.index < listening.index:
            raise self.broken(f"{client} hears {publication} a second time, or late")
        self._pass(client, listening, publication.index, f"hears {publication}")
        listening.index = publication.index + 1
        listening.dropped = None
        if client.streams:
            # Nothing is replayed to it in between.
            connection_id, newest = self._newest.get(client.name, (None, publication))
            if connection_id == client.connection_id and publication.seq < newest.seq:
                raise self.broken(f"{client} hears {publication}, and has heard {newest}, which was said later")
            self._newest[client.name] = (client.connection_id, publication)

    def _gap(self, client: SimulatedClient, message: Message) -> None:
        reason = str(message["reason"])
        self.gaps[reason] = self.gaps.get(reason, 0) + 1
        if message.get("stream") == "presence":
            return
        channel = str(message["channel"])
        listenings = self._listening.get(client.name, {})
        listening = listenings.get(channel)
        if listening is None:
            return
        line, index = self._position(client, channel, message)
        if line is listening.line and index < listening.index and listening.dropped is not None:
            since, connection_id = listening.dropped
            if index >= since and client.connection_id != connection_id:
                # Part of what was dropped on its way is no longer held either; the rest comes.
                listening.dropped = (index, connection_id)
                return
        if line is listening.line and index < listening.index and reason == "slow_consumer":
            # What was dropped was told again, as what is kept for later joiners is.
            listening.owed = {each: None for each in listening.owed if each.index >= index}
            return
        if line is listening.line and index < listening.index and listening.by_hand:
            return
        if line is listening.line and index < listening.index and not listening.early:
            raise self.broken(f"{client} is told to go on at {message}, but has heard more")
        _go_back(listening, line)
        listening.elsewhere = None
        if line is not listening.line:
            if client.streams:
                listening.elsewhere = (listening.line, listening.index)
            # A server that knows nothing of the client begins anew.
            listening.heard.clear()
            listening.owed.clear()
            listening.index = 0
        behind, still_owed = listening.index, listening.owed
        if reason == "slow_consumer" and (client.streams or client.is_given(channel)):
            since = behind if listening.dropped is None else listening.dropped[0]
            listening.dropped = (since, client.connection_id)
        listening.line, listening.index, listening.owed = line, index, {}
        came = self._came[client.name].pop(line, None)
        if came is not None and reason != "slow_consumer":
            # It is told what is kept and was not behind it, whether older than where the channel goes on or not.
            for each in line.kept(came, str(message["epoch"])):
                is_due = each.index >= behind or each in still_owed
                if is_due and each not in listening.heard and _is_for(client, listening.filter, each):
                    listening.owed[each] = None

    # At rest

    def at_rest(self) -> None:
        """See `Invariant`."""
        for client in self.simulation.clients:
            if client.ended or client.server is None:
                continue
            for channel, listening in self._listening.get(client.name, {}).items():
                line = self._ledger.line(client.server, channel)
                _go_back(listening, line)
                if line is not listening.line:
                    if line.publications and not listening.early:
                        raise self.broken(
                            f"{client} is in {line.life}, and was not told that {channel} is not that of "
                            f"{listening.line.life}"
                        )
                    continue
                self._pass(client, listening, len(line.publications), "has heard all that there is")
                if listening.owed:
                    raise self.broken(f"{client} never heard {next(iter(listening.owed))}, which was kept for it")

    # Inside

    def _begin(
        self,
        client: SimulatedClient,
        line: Line,
        index: int,
        epoch: str | None = None,
        *,
        filter: Filter | None = None,
    ) -> None:
        if epoch is None and line.publications and index:
            epoch = line.publications[index - 1].epoch
        kept = [] if epoch is None else line.kept(index, epoch)
        owed = {each: None for each in kept if _is_for(client, filter, each)}
        self._listening[client.name][line.channel] = _Listening(line, index, filter, owed=owed)

    def _position(self, client: SimulatedClient, channel: str, message: Message) -> tuple[Line, int]:
        assert client.server is not None and client.connection_id is not None, "somebody has said it"  # noqa: PT018
        epoch, offset = message["epoch"], message["offset"]
        assert isinstance(epoch, str) and isinstance(offset, int), "the protocol says so"  # noqa: PT018
        # The server may have begun another life since.
        line = self._ledger.line(client.server, channel, self._ledger.life_of[client.connection_id])
        index = self._ledger.index(line, epoch, offset)
        if index is None:
            raise self.broken(f"{client} is told of {channel} {epoch}:{offset}, which there is not")
        return line, index

    def _pass(self, client: SimulatedClient, listening: _Listening, index: int, what: str) -> None:
        """Fail if a client may not pass over the publications up to `index`."""
        for missing in listening.line.publications[listening.index : index]:
            if _is_for(client, listening.filter, missing):
                raise self.broken(f"{client} {what}, but has not heard {missing} nor of a gap")


def _forgive(listening: _Listening, line: Line, index: int) -> None:
    """Let a client that comes back before it has heard all that was kept for it go without what no longer is."""
    if line is listening.line and listening.owed:
        kept = line.kept(index, line.publications[index - 1].epoch)
        listening.owed = {each: None for each in listening.owed if each in kept}


def _go_back(listening: _Listening, line: Line) -> None:
    """Let an event stream go on where it was before another server told it of a gap, if that is where it is."""
    if listening.elsewhere is not None and line is listening.elsewhere[0]:
        listening.line, listening.index = listening.elsewhere
        # What the other server keeps is no longer to come.
        listening.owed.clear()


def _filter(client: SimulatedClient, channel: str) -> Filter | None:
    """Return what a client wants to hear of a channel that it has just joined."""
    found = parse_filters(client.filters(channel))
    assert not isinstance(found, Refusal), "the join was not refused"
    return found


def _is_for(client: SimulatedClient, filter: Filter | None, publication: Publication) -> bool:
    """Tell whether a client hears a publication: it wants to, and it is not its own without an echo."""
    message = publication.message
    if message.get("echo") is False and message.get("by") == client.name:
        return False
    return filter is None or filter.matches(message)
