"""Peers on a library that is not ours, what they say to each other, and the HTTP API of their rooms."""

from __future__ import annotations

import itertools
import socket
from contextlib import AbstractContextManager
from typing import Any, Final
from urllib.parse import quote

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed

from .clients import Client, error_code
from .hosting import Host

__all__ = [
    "CANDIDATE",
    "SDP",
    "answer",
    "at",
    "bye",
    "candidate",
    "cut",
    "enter",
    "goes_on",
    "offer",
    "others",
    "refusal",
    "wait_until_away",
]

SDP: Final = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\n"
CANDIDATE: Final = {"candidate": "candidate:1 1 udp 1 127.0.0.1 9 typ host", "sdpMid": "0", "sdpMLineIndex": 0}
_MARKS: Final = itertools.count()


def enter(host: Host, room: str | None, peer: str | None = None, **query: str) -> AbstractContextManager[Client]:
    """Open ``/webrtc/signaling`` as somebody's script would, and read its ``connected``."""
    fields = {"room_id": room, "peer_id": peer, **query}
    text = "&".join(f"{name}={quote(value, safe='')}" for name, value in fields.items() if value is not None)
    return host.client(text, "/webrtc/signaling")


def offer(target: str, **fields: object) -> dict[str, object]:
    """Return an offer, as a script without a `type` would send it."""
    return {"signal_type": "offer", "target_peer_id": target, "sdp": SDP, **fields}


def answer(target: str, **fields: object) -> dict[str, object]:
    """Return an answer, likewise."""
    return {"signal_type": "answer", "target_peer_id": target, "sdp": SDP, **fields}


def candidate(target: str, **fields: object) -> dict[str, object]:
    """Return a candidate, likewise."""
    return {"signal_type": "ice-candidate", "target_peer_id": target, "ice_candidate": CANDIDATE, **fields}


def bye(target: str, **fields: object) -> dict[str, object]:
    """Return the end of a connection between two peers, likewise."""
    return {"signal_type": "bye", "target_peer_id": target, **fields}


def others(client: Client) -> list[tuple[str, bool]]:
    """Return whom somebody was told of on entering, and towards whom it is polite."""
    return [(each["peer_id"], each["polite"]) for each in client.connected["room"]["participants"]]


def goes_on(one: Client, two: Client) -> None:
    """Assert that two peers, called "one" and "two", have heard nothing but each other."""
    mark = next(_MARKS)
    for speaker, listener, name in ((one, two, "two"), (two, one, "one")):
        speaker.say(candidate(name, mark=mark))
        heard = listener.hear()
        assert (heard["type"], heard.get("mark")) == ("webrtc_signal", mark), heard


def cut(client: Client) -> None:
    """Cut the TCP connection, without a word of WebSocket."""
    client.websocket.socket.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ConnectionClosed):
        list(iter(client.hear, None))


def wait_until_away(host: Host, room: str, peer: str) -> None:
    """Wait until the server knows that a peer's connection is lost."""

    def away() -> bool:
        participants: list[dict[str, Any]] = host.http.get(at(room)).json()["participants"]
        return any(each["peer_id"] == peer and not each["connected"] for each in participants)

    host.wait_for(away)


def refusal(response: httpx2.Response) -> tuple[int, str]:
    """Return the status and the code of an error, which must have the one shape."""
    assert response.headers["content-type"] == "application/json"
    return response.status_code, error_code(response.content)


def at(room: str) -> str:
    """Return the path of a room."""
    return f"/webrtc/rooms/{quote(room, safe='')}"
