"""What is in files is what was sent; files that come in chunks are kept whole and once, or nothing is left of them."""

from __future__ import annotations

import hashlib
from binascii import a2b_base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, assert_never

import attrs
import msgspec

from rtcore.binary import Bytes
from rtcore.encoded import Encoded
from rtcore.errors import Refusal
from rtcore.messages import Message
from rtcore.router import Published
from rtcore.uploads import AbandonFile, AppendToFile, FileConfig, FileEffect, FinishFile, KeptFile, OpenFile

from .invariant import Invariant
from .ledger import Ledger, number_of

if TYPE_CHECKING:
    from rtcore.simulation.client import SimulatedClient
    from rtcore.simulation.keeper import FileNews
    from rtcore.simulation.sending import SimulatedUpload
    from rtcore.simulation.server import SimulatedServer

__all__ = ["Contents", "Keeping"]

_decode: Final = msgspec.json.Decoder().decode
# With what a sender that does as it should may be told that a file has failed, whatever it is.
_MISFORTUNES: Final = frozenset(
    {
        *("cancelled", "cancelled_late", "connection_lost", "ended"),
        *("publish_denied", "upload_denied", "token_expired", "store_full", "store_unavailable", "upload_timeout"),
    }
)


class Contents(Invariant):
    """Whoever hears of a file gets what is in it, in the form of its wire, or is told where that is.

    Args:
        ledger: What was published.

    Attributes:
        heard: How many files were heard of.
    """

    name = "files_are_what_was_sent"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        # What was published in one message, and what was sent in chunks, by number.
        self._whole: dict[int, bytes] = {}
        self._uploads: dict[int, SimulatedUpload] = {}
        self.heard = 0

    def client_publishes(self, client: SimulatedClient, message: Message, data: bytes | None = None) -> None:
        """See `Observer`."""
        number = number_of(message)
        if number is not None and data is not None:
            self._whole[number] = data

    def client_sends_file(self, client: SimulatedClient, upload: SimulatedUpload) -> None:
        """See `Observer`."""
        self._uploads[upload.number] = upload

    def server_delivers(self, server: SimulatedServer, message: Encoded, receivers: tuple[str, ...]) -> None:
        """See `Observer`; the ledger is told before."""
        source = message.source
        if source is not None and not source.presence:
            publication = self._ledger.publications[source.epoch, source.offset]
            number = publication.number
            if message.data is not None or number in self._whole or number in self._uploads:
                self._check(number, _decode(message.head), message.data, f"{publication}")

    def client_heard(self, client: SimulatedClient, message: Message) -> None:
        """See `Observer`."""
        if message["type"] != "binary":
            return
        self.heard += 1
        data, encoded, what = message.get("data"), message.get("binary_data"), f"{client} hears {message}"
        if client.hears_text:
            if data is not None:
                raise self.broken(f"{what}, and takes no bytes")
            data = a2b_base64(encoded) if isinstance(encoded, str) else None
        elif encoded is not None:
            raise self.broken(f"{what}, and takes bytes")
        assert data is None or isinstance(data, bytes), "clients are given bytes"
        self._check(number_of(message), message, data, what)

    def client_file_ends(self, client: SimulatedClient, upload: SimulatedUpload) -> None:
        """See `Observer`."""
        if (file := upload.file) is None:
            return
        what = f"{client} is told that {upload} is {file}"
        epoch, offset = file["epoch"], file["offset"]
        assert isinstance(epoch, str) and isinstance(offset, int), "the protocol says so"  # noqa: PT018
        publication = self._ledger.publications.get((epoch, offset))
        if publication is None or publication.number != upload.number or publication.line.channel != upload.channel:
            raise self.broken(f"{what}, but there is {publication}")
        self._check_kept(upload, file, what)

    def _check(self, number: int | None, message: Mapping[str, object], data: Bytes | None, what: str) -> None:
        """Fail unless a message holds what was sent under its number, or says where that is."""
        if number in self._whole:
            if data != self._whole[number] or message.get("size") != len(self._whole[number]):
                raise self.broken(f"{what}, and not what was sent: {self._whole[number]!r}")
        elif number in self._uploads:
            content = self._check_kept(self._uploads[number], message, what)
            is_small = len(content) <= self.simulation.servers[0].config.inline_max_size
            if data != (content if is_small else None):
                raise self.broken(f"{what}, with {data!r} in it, of {content!r}")
        elif data is not None:
            raise self.broken(f"{what}, in which there is a file that nobody has sent")

    def _check_kept(self, upload: SimulatedUpload, message: Mapping[str, object], what: str) -> bytes:
        """Return what is kept, which must be what was sent, and what is said of it."""
        disks = (server.keeper.disk.get(str(message["file_id"])) for server in self.simulation.servers)
        content = next((content for content in disks if content is not None), None)
        if content is None:
            raise self.broken(f"{what}, and it is not kept")
        sha256 = hashlib.sha256(content).hexdigest()
        if (message["sha256"], message["size"]) != (sha256, len(content)):
            raise self.broken(f"{what}, and it has {len(content)} bytes and is {sha256}")
        if sha256 not in upload.announced or (not upload.changed and content != upload.content):
            raise self.broken(f"{what}, and what is kept is not what was sent: {content!r}")
        return content


