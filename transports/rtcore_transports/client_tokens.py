"""The tokens of a client that expire: where fresh ones are had from, and when."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import anyio

from rtcore import ConnectionFailed, LocalProtocolError
from rtcore.handshake import Headers

from .client_request import credentials

__all__ = ["Token", "TokenSource", "bearer"]

_log = logging.getLogger("rtcore.client")

#: A token, or an async function without arguments that returns a fresh one.
Token: TypeAlias = str | Callable[[], Awaitable[str]]


class _Asking:
    """One call of the user's function, for all who want its token. No outcome: whoever made it was cancelled."""

    __slots__ = ("done", "failure", "token")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.token: str | None = None
        self.failure: ConnectionFailed | LocalProtocolError | None = None


class TokenSource:
    """A user's function that returns tokens. It is never called twice at a time: who asks meanwhile gets the same one.

    No token is in what it logs or raises, nor is what the function raises, but as the cause.

    Args:
        function: Async, without arguments.

    Raises:
        LocalProtocolError: It is no function.
    """

    def __init__(self, function: Callable[[], Awaitable[str]]) -> None:
        if not callable(function):
            raise LocalProtocolError("a token is a text, or an async function that returns one")
        self._function = function
        self._last: str | None = None
        self._asking: _Asking | None = None

    @classmethod
    def of(cls, token: Token | TokenSource | None) -> tuple[str | None, TokenSource | None]:
        """Tell a token that is given once and for all from a source of tokens.

        Raises:
            LocalProtocolError: It is neither.
        """
        if token is None or isinstance(token, str):
            return token, None
        return None, token if isinstance(token, TokenSource) else cls(token)

    async def fresh(self, *, limit: float | None = None) -> str:
        """Return a fresh token.

        Args:
            limit: Seconds that it may take, or ``None``.

        Raises:
            ConnectionFailed: The function has raised something, or did not return in time.
            LocalProtocolError: What it returns is no token.
        """
        try:
            with anyio.fail_after(limit):
                return await self._fresh()
        except TimeoutError as error:
            _log.warning("no token came in time")
            raise ConnectionFailed("no token came in time") from error

    async def last(self, *, limit: float | None = None) -> str:
        """Return the last token, unless it was refused, else a fresh one; see `fresh`."""
        return await self.fresh(limit=limit) if self._last is None else self._last

    def refused(self, token: str) -> None:
        """Take note that the server did not accept a token."""
        if self._last == token:
            self._last = None

    async def _fresh(self) -> str:
        while (asking := self._asking) is not None:
            await asking.done.wait()
            if asking.failure is not None:
                raise type(asking.failure)(*asking.failure.args) from asking.failure.__cause__
            if asking.token is not None:
                return asking.token
        asking = self._asking = _Asking()
        try:
            asking.token = self._last = await self._ask()
        except (ConnectionFailed, LocalProtocolError) as error:
            asking.failure = error
            _log.warning("%s", error)
            raise
        finally:
            self._asking = None
            asking.done.set()
        return asking.token

    async def _ask(self) -> str:
        try:
            result = self._function()
            token: object = await result if inspect.isawaitable(result) else None
        except Exception as error:
            # What it says is not passed on, for who knows what is in it.
            raise ConnectionFailed(f"no token: the function that returns them raised {type(error).__name__}") from error
        if not isinstance(token, str):
            raise LocalProtocolError("no token: what returns them is an async function, and they are texts")
        bearer(token)
        return token


def bearer(token: str) -> Headers:
    """Return the header that carries a token.

    Raises:
        LocalProtocolError: It cannot.
    """
    return credentials(token, None)
