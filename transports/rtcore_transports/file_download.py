"""How the clients get the files that messages name: over HTTP, over as many responses as it takes, or from the message.

A response that breaks off is asked for again from where it was (RFC 9110, section 14), as long as it is of the same
file, which its ``ETag`` tells (section 13.1.5, ``If-Range``).
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import mimetypes
import os
import random
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from email.message import Message as Headed
from email.utils import collapse_rfc2231_value
from pathlib import Path
from typing import Final, TypeAlias

import anyio
import attrs
import httpx2

from rtcore import BinaryMessage, ClientConfig, CommandError, ConnectionFailed, LocalProtocolError
from rtcore.media_types import OCTET_STREAM

from .client_request import reason_of, refusal_in
from .file_names import safe_name
from .http_publisher import HttpPublisher, unwind

__all__ = ["Progress", "RemoteFile", "filename_of", "open_file", "report", "save_file"]

_log = logging.getLogger("rtcore.client")

#: Called with how many bytes have been carried, and how many there are; async or not.
Progress: TypeAlias = Callable[[int, int], object]

# Seconds for each step of a request: a store far away may take its time to begin.
_TIMEOUT: Final = 30.0
# Attempts in a row that may bring nothing, where the client itself would go on for ever: two minutes or so.
_ATTEMPTS: Final = 10
# What may be better the next time (RFC 9110, section 15.6; RFC 6585, section 4).
_PASSING: Final = (429, 502, 503, 504)
_MAX_ERROR_BODY: Final = 16384
_PIECE: Final = 65536
# So much is written to a file at once: the way to a worker thread and back takes longer than to write a piece.
_BLOCK: Final = 2**19
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


@attrs.frozen
class _Facts:
    """What is said of a file; ``None`` is what is not."""

    size: int | None = None
    content_type: str | None = None
    filename: str | None = None
    sha256: str | None = None

    @classmethod
    def of_message(cls, message: Mapping[str, object]) -> _Facts:
        size, kind, name, digest = (message.get(field) for field in ("size", "content_type", "filename", "sha256"))
        return cls(
            size if isinstance(size, int) and not isinstance(size, bool) else None,
            kind if isinstance(kind, str) else None,
            name if isinstance(name, str) else None,
            digest if isinstance(digest, str) else None,
        )

    @classmethod
    def of_response(cls, response: httpx2.Response) -> _Facts:
        length = response.headers.get("content-length", "")
        digest = response.headers.get("etag", "").removeprefix("W/").strip('"')
        return cls(
            int(length) if length.isascii() and length.isdecimal() and len(length) < 19 else None,
            response.headers.get("content-type"),
            filename_of(response.headers.get("content-disposition", "")),
            digest if _SHA256.fullmatch(digest) else None,
        )


def filename_of(disposition: str) -> str | None:
    """Return what a ``Content-Disposition`` calls the file, or ``None``.

    "When both "filename" and "filename*" are present in a single header field value, recipients SHOULD pick "filename*"
    and ignore "filename"" (RFC 6266, section 4.3).
    """
    headed = Headed()
    headed["content-disposition"] = disposition
    values = [value for name, value in headed.get_params([], "content-disposition") if name.lower() == "filename"]
    # An extended one has its charset and language before it.
    extended = [collapse_rfc2231_value(value) for value in values if not isinstance(value, str)]
    return next(iter(extended or values), None)


class _Inline:
    """The bytes of a file that a message holds."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self, position: int) -> bytes:
        return self._data[position : position + _PIECE]

    async def aclose(self) -> None:
        pass


