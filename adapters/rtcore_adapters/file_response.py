"""A kept file as the answer to a request: whole or in part, and so that no browser takes it for a page of ours."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from rtcore import Refusal
from rtcore_transports.file_store import StoredFile
from rtcore_transports.files import Files

from .errors import RefusalError, refusal_response
from .ranges import Unsatisfiable, Validators, requested_range
from .stores.faults import disk_faults

__all__ = ["NO_FILE", "file_response"]

#: What is said of a file that there is not (any more), and of one that somebody may not read.
NO_FILE: Final = Refusal("not_found", "there is no file of this id, or none that you may read", status=404)

# What a browser runs of that for which it says that it asks (W3C Fetch Metadata, section 2.1).
_RUN: Final = ("script", "style", "xslt", "worker", "sharedworker", "serviceworker", "audioworklet", "paintworklet")
_NOT_RUN: Final = Refusal("not_a_script", "no page runs what somebody has sent: load it by 'fetch'", status=403)

_ZERO_COPY: Final = "http.response.zerocopysend"
# Seconds. A file does not change, but who may read it does, and it is kept by others no longer than this.
_LONGEST_AGE: Final = 31_536_000
# What a browser shows without running anything of it. An SVG has scripts.
_SHOWN: Final = ("image/", "audio/", "video/")
_NOT_SHOWN: Final = "image/svg"
# What goes into a quoted string as it is, and is taken there for nothing else (RFC 6266, appendix D).
_PLAIN: Final = frozenset(map(chr, range(0x20, 0x7F))) - frozenset('"\\%')
# What else an extended value may have (RFC 8187, section 3.2.1).
_ATTR_CHARS: Final = "!#$&+^`|"


async def file_response(request: Request, files: Files, file: StoredFile, *, timestamp: int) -> Response:
    """Return what a request for a file is answered with.

    Args:
        request: ``GET`` or ``HEAD``, whose preconditions and range are heeded (RFC 9110, sections 13 and 14).
        files: Where it is.
        file: What is known of it.
        timestamp: Milliseconds since 1970.

    Raises:
        RefusalError: 403 where a browser would run it as a part of a page, 412 where a precondition fails.
        FileStoreError: It cannot be read.
    """
    if request.headers.get("sec-fetch-dest") in _RUN:
        # A policy of "script-src 'self'" allows what comes from here, whoever has put it here.
        raise RefusalError(_NOT_RUN)
    validators = Validators(f'"{file.sha256}"', file.created_at)
    caching = {
        "etag": validators.etag,
        "last-modified": validators.last_modified,
        "cache-control": f"private, max-age={_age_of(file, timestamp)}, immutable",
        "vary": "Sec-Fetch-Dest",
    }
    headers = request.headers
    if "if-match" in headers and not validators.is_among(_joined(request, "if-match"), weakly=False):
        raise RefusalError(Refusal("precondition_failed", "the file has another 'ETag'", status=412))
    if "if-none-match" in headers:
        is_known = validators.is_among(_joined(request, "if-none-match"), weakly=True)
    else:
        is_known = "if-modified-since" in headers and validators.is_unchanged_since(headers["if-modified-since"])
    if is_known:
        return Response(status_code=304, headers=caching)
    part = None
    # "A server MUST ignore a Range header field received with a request method [...] for which range handling is not
    # defined. For this specification, GET is the only method for which range handling is defined." (section 14.2)
    if request.method == "GET" and validators.allow_range(headers.get("if-range")):
        part = requested_range(headers.getlist("range"), file.size)
    if isinstance(part, Unsatisfiable):
        refusal = Refusal("range_not_satisfiable", f"the file has {file.size} bytes", status=416)
        return refusal_response(refusal, {"content-range": f"bytes */{file.size}"})
    start, stop = part or (0, file.size)
    fields = {
        **caching,
        "content-type": file.content_type,
        "content-length": str(stop - start),
        "content-disposition": _disposition(file),
        "accept-ranges": "bytes",
        # Whatever it says that it is, it is no page, script or style sheet of ours.
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox; default-src 'none'",
        "cross-origin-resource-policy": "same-site",
    }
    if part is not None:
        fields["content-range"] = f"bytes {start}-{stop - 1}/{file.size}"
    return _FileResponse(files, file, start, stop, 200 if part is None else 206, fields)


class _FileResponse(Response):
    """The bytes of a file from `start` up to but not including `stop`."""

    def __init__(
        self, files: Files, file: StoredFile, start: int, stop: int, status: int, headers: dict[str, str]
    ) -> None:
        self.status_code = status
        self.background = None
        self.raw_headers = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        self._files = files
        self._file = file
        self._start = start
        self._stop = stop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. A store that cannot give it says so before anything is sent."""
        head = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        if scope["method"] == "HEAD" or self._start == self._stop:
            await send(head)
            await send({"type": "http.response.body", "body": b""})
            return
        path = self._files.path_of(self._file) if _ZERO_COPY in scope.get("extensions", {}) else None
        if path is None:
            await self._read_and_send(head, receive, send)
        else:
            await self._have_sent(head, path, send)

    async def _have_sent(self, head: Message, path: Path, send: Send) -> None:
        """Have the host send it from where it is, which ends as well where the client is gone."""
        with disk_faults():
            try:
                file = await anyio.to_thread.run_sync(open, path, "rb")
            except FileNotFoundError:
                # It has been deleted since it was found.
                raise RefusalError(NO_FILE) from None
        with file:
            await send(head)
            await send({"type": _ZERO_COPY, "file": file, "offset": self._start, "count": self._stop - self._start})

    async def _read_and_send(self, head: Message, receive: Receive, send: Send) -> None:
        async with aclosing(self._read()) as bodies:
            first = await anext(bodies)
            async with anyio.create_task_group() as tasks:

                async def watch() -> None:
                    # Hosts turn `send` into nothing once the client is gone; only `receive` tells.
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    tasks.cancel_scope.cancel()

                tasks.start_soon(watch)
                with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
                    await send(head)
                    await send(first)
                    async for body in bodies:
                        await send(body)
                tasks.cancel_scope.cancel()

    async def _read(self) -> AsyncGenerator[Message, None]:
        left = self._stop - self._start
        pieces = self._files.read(self._file, self._start, self._stop)
        try:
            async for piece in pieces:
                left -= len(piece)
                yield {"type": "http.response.body", "body": piece, "more_body": left > 0}
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()


def _age_of(file: StoredFile, timestamp: int) -> int:
    if file.expires_at is None:
        return _LONGEST_AGE
    return max(0, min(_LONGEST_AGE, (file.expires_at - timestamp) // 1000))


def _disposition(file: StoredFile) -> str:
    """Return the value of ``Content-Disposition`` (RFC 6266): whether it is shown, and how it is called once saved."""
    kind = file.content_type.partition(";")[0].strip().lower()
    is_shown = kind == "text/plain" or (kind.startswith(_SHOWN) and not kind.startswith(_NOT_SHOWN))
    disposition = "inline" if is_shown else "attachment"
    if file.filename is None:
        return disposition
    plain = "".join(each if each in _PLAIN else "_" for each in file.filename)
    disposition += f'; filename="{plain}"'
    if plain != file.filename:
        disposition += f"; filename*=UTF-8''{quote(file.filename, safe=_ATTR_CHARS)}"
    return disposition


def _joined(request: Request, name: str) -> str:
    """Return the value of a list that may be on several lines (RFC 9110, section 5.3)."""
    return ",".join(request.headers.getlist(name))
