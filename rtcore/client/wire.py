"""The messages between a client and a server that the client itself understands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

from rtcore.errors import LocalProtocolError

__all__ = ["Denial", "Farewell", "Welcome", "command_text", "encode"]


class Welcome(msgspec.Struct):
    """``connected``: the server is ready. `channels` are those that it has joined by itself."""

    connection_id: str
    user_id: str | None = None
    heartbeat_interval: Annotated[float, msgspec.Meta(gt=0)] | None = None
    channels: list[str] = []


class Farewell(msgspec.Struct):
    """``disconnect``: the server is about to close, and says why."""

    code: int
    reason: str = ""
    reconnect: bool | None = None
    retry_after: Annotated[float, msgspec.Meta(ge=0)] | None = None


class Denial(msgspec.Struct):
    """``error``: a command was refused."""

    code: str
    message: str = ""


def encode(message: Mapping[str, object]) -> str:
    """Return the text of `message`.

    Raises:
        LocalProtocolError: JSON cannot express it.
    """
    try:
        return msgspec.json.encode(message).decode()
    # msgspec's own errors are ValueErrors, as is that of a text that UTF-8 cannot carry.
    except (TypeError, ValueError, RecursionError) as error:
        raise LocalProtocolError(f"JSON cannot express the message: {error}") from error


def command_text(name: str, data: object, token: str | None = None) -> str:
    """Return the text of a command; without an id the server does not answer it."""
    return encode({"type": "command", "command": name, "data": data} | ({} if token is None else {"id": token}))