class _Download:
    """The bytes of a file over HTTP.

    Args:
        http: Who asks.
        url: Where it is.
        config: How often to try again, and after which waits.
    """

    def __init__(self, http: HttpPublisher, url: str, config: ClientConfig) -> None:
        self._http = http
        self._url = http.url_of(url)
        self._config = config
        self._client = http.new_client(timeout=_TIMEOUT)
        self._response: httpx2.Response | None = None
        self._content: AsyncIterator[bytes] | None = None
        # Of the first response; ``None`` before it.
        self._facts: _Facts | None = None
        self._etag: str | None = None
        # Whether it can be told if what comes next is of the same file.
        self._known = False
        # What comes first on this response, and was had on an earlier one.
        self._skip = 0
        self._size: int | None = None
        self._fruitless = 0

    async def open(self, announced: _Facts) -> _Facts:
        """Ask for it; returns what is said of it, as `announced` or else by the server. Raises as `read` does."""
        response = await self._respond(0)
        self._etag = response.headers.get("etag")
        self._facts = served = _Facts.of_response(response)
        if served.size is not None and announced.size not in (None, served.size):
            fault = f"the file has {served.size} bytes, and not {announced.size} as was announced"
            raise CommandError("file_changed", fault)
        said = {name: value for name, value in attrs.asdict(announced).items() if value is not None}
        facts = attrs.evolve(served, **said)
        self._size = facts.size
        self._known = facts.sha256 is not None or self._is_strong
        return facts

    async def read(self, position: int) -> bytes:
        """Return what comes at `position`, where the last piece has ended; nothing at the end.

        Raises:
            CommandError: The server refused it, or has another file there now (``file_changed``).
            ConnectionFailed: It did not answer, as often as it was tried.
            LocalProtocolError: What is to be a token is none.
        """
        while self._size is None or position < self._size:
            if self._content is None:
                await self._respond(position)
            assert self._content is not None, "there is a response"
            piece: bytes | None = None
            # Without an error a read ends that was cancelled before, and what comes without a length.
            failure = ConnectionFailed("the connection ended before the file did")
            try:
                piece = await anext(self._content, None)
                if piece is None and self._size is None:
                    return b""
            except httpx2.HTTPError as error:
                failure = ConnectionFailed(f"the connection broke off: {reason_of(error)}")
            if piece is None:
                await self._let_go()
                if position and not self._known:
                    raise failure
                await self._wait(failure, None)
                continue
            self._fruitless = 0
            skipped = min(self._skip, len(piece))
            self._skip -= skipped
            if skipped < len(piece):
                return piece[skipped:]
        return b""

    async def aclose(self) -> None:
        """Let go of everything."""
        # It only lets go of sockets, so it does not wait for anybody.
        with anyio.CancelScope(shield=True):
            await self._let_go()
            await self._client.aclose()

    @property
    def _is_strong(self) -> bool:
        return self._etag is not None and not self._etag.startswith("W/")

    async def _respond(self, position: int) -> httpx2.Response:
        headers = [(b"accept-encoding", b"identity")]
        if position:
            headers.append((b"range", b"bytes=%d-" % position))
            # "A client MUST NOT generate an If-Range header field containing an entity tag that is marked as weak."
            if self._is_strong and self._etag is not None:
                headers.append((b"if-range", self._etag.encode()))
        while True:
            retry_after: float | None = None
            failure: ConnectionFailed | CommandError
            try:
                response = self._response = await self._http.stream(self._client, self._url, tuple(headers))
                self._content = response.aiter_raw()
                if response.status_code in (200, 206):
                    self._check(response, position)
                    return response
                failure = await self._refusal(response)
                if response.status_code not in _PASSING:
                    raise failure
                retry_after = failure.retry_after
            except ConnectionFailed as error:
                failure = error
            except httpx2.HTTPError as error:
                failure = ConnectionFailed(f"the connection broke off: {reason_of(error)}")
            await self._let_go()
            await self._wait(failure, retry_after)

    async def _refusal(self, response: httpx2.Response) -> CommandError:
        body = b""
        assert self._content is not None, "there is a response"
        async for data in self._content:
            body += data
            if len(body) > _MAX_ERROR_BODY:
                break
        refusal = refusal_in(response.status_code, response.headers, body)
        return CommandError(refusal.code, refusal.message, refusal.retry_after)

    def _check(self, response: httpx2.Response, position: int) -> None:
        """See whether a response goes on with the file at `position`."""
        if response.status_code == 200:
            # A server need not know of ranges; and says so too that the file is not the one that `If-Range` names.
            etag = response.headers.get("etag")
            if self._facts is not None and (etag is None or etag != self._etag):
                raise CommandError("file_changed", "the server has another file there now: begin anew")
            self._skip = position
            return
        self._skip = 0
        match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        if match is None or int(match[1]) != position or self._size not in (None, int(match[3])):
            raise CommandError("file_changed", f"the server does not go on with the file at byte {position}")

    async def _wait(self, failure: ConnectionFailed | CommandError, retry_after: float | None) -> None:
        limit = self._config.max_reconnect_attempts
        if not self._config.auto_reconnect or self._fruitless >= (_ATTEMPTS if limit is None else limit):
            raise failure
        wait = max(random.random() * self._config.backoff(self._fruitless), retry_after or 0.0)
        self._fruitless += 1
        _log.info("%s: next attempt in %.1f s", failure, wait)
        await anyio.sleep(wait)

    async def _let_go(self) -> None:
        response, content = self._response, self._content
        self._response = self._content = None
        if content is not None:
            await unwind(content)
        if response is not None:
            await response.aclose()


