"""Everything that was ever published, by whatever server in whatever life, as seen from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs
import msgspec

from rtcore.channels import user_channel
from rtcore.encoded import Encoded
from rtcore.messages import Message
from rtcore.namespaces import Namespace
from rtcore.router import Published

from .invariant import Invariant

if TYPE_CHECKING:
    from rtcore.simulation.client import SimulatedClient
    from rtcore.simulation.sending import SimulatedUpload
    from rtcore.simulation.server import SimulatedServer

__all__ = ["Ledger", "Line", "Publication", "number_of"]

_decode = msgspec.json.Decoder().decode


def number_of(message: Mapping[str, object]) -> int | None:
    """Return the number that its publisher gave a message, or ``None``; other things may be called ``n`` too."""
    number = message.get("n")
    return number if isinstance(number, int) else None


@attrs.define(eq=False)
class Publication:
    """One publication of a channel.

    Attributes:
        line: Whose it is.
        index: Its place there.
        epoch: Its epoch.
        offset: Its offset.
        number: What the publisher numbered it with, or ``None``.
        message: What was published.
        at: When, in virtual seconds.
        clock: When, in the server's monotonic seconds.
        seq: Its number among all that the server has said in that life.
        json: As it was delivered; ``None`` as long as it was not.
    """

    line: Line
    index: int
    epoch: str
    offset: int
    number: int | None
    message: Message
    at: float
    clock: float
    seq: int
    json: bytes | None = None

    @property
    def persistent(self) -> bool:
        """Whether it is kept for later joiners."""
        return self.line.namespace.last_value or self.message.get("persistent") is True

    def __str__(self) -> str:
        return f"{self.line.channel} {self.epoch}:{self.offset} (n={self.number})"


@attrs.define(eq=False)
class Line:
    """All that one channel has said in one life of a server, over all its epochs there, in order.

    Attributes:
        life: The life of the server.
        channel: The channel's name.
        namespace: What holds for it.
        window: Seconds for which a publication of a user is not made again.
        publications: In order.
    """

    life: str
    channel: str
    namespace: Namespace
    window: float
    publications: list[Publication] = attrs.field(factory=list)

    def kept(self, index: int, epoch: str) -> list[Publication]:
        """Return what the first `index` publications have left for later joiners, in `epoch`."""
        size = self.namespace.persistent_size
        kept = [each for each in self.publications[:index] if each.epoch == epoch and each.persistent]
        return kept[-size:] if size else []

    def held(self, epoch: str, *, now: float) -> list[Publication]:
        """Return what the history of `epoch` must hold at a time of the server's clock, in order."""
        held: list[Publication] = []
        for publication in reversed(self.publications):
            if len(held) == self.namespace.history_size or publication.epoch != epoch:
                break
            if publication.clock + self.namespace.history_ttl <= now:
                break
            held.append(publication)
        return held[::-1]


