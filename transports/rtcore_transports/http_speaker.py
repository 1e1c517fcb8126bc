"""What the clients say over HTTP, beside their stream, in the same words, and the files that they get by it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from rtcore import ClientConfig, Message
from rtcore.messages import NotificationType

from . import file_download
from .file_download import Progress, RemoteFile
from .http_publisher import HttpPublisher

__all__ = ["HttpSpeaker"]


class HttpSpeaker:
    """The part of the clients that is the same for both.

    All of it works whether they are connected or not. What publishes returns ``{"id", "offset", "epoch"}``.

    Args:
        http: What publishes.
        retries: How often to try again to get a file, and after which waits.
    """

    def __init__(self, http: HttpPublisher, retries: ClientConfig) -> None:
        self._http = http
        self._retries = retries

    async def broadcast(self, message: object) -> Message:
        """Publish to everybody, over HTTP. A message that is not an object becomes ``{"data": message}``.

        Raises:
            CommandError: The server refused it.
            ConnectionFailed: There was no answer, or no token.
            LocalProtocolError: JSON cannot express it.
        """
        return await self._http.broadcast(message)

    async def send_notification(
        self,
        title: str,
        content: str,
        type: NotificationType = "info",
        channel: str | None = None,
        user_id: str | int | None = None,
        *,
        auto_hide: bool = True,
        duration: int | None = None,
    ) -> Message:
        """Publish a notification, over HTTP, to a channel or to a user, or else to everybody.

        Args:
            title: Its headline.
            content: Its text.
            type: How to show it.
            channel: Whom to.
            user_id: Whom to.
            auto_hide: Whether it goes away by itself.
            duration: Milliseconds until it does.

        Raises:
            CommandError: The server refused it.
            ConnectionFailed: There was no answer, or no token.
            LocalProtocolError: It is not a notification, or names both a channel and a user.
        """
        return await self._http.send_notification(
            title=title,
            content=content,
            type=type,
            channel=channel,
            user_id=user_id,
            auto_hide=auto_hide,
            duration=duration,
        )

    def open_file(self, source: Mapping[str, object] | str) -> AbstractAsyncContextManager[RemoteFile]:
        """Open a file that somebody has sent: ``async with client.open_file(message) as file``.

        Where the message holds the file, nothing is asked for. Otherwise it is read over HTTP, with the credentials of
        the client; where that breaks off, the rest is asked for, after growing waits. No more of it than a piece is in
        memory.

        Args:
            source: A message of type ``binary``, as `WSClient` or the JSON of an `SSEClient` has it; or the ``url`` in
                it.

        Returns:
            What gives a `RemoteFile` on entering, and raises there:

        Raises:
            CommandError: The server refused it (``not_found``), or it is not the one that was announced
                (``file_changed``).
            ConnectionFailed: It did not answer, as often as was tried: `ClientConfig.max_reconnect_attempts` in a row,
                or else ten; or there is no token.
            LocalProtocolError: The message is about no file; or its URL is none, or of another server, which is not to
                get the credentials.
        """
        return file_download.open_file(self._http, source, self._retries)

    async def save_file(
        self,
        source: Mapping[str, object] | str,
        target: str | os.PathLike[str],
        *,
        progress: Progress | None = None,
    ) -> Path:
        """Save a file that somebody has sent; returns where it is, once all of it is there, and is what was announced.

        Until then it has another name, which begins with a dot and ends with ``.part``; if it fails, or is cancelled,
        nothing is left.

        Args:
            source: As `open_file` has it.
            target: A folder, where it gets the name that the sender has given it, made safe, and with a number where
                that is taken; or the path that it is to have: what is there is replaced.
            progress: Called with how many bytes have come, and how many there are (0 where the server does not tell),
                from time to time; async or not. What it raises ends it.

        Raises:
            CommandError: As `open_file` does; or it is not what was announced (``checksum_mismatch``).
            ConnectionFailed, LocalProtocolError: As `open_file` does.
            OSError: It cannot be written.
        """
        return await file_download.save_file(self._http, source, target, self._retries, progress)