@attrs.define(eq=False)
class _Coming:
    """A file of which a node has not learnt yet that it is kept, or not.

    Attributes:
        size: How many bytes it will have.
        received: How many of them have come.
        stored: How many of these the node knows to be stored.
    """

    size: int
    received: int = 0
    stored: int = 0


class Keeping(Invariant):
    """No more of a file is in memory than its window, no more files come at a time than may, and each has an end.

    Of a file that was not published nothing is left. Nobody who does as they should is told that they did not. What is
    said on a connection on which files are sent waits for no more than a window of each of them.

    Args:
        ledger: What was published.

    Attributes:
        outcomes: How many files were sent, by what became of them.
    """

    name = "files_are_kept_or_nothing_of_them"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.outcomes: dict[str, int] = {}
        # By life and key.
        self._coming: dict[tuple[str, str], _Coming] = {}
        # The ids of those that were published.
        self._published: dict[object, None] = {}

    # Servers

    def server_asks_keeper(self, server: SimulatedServer, effect: FileEffect) -> None:
        """See `Observer`."""
        key = (server.life, effect.key)
        match effect:
            case OpenFile():
                self._coming[key] = _Coming(effect.size)
                there, most = sum(life == server.life for life, _ in self._coming), _config(server).max_uploads
                if there > most:
                    raise self.broken(f"{there} files come to {server} at a time, of which {most} may")
            case AppendToFile():
                coming = self._coming[key]
                coming.received += len(effect.data)
                if coming.received > coming.size or coming.received - coming.stored > _config(server).window:
                    raise self.broken(f"{server} holds more of {effect.key} than it may: {coming}")
            case FinishFile():
                if self._coming[key].received != self._coming[key].size:
                    raise self.broken(f"{server} takes {effect.key} for whole: {self._coming[key]}")
            case AbandonFile():
                self._coming.pop(key, None)
            case _:
                assert_never(effect)

    def server_hears_of_file(self, server: SimulatedServer, key: str, news: FileNews) -> None:
        """See `Observer`."""
        match news:
            case int():
                self._coming[server.life, key].stored += news
            case KeptFile() | Refusal():
                del self._coming[server.life, key]
            case _:
                assert_never(news)

    def server_published(self, server: SimulatedServer, published: Published, message: Message) -> None:
        """See `Observer`."""
        self._published[message.get("file_id")] = None

    def server_stopped(self, server: SimulatedServer) -> None:
        """See `Observer`."""
        self._coming = {key: coming for key, coming in self._coming.items() if key[0] != server.life}

    # Clients

    def client_sends_chunk(self, client: SimulatedClient, upload: SimulatedUpload, offset: int, size: int) -> None:
        """See `Observer`."""
        if offset + size > upload.room:
            raise self.broken(f"{client} sends {upload} up to {offset + size}, and there is room up to {upload.room}")

    def client_file_ends(self, client: SimulatedClient, upload: SimulatedUpload) -> None:
        """See `Observer`."""
        code = upload.code or "done"
        self.outcomes[code] = self.outcomes.get(code, 0) + 1
        if upload.code == "connection_lost":
            self._check_loss(client, upload)
        if upload.code is None or upload.code in _MISFORTUNES:
            return
        assert client.server is not None, "somebody has said it"
        config = _config(client.server)
        reasons = {
            "checksum_mismatch": upload.changed,
            "file_too_large": len(upload.content) > config.max_file_size,
            "type_not_allowed": "*/*" not in config.allowed_types,
        }
        if not reasons.get(upload.code, False):
            raise self.broken(f"{client} is told of {upload}: {upload.code}")

    def _check_loss(self, client: SimulatedClient, upload: SimulatedUpload) -> None:
        """Fail if whoever is told that nobody knows what has become of a file could have been told."""
        server, connection_id = client.server, client.connection_id
        assert server is not None and connection_id is not None, "somebody has said it"  # noqa: PT018
        timeout, life = _config(server).resume_timeout, self._ledger.life_of[connection_id]
        for publication in self._ledger.by_number.get(upload.number, ()):
            if publication.line.life == life == server.life and publication.clock + timeout > server.now():
                raise self.broken(f"{client} is told that nobody knows of {upload}, and {publication} is known yet")

    # The end

    def emptied(self) -> None:
        """See `Invariant`."""
        for server in self.simulation.servers:
            keeper = server.keeper
            if keeper.incoming:
                raise self.broken(f"{server} waits for more of {', '.join(keeper.incoming)}")
            for file_id in keeper.disk:
                if file_id not in self._published and file_id not in keeper.orphans:
                    raise self.broken(f"{server} keeps {file_id}, which was not published")


def _config(server: SimulatedServer) -> FileConfig:
    config = server.config.node.files
    assert config is not None, "or there would be no file"
    return config
