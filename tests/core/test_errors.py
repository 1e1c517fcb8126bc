"""Errors: what they say, and which close codes are worth another try."""

from __future__ import annotations

import pytest

from rtcore.errors import (
    CloseCode,
    CommandError,
    ConnectionClosed,
    ConnectionFailed,
    LocalProtocolError,
    QueueFull,
    Refusal,
    RtcoreError,
    reconnects,
)


@pytest.mark.parametrize("error", [CommandError, ConnectionClosed, ConnectionFailed, LocalProtocolError, QueueFull])
def test_everything_raised_on_purpose_has_one_root(error: type[Exception]) -> None:
    assert issubclass(error, RtcoreError)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionClosed(1012, "restarting"), "connection closed with code 1012: restarting"),
        (ConnectionClosed(1000), "connection closed with code 1000"),
        (ConnectionClosed(None), "connection lost"),
        (CommandError("not_found", "no such room"), "not_found: no such room"),
    ],
)
def test_errors_say_what_happened(error: RtcoreError, text: str) -> None:
    assert str(error) == text


def test_errors_keep_their_parts() -> None:
    closed = ConnectionClosed(4401, "token expired")
    assert (closed.code, closed.reason) == (4401, "token expired")
    assert (ConnectionClosed(None).code, ConnectionClosed(None).reason) == (None, "")
    refused = CommandError("full", "try later")
    assert (refused.code, refused.message) == ("full", "try later")


def test_a_refusal_is_the_callers_fault_unless_it_says_otherwise() -> None:
    assert Refusal("invalid_id", "'id' must be short") == Refusal(
        "invalid_id", "'id' must be short", status=422, retry_after=None
    )


@pytest.mark.parametrize(
    "code",
    [
        *(CloseCode.GOING_AWAY, CloseCode.NO_STATUS_RECEIVED, CloseCode.ABNORMAL_CLOSURE, CloseCode.INTERNAL_ERROR),
        *(CloseCode.SERVICE_RESTART, CloseCode.TRY_AGAIN_LATER, CloseCode.HEARTBEAT_MISSED),
        *(CloseCode.SLOW_CONSUMER, CloseCode.RATE_LIMITED),
        *(1012, 3999, 4999, None),
    ],
)
def test_another_try_may_help(code: int | None) -> None:
    assert reconnects(code)


@pytest.mark.parametrize(
    "code",
    [
        *(CloseCode.NORMAL_CLOSURE, CloseCode.PROTOCOL_ERROR, CloseCode.UNSUPPORTED_DATA, CloseCode.INVALID_PAYLOAD),
        *(CloseCode.POLICY_VIOLATION, CloseCode.MESSAGE_TOO_BIG, CloseCode.BAD_MESSAGE, CloseCode.UNAUTHORIZED),
        *(CloseCode.FORBIDDEN, 1000, 4401),
    ],
)
def test_another_try_ends_the_same_way(code: int) -> None:
    assert not reconnects(code)
