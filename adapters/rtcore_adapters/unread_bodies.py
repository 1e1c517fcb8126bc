"""What becomes of the body of a request that is refused whatever its body says."""

from __future__ import annotations

from typing import Final

import anyio
from starlette.types import Receive, Scope

__all__ = ["skip_body"]

# What has been sent along with the head, and is there or about to be.
_MAX_SKIPPED: Final = 2**20
_SKIP_TIMEOUT: Final = 0.25
# Longer numbers are no lengths.
_MAX_DIGITS: Final = 18


async def skip_body(scope: Scope, receive: Receive) -> None:
    """Read a body that nobody wants, if it is little and comes at once.

    Where some of it is left, hosts may end the connection after the answer, and without a word: whoever has sent
    another request on it does not know what became of that.
    """
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"0")
    if b"transfer-encoding" not in headers and not length.strip(b"0"):
        return
    if b"expect" in headers or len(length) > _MAX_DIGITS or not length.isdigit() or int(length) > _MAX_SKIPPED:
        # Whoever waits for "100 (Continue)" has sent nothing yet, and reading would ask for it.
        return
    left = _MAX_SKIPPED
    with anyio.move_on_after(_SKIP_TIMEOUT):
        while left >= 0:
            message = await receive()
            if not message.get("more_body", False):
                return
            left -= len(message.get("body", b""))
