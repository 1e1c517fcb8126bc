"""Close codes, refusals and the exception tree.

Three kinds of error are kept apart everywhere:

* the peer broke the protocol: an effect (`rtcore.websocket.Closed`, an ``error`` message), never raised;
* the caller broke the contract: `LocalProtocolError`, raised before any state changes;
* a bug of ours: an ``assert``.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import attrs

__all__ = [
    "CloseCode",
    "CommandError",
    "ConnectionClosed",
    "ConnectionFailed",
    "LocalProtocolError",
    "QueueFull",
    "Refusal",
    "RtcoreError",
    "reconnects",
]


class RtcoreError(Exception):
    """Root of everything that rtcore raises on purpose."""


class LocalProtocolError(RtcoreError):
    """The caller asked for what the state does not allow; nothing has changed."""


class QueueFull(RtcoreError):
    """The bounded queue that a client keeps while it is offline has no room; nothing was queued."""


class ConnectionFailed(RtcoreError):
    """No connection could be opened: refused, timed out, or not the protocol that was asked for."""


class ConnectionClosed(RtcoreError):
    """The connection has ended.

    Attributes:
        code: The close code, or ``None`` where the transport just ended (1006 in a browser).
        reason: What the side that closed it said, possibly empty.
    """

    def __init__(self, code: int | None, reason: str = "") -> None:
        self.code = code
        self.reason = reason
        said = f": {reason}" if reason else ""
        super().__init__(f"connection {f'closed with code {code}' if code else 'lost'}{said}")


class CommandError(RtcoreError):
    """The server answered a command, a publication or an HTTP request with an error.

    Attributes:
        code: The stable name of the fault, in ``snake_case``.
        message: What is wrong and how to mend it.
        retry_after: Seconds after which another try may succeed, or ``None``.
    """

    def __init__(self, code: str, message: str, retry_after: float | None = None) -> None:
        self.code = code
        self.message = message
        self.retry_after = retry_after
        super().__init__(f"{code}: {message}")


@attrs.frozen
class Refusal:
    """Why an input was refused, in the one shape that every wire shows.

    Attributes:
        code: The stable name of the fault, in ``snake_case``.
        message: What is wrong and how to mend it.
        status: The HTTP status that fits.
        retry_after: Seconds after which another try may succeed, or ``None``.
    """

    code: str
    message: str
    status: int = 422
    retry_after: int | None = None


class CloseCode(IntEnum):
    """WebSocket close codes (RFC 6455, section 7.4.1, and our own from 4400 on)."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS_RECEIVED = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_PAYLOAD = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_MESSAGE = 4400
    UNAUTHORIZED = 4401
    FORBIDDEN = 4403
    HEARTBEAT_MISSED = 4408
    SLOW_CONSUMER = 4410
    RATE_LIMITED = 4429


# Trying again after these ends the same way: the fault is in what the client is or says.
_FINAL: Final = frozenset(
    {
        CloseCode.NORMAL_CLOSURE,
        CloseCode.PROTOCOL_ERROR,
        CloseCode.UNSUPPORTED_DATA,
        CloseCode.INVALID_PAYLOAD,
        CloseCode.POLICY_VIOLATION,
        CloseCode.MESSAGE_TOO_BIG,
        CloseCode.BAD_MESSAGE,
        CloseCode.UNAUTHORIZED,
        CloseCode.FORBIDDEN,
    }
)


def reconnects(code: int | None) -> bool:
    """Tell whether a client should connect again after a close with `code`.

    Args:
        code: A close code, or ``None`` for a transport that ended without one.
    """
    return code not in _FINAL