class Ledger(Invariant):
    """The truth that other invariants compare with; itself it knows that no number is given twice.

    Attributes:
        publications: By epoch and offset.
        by_number: By the number that the publisher gave.
        life_of: The life of the server that has a connection, by its id.
        bytes: Of what was delivered for the first time, in each life.
    """

    name = "one_publication_for_each_number"

    def __init__(self) -> None:
        self.publications: dict[tuple[str, int], Publication] = {}
        self.by_number: dict[int, list[Publication]] = {}
        self.life_of: dict[str, str] = {}
        self.bytes: dict[str, int] = {}
        self._lines: dict[tuple[str, str], Line] = {}
        self._first: dict[str, Publication] = {}
        # What connections have asked to publish, by connection and id.
        self._asked: dict[tuple[str, object], Message] = {}
        # What is published once a file is whole that comes in chunks, by the id under which it is sent.
        self._sent: dict[object, Message] = {}

    def line(self, server: SimulatedServer, channel: str, life: str | None = None) -> Line:
        """Return the line of a channel in a life of a server, the present one if not named."""
        key = (life or server.life, channel)
        line = self._lines.get(key)
        if line is None:
            config = server.config.node.router
            line = Line(key[0], channel, config.namespaces.get(channel), config.idempotency_window)
            self._lines[key] = line
        return line

    def lines(self, life: str) -> list[Line]:
        """Return all lines of a life."""
        return [line for line in self._lines.values() if line.life == life]

    def index(self, line: Line, epoch: str, offset: int) -> int | None:
        """Return how many publications of a line a position includes; ``None`` if there is no such position."""
        if offset == 0:
            first = self._first.get(epoch)
            return len(line.publications) if first is None else first.index
        publication = self.publications.get((epoch, offset))
        return None if publication is None else publication.index + 1

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
        self.life_of[connection_id] = server.life

    def client_sends_file(self, client: SimulatedClient, upload: SimulatedUpload) -> None:
        """See `Observer`."""
        self._sent[upload.machine.upload_id] = upload.message

    def server_received(self, server: SimulatedServer, connection_id: str, text: str) -> None:
        """See `Observer`."""
        message = _decode(text)
        if "n" in message:
            self._asked[connection_id, message.get("id")] = message

    def server_published(self, server: SimulatedServer, published: Published, message: Message) -> None:
        """See `Observer`."""
        self._record(server, published.channel, published.epoch, published.offset, message)

    def server_delivers(self, server: SimulatedServer, message: Encoded, receivers: tuple[str, ...]) -> None:
        """See `Observer`."""
        source = message.source
        if source is not None:
            if source.presence:
                self._count(server, message)
                return
            known = self.publications.get((source.epoch, source.offset))
            if known is None or known.json is None:
                content = _decode(message.json)
                known = self._record(server, source.channel, source.epoch, source.offset, content)
                known.json = message.json
                self._count(server, message)
            elif known.json is not message.json and known.json != message.json:
                raise self.broken(f"{known} is now {message.json!r}")
        elif len(receivers) == 1 and message.json.startswith(b'{"type":"response"'):
            response = _decode(message.json)
            asked = self._asked.pop((receivers[0], response["id"]), None)
            if asked is not None:
                data = response["data"]
                self._record(server, data["channel"], data["epoch"], data["offset"], asked)
        elif message.json.startswith(b'{"type":"upload"'):
            news = _decode(message.json)
            if "file" in news:
                file, sent = news["file"], self._sent[news["upload_id"]]
                channel = str(sent["channel"]) if "channel" in sent else user_channel(str(sent["recipient_id"]))
                self._record(server, channel, file["epoch"], file["offset"], sent)

    def _count(self, server: SimulatedServer, message: Encoded) -> None:
        self.bytes[server.life] = self.bytes.get(server.life, 0) + message.size

    def _record(self, server: SimulatedServer, channel: str, epoch: str, offset: int, message: Message) -> Publication:
        known = self.publications.get((epoch, offset))
        number = number_of(message)
        if known is not None:
            if known.number != number or known.line.channel != channel:
                raise self.broken(f"{known} is also {channel} (n={number})")
            return known
        line = self.line(server, channel)
        publication = Publication(
            line,
            len(line.publications),
            epoch,
            offset,
            number,
            message,
            self.simulation.now,
            server.now(),
            # It is the last that was said: this is told before anything else can be.
            server.node._router._numbering.seq,
        )
        last = line.publications[-1] if line.publications else None
        # What is said of a room to a peer that is away is not seen here before it is told again.
        is_next = last is None or last.epoch != epoch or last.offset == offset - 1 or channel.startswith("$room:")
        if not is_next:
            raise self.broken(f"{publication} comes after {last}")
        line.publications.append(publication)
        self.publications[epoch, offset] = publication
        self._first.setdefault(epoch, publication)
        if number is not None:
            self.by_number.setdefault(number, []).append(publication)
        return publication