class RemoteFile:
    """A file that somebody has sent. Iterating gives its bytes, once, in pieces of 64 KiB or so.

    Where a connection breaks off, it goes on by another. At the end, what has come is compared with what was announced.

    Attributes:
        size: Its bytes; ``None`` where the server does not tell.
        content_type: Its media type, as the sender says.
        filename: What the sender calls it, made safe as a name inside a folder; ``None`` for no name.
        sha256: Of what is in it, in hexadecimal; ``None`` where nobody tells. Then it is not checked.
    """

    def __init__(self, content: _Inline | _Download, facts: _Facts) -> None:
        self.size = facts.size
        self.content_type = facts.content_type or OCTET_STREAM
        self.filename = safe_name(facts.filename) if facts.filename else None
        self.sha256 = facts.sha256
        self._content = content
        self._position = 0
        self._digest = hashlib.sha256()

    def __aiter__(self) -> RemoteFile:
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece.

        Raises:
            CommandError: The server refuses the file now, has another one there (``file_changed``), or it is not what
                was announced (``checksum_mismatch``).
            ConnectionFailed: It does not answer, as often as it was tried.
        """
        piece = await self._content.read(self._position)
        if piece:
            self._position += len(piece)
            self._digest.update(piece)
            if self.size is None or self._position <= self.size:
                return piece
        if self.size not in (None, self._position) or self.sha256 not in (None, self._digest.hexdigest()):
            raise CommandError("checksum_mismatch", "the file is not the one that was announced: get it anew")
        raise StopAsyncIteration


@asynccontextmanager
async def open_file(
    http: HttpPublisher, source: Mapping[str, object] | str, config: ClientConfig
) -> AsyncIterator[RemoteFile]:
    """Open the file of a message, or the one at a URL; see `HttpSpeaker.open_file`."""
    facts = _Facts()
    if not isinstance(source, str):
        facts = _Facts.of_message(source)
        if isinstance(source.get("data"), bytes | bytearray | memoryview) or "binary_data" in source:
            inline = BinaryMessage.from_message(source)
            digest = facts.sha256 or hashlib.sha256(inline.data).hexdigest()
            yield RemoteFile(_Inline(inline.data), attrs.evolve(facts, size=inline.size, sha256=digest))
            return
        url = source.get("url")
        if source.get("type") != "binary" or not isinstance(url, str):
            raise LocalProtocolError("this message holds no file, and names none: a file's type is 'binary'")
        source = url
    download = _Download(http, source, config)
    try:
        yield RemoteFile(download, await download.open(facts))
    finally:
        await download.aclose()


async def save_file(
    http: HttpPublisher,
    source: Mapping[str, object] | str,
    target: str | os.PathLike[str],
    config: ClientConfig,
    progress: Progress | None,
) -> Path:
    """Save the file of a message, or the one at a URL; see `HttpSpeaker.save_file`."""
    path = Path(target)
    in_folder = os.fspath(target).endswith(("/", os.sep)) or await anyio.Path(path).is_dir()
    async with open_file(http, source, config) as file:
        folder, name = path.parent, path.name
        if in_folder:
            kind = file.content_type.partition(";")[0].strip().lower()
            folder, name = path, file.filename or f"file{mimetypes.guess_extension(kind) or ''}"
        partial = folder / f".{safe_name(name)}.{secrets.token_hex(4)}.part"
        try:
            received, size = 0, file.size or 0
            waiting = bytearray()
            async with await anyio.open_file(partial, "xb") as out:
                await report(progress, 0, size)
                async for piece in file:
                    waiting += piece
                    if len(waiting) >= _BLOCK:
                        await out.write(waiting)
                        waiting.clear()
                    received += len(piece)
                    await report(progress, received, size)
                await out.write(waiting)
            place = _place_anew if in_folder else _place
            return await anyio.to_thread.run_sync(place, partial, folder / name)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


async def report(progress: Progress | None, done: int, total: int) -> None:
    """Tell whoever wants to know how far a file has come."""
    result = None if progress is None else progress(done, total)
    if inspect.isawaitable(result):
        awaited: Awaitable[object] = result
        await awaited


def _place(partial: Path, path: Path) -> Path:
    return partial.replace(path)


def _place_anew(partial: Path, path: Path) -> Path:
    """Give a file its name, or one like it that no other has: what a stranger sends replaces nothing."""
    taken = 0
    while True:
        free = path.with_name(f"{path.stem} ({taken}){path.suffix}") if taken else path
        try:
            # Whoever makes it has it, whoever else looks for a name at the same time.
            free.touch(exist_ok=False)
        except FileExistsError:
            taken += 1
            continue
        return partial.replace(free)
