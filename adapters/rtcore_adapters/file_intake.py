"""The files of one request: all of them are kept and published, or none."""

from __future__ import annotations

import logging
import mimetypes
from types import TracebackType
from typing import Final, Self

import anyio
import attrs

from rtcore import Message, Refusal
from rtcore.channels import user_channel
from rtcore.media_types import OCTET_STREAM, essence_of
from rtcore.messages import check_channel, normalize_user_id
from rtcore.permissions import Identity
from rtcore.router import Published
from rtcore.uploads import KeptFile, bare_filename, check_type
from rtcore_transports import Driver
from rtcore_transports.file_incoming import Incoming
from rtcore_transports.file_store import FileStoreError
from rtcore_transports.files import Files

from .errors import RefusalError

__all__ = ["ONE_TARGET", "TARGETS", "FileIntake", "Target", "receipt_of", "target_of"]

#: How requests call where files go.
TARGETS: Final = ("channel", "user_id")
#: What is said where that is not clear.
ONE_TARGET: Final = Refusal("missing_target", "name one target: 'channel' or 'user_id'")

_log = logging.getLogger("rtcore.files")

# Each of them holds memory and a place in the store, and waits to be told where it goes.
_MAX_WAITING: Final = 8


@attrs.frozen
class Target:
    """Where files go.

    Attributes:
        channel: The channel, for a user the one of that user.
        field: How the API calls it: ``channel`` or ``user_id``.
        value: What it says there.
    """

    channel: str
    field: str
    value: str

    @property
    def fields(self) -> Message:
        """What of a message says where it goes."""
        return {"channel" if self.field == "channel" else "recipient_id": self.value}


def receipt_of(published: Published) -> Message:
    """Return what is told of a publication."""
    return {"id": published.id, "offset": published.offset, "epoch": published.epoch}


def target_of(field: str, value: object) -> Target:
    """Return the target that the field ``channel`` or ``user_id`` of a request names; raises `RefusalError`."""
    if field == "channel":
        if refusal := check_channel(value):
            raise RefusalError(refusal)
        return Target(str(value), field, str(value))
    user_id = normalize_user_id(value)
    if isinstance(user_id, Refusal):
        raise RefusalError(user_id)
    return Target(user_channel(user_id), field, user_id)


@attrs.define
class _Arrival:
    """One file: on its way in, and then kept."""

    incoming: Incoming
    filename: str | None
    content_type: str
    kept: KeptFile | None = None


class FileIntake:
    """Takes the files of one request in, as a context: what was not published at its end is kept no longer.

    Args:
        driver: Whose node they are published to.
        files: Where they are kept.
        sender: Who sends them.
        target: Where they go, if that is known; else `address` is to be called.

    Raises:
        RefusalError: By its methods, where something is refused; nothing more may follow.
        FileStoreError: Likewise by the store.
    """

    def __init__(self, driver: Driver, files: Files, sender: Identity, target: Target | None = None) -> None:
        self._driver = driver
        self._files = files
        self._sender = sender
        self._target = target
        self._arrivals: list[_Arrival] = []
        self._published = False

    def address(self, target: Target) -> None:
        """Take note of where they go, those that have come already too."""
        if self._target is not None and self._target != target:
            raise RefusalError(ONE_TARGET)
        self._target = target
        for arrival in self._arrivals:
            self._check(arrival.content_type, arrival.incoming.size)

    async def begin(self, filename: str | None, content_type: str | None, size: int | None = None) -> None:
        """Begin one file.

        Args:
            filename: What it is called, with or without folders; empty or ``None`` for no name.
            content_type: Its media type; where that says nothing, the name does.
            size: How many bytes it is going to have; ``None`` where nobody knows.
        """
        name = bare_filename(filename or None)
        if isinstance(name, Refusal):
            raise RefusalError(name)
        allowed = self._files.config.file.allowed_types
        kind = check_type(_told_by(name, content_type), allowed)
        if isinstance(kind, Refusal):
            raise RefusalError(kind)
        if self._target is not None:
            self._check(kind, size)
        elif len(self._arrivals) >= _MAX_WAITING:
            text = f"name the 'channel' or 'user_id' in the query, or before the files: more than {_MAX_WAITING} come"
            raise RefusalError(Refusal("missing_target", text))
        channel = "" if self._target is None else self._target.channel
        incoming = await self._files.create(
            channel=channel, user_id=self._sender.user_id, filename=name, content_type=kind, size=size
        )
        self._arrivals.append(_Arrival(incoming, name, kind))

    async def write(self, data: bytes) -> None:
        """Take more of the file that has begun last."""
        await self._arrivals[-1].incoming.write(data)

    async def end(self) -> None:
        """Take note that this file is complete."""
        if self._target is not None:
            await self._keep()

    async def publish(self) -> list[Message]:
        """Publish all of them; returns what is told of each."""
        if self._target is None:
            raise RefusalError(ONE_TARGET)
        if not self._arrivals:
            raise RefusalError(Refusal("missing_file", "send at least one file, in a part called 'file'"))
        await self._keep()
        files = [(arrival.kept, self._head_of(arrival)) for arrival in self._arrivals if arrival.kept is not None]
        published = await self._driver.publish_files(self._sender, self._target.channel, files)
        if isinstance(published, Refusal):
            raise RefusalError(published)
        self._published = True
        return [
            {
                "file_id": kept.file_id,
                "url": kept.url,
                "size": kept.size,
                "sha256": kept.sha256,
                "content_type": arrival.content_type,
                **({} if arrival.filename is None else {"filename": arrival.filename}),
                self._target.field: self._target.value,
                **receipt_of(outcome),
            }
            for arrival, (kept, _), outcome in zip(self._arrivals, files, published, strict=True)
        ]

    async def __aenter__(self) -> Self:
        """Begin."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Keep nothing, unless it was published."""
        if self._published:
            return
        with anyio.CancelScope(shield=True):
            for arrival in self._arrivals:
                if arrival.kept is None:
                    await arrival.incoming.abort()
                    continue
                try:
                    await self._files.delete(arrival.kept.file_id)
                except FileStoreError as failure:
                    # Nobody knows its id, and its time will come.
                    _log.warning("a file that was not published is not removed: %s", failure)

    async def _keep(self) -> None:
        """Keep what is complete; now it is known where it goes."""
        assert self._target is not None, "the caller has looked"
        for arrival in self._arrivals:
            if arrival.kept is None:
                arrival.incoming.address(self._target.channel)
                arrival.kept = await arrival.incoming.finish()

    def _head_of(self, arrival: _Arrival) -> Message:
        """Return what is said of a file, besides what is kept."""
        assert self._target is not None, "the caller has looked"
        head: Message = {**self._target.fields, "content_type": arrival.content_type}
        return head if arrival.filename is None else {**head, "filename": arrival.filename}

    def _check(self, content_type: str, size: int | None) -> None:
        node_files, target = self._driver.node.files, self._target
        assert target is not None, "the caller has looked"
        assert node_files is not None, "who keeps files has a node that takes some"
        if refusal := node_files.check(target.channel, asker=self._sender, content_type=content_type, size=size or 0):
            raise RefusalError(refusal)


def _told_by(filename: str | None, content_type: str | None) -> str | None:
    """Return the media type of a file: what its sender says, or else what its name does."""
    if filename is None or (content_type is not None and essence_of(content_type) != OCTET_STREAM):
        return content_type
    guessed, encoding = mimetypes.guess_type(filename)
    # What is compressed as a whole, such as a ".tar.gz", is not what its name says without that.
    return content_type if guessed is None or encoding is not None else guessed
