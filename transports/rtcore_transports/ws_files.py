"""What a client does about files: it sends them, within one message or in chunks."""

from __future__ import annotations

import mimetypes
import os
import secrets
import stat
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import anyio

from rtcore import BinaryMessage, LocalProtocolError, Message
from rtcore.binary import Bytes
from rtcore.client import Command, Publish, Upload
from rtcore.media_types import OCTET_STREAM

from .client_request import take_id, user_id_of
from .file_download import Progress
from .ws_session import WSSession
from .ws_uploads import FileUpload

__all__ = ["FileClient"]

# What is compressed is of the type of its compression, and not of what is in it.
_COMPRESSED: Final = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}


class FileClient(ABC):
    """The part of `rtcore_transports.WSClient` that sends files."""

    @abstractmethod
    async def _ready(self) -> WSSession:
        """Return the session, once something can be sent on it."""

    @staticmethod
    @abstractmethod
    async def _outcome(session: WSSession, command: Command) -> Message:
        """Give a command, and return its outcome."""

    async def send_binary(
        self,
        data: BinaryMessage | Bytes,
        *,
        content_type: str | None = None,
        filename: str | None = None,
        channel: str | None = None,
        user_id: str | int | None = None,
        ack: bool = False,
        **fields: object,
    ) -> Message | None:
        """Send a file within one message of type ``binary``; see `send_json`.

        Its receivers hear it in order with all other messages. It is kept in memory until it is acknowledged, and sent
        again after a loss. What is larger than the server takes in one message (1 MiB unless it is told otherwise) is
        for `send_file`.

        Args:
            data: What is in it.
            content_type: Its media type; ``application/octet-stream`` if left out.
            filename: What it is called.
            channel: Whom to: those in a channel,
            user_id: or a user; without either, a handler of the server's application for ``binary``.
            ack: Wait for the acknowledgement, and return it.
            fields: More fields of the message, such as ``persistent``, ``event``, ``echo`` or an ``id`` of its own.

        Raises:
            CommandError: With `ack`, the server refused it: ``binary_too_large``, ``type_not_allowed``…
            ConnectionClosed: With `ack`, the connection was lost before the answer came.
            LocalProtocolError: It names both a channel and a user, or is no file; or as `send_json` does.
        """
        message = data if isinstance(data, BinaryMessage) else BinaryMessage.from_bytes(data)
        message = BinaryMessage(message.data, content_type or message.content_type, filename or message.filename)
        head = message.to_head(**fields, **_target(channel, user_id))
        # The server counts for itself.
        del head["size"]
        own_id = take_id(head)
        session = await self._ready()
        await session.find_room()
        publish = Publish(head, message.data)
        if ack:
            return await self._outcome(session, publish)
        session.post(publish, own_id)
        await session.drain()
        return None

    async def send_file(
        self,
        path: str | os.PathLike[str],
        *,
        channel: str | None = None,
        user_id: str | int | None = None,
        content_type: str | None = None,
        filename: str | None = None,
        progress: Progress | None = None,
        message: Mapping[str, object] | None = None,
    ) -> Message:
        """Send a file of any size, in chunks; returns when the server has kept and published it.

        What else is sent meanwhile goes between two chunks, and other files take turns with it. No more of it than
        half a megabyte is in memory. After a loss it goes on where it was; a server that was restarted gets it from
        the beginning. It is published once or, at worst, not at all. Cancelled, it is given up: the server keeps
        nothing, unless all of it had been sent by then.

        While a file is sent reading does not pause, however much waits for handlers and for iteration.

        Args:
            path: Where it is. It must not change before this returns.
            channel: Whom to: those in a channel, or
            user_id: a user.
            content_type: Its media type; guessed from the name if left out.
            filename: What to call it; the last part of the path if left out.
            progress: Called with how many bytes the server has stored, and how many there are, from time to time: it
                begins with 0, and begins anew where the server does. Async or not; what it raises ends the upload.
            message: More fields of the message that is published, such as ``persistent``, ``event`` or an ``id``.

        Returns:
            What the server says of it: ``file_id``, ``url``, ``size``, ``sha256``, ``content_type``, ``filename``, and
            ``id``, ``offset`` and ``epoch`` of the publication.

        Raises:
            CommandError: The server refused it (``file_too_large``, ``upload_denied``…), or it has failed there
                (``store_full``…); nothing of it is kept.
            ConnectionClosed: The client has ended; or the connection was lost when all was sent, and the server does
                not know any more what has become of it.
            LocalProtocolError: It names no channel and no user, or both; it is no file, or has changed meanwhile; JSON
                cannot express the message; or the client is not connected.
            OSError: It cannot be read.
        """
        target = _target(channel, user_id)
        if not target:
            raise LocalProtocolError("a file goes to a channel or to a user: name one")
        name = filename or Path(path).name
        head: dict[str, object] = {**target, "filename": name, "content_type": content_type or _type_of(name)}
        if message is not None:
            head["message"] = message
        session = await self._ready()
        # What is no file might be waited for without an end.
        status = await anyio.Path(path).stat()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise LocalProtocolError(f"{os.fspath(path)!r} is no file that has a size")
        async with await anyio.open_file(path, "rb") as file:
            size = await file.seek(0, os.SEEK_END)
            await file.seek(0)
            machine = Upload(secrets.token_urlsafe(16), head, size, retry_wait=session.retry_wait)
            return await FileUpload(session, machine, file, progress).run()


def _target(channel: str | None, user_id: str | int | None) -> dict[str, str]:
    """Return the field of a message that says whom it goes to, if that is said.

    Raises:
        LocalProtocolError: It is said twice, or the user cannot be.
    """
    if channel is not None and user_id is not None:
        raise LocalProtocolError("a file goes to a channel or to a user, not to both")
    if channel is not None:
        return {"channel": channel}
    return {} if user_id is None else {"recipient_id": user_id_of(user_id)}


def _type_of(name: str) -> str:
    """Return the media type of a file as its name tells it."""
    kind, compression = mimetypes.guess_type(name)
    if compression is not None:
        return _COMPRESSED.get(compression, OCTET_STREAM)
    return kind or OCTET_STREAM
