"""Hostile contents of messages, names and requests, against a server beside an ordinary client."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

import httpx2
import pytest
from websockets.sync.client import ClientConnection, connect

from rtcore.event_stream import Event, EventStreamParser

from .attacker import Attacker
from .ordinary import OrdinaryClient, Server, serving

_MEMORY: Final = 48 * 2**20
_TIMEOUT: Final = 30.0


@pytest.fixture(params=["asyncio", "trio"], scope="module")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), "--backend", request.param) as running:
        yield running


@pytest.fixture
def ordinary(server: Server) -> Iterator[None]:
    """An ordinary client beside the test, and a bound for what the server may take meanwhile."""
    with OrdinaryClient(server.port):
        server.forget_peak()
        before = server.memory
        yield
        assert server.peak_memory - before < _MEMORY, f"{server.peak_memory - before:,} bytes more"


pytestmark = pytest.mark.usefixtures("ordinary")


class Talk:
    """A WebSocket client, plain."""

    def __init__(self, websocket: ClientConnection) -> None:
        self._websocket = websocket
        assert self.hear()["type"] == "connected"

    def say(self, message: object) -> None:
        self._websocket.send(message if isinstance(message, str) else json.dumps(message))

    def hear(self) -> dict[str, Any]:
        """Return what comes next, but for heartbeats, which come whenever a test takes its time."""
        while (heard := dict(json.loads(self._websocket.recv(_TIMEOUT))))["type"] == "heartbeat":
            pass
        return heard

    def ask(self, name: str, **data: object) -> dict[str, Any]:
        self.say({"type": "command", "command": name, "data": data, "id": "q"})
        while (answer := self.hear()).get("id") != "q":
            pass
        return answer


@pytest.fixture
def talk(server: Server) -> Iterator[Talk]:
    url = f"ws://127.0.0.1:{server.port}/realtime/ws"
    with connect(url, proxy=None, max_size=None, open_timeout=_TIMEOUT) as websocket:
        yield Talk(websocket)


@pytest.fixture
def http(server: Server) -> Iterator[httpx2.Client]:
    base = f"http://127.0.0.1:{server.port}/realtime"
    with httpx2.Client(base_url=base, timeout=_TIMEOUT, trust_env=False) as client:
        yield client


# JSON


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
def test_json_that_is_nested_without_end(talk: Talk, http: httpx2.Client, opening: str) -> None:
    deep = opening * (60_000 // len(opening))
    for _ in range(20):
        talk.say(deep)
        heard = talk.hear()
        # What is no object is a text like any other.
        assert heard["code"] == "too_deep" if deep[0] == "{" else heard["data"] == deep
        answer = http.post("/send", content=deep, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "too_deep")
    talk.say('{"type":"text","data":' + "[" * 200 + "]" * 200 + "}")
    assert talk.hear()["code"] == "too_deep"


def test_ids_whose_hashes_collide(talk: Talk) -> None:
    # Of whole numbers it is known which do: `hash(n)` is n modulo this.
    for number in range(1, 3001):
        talk.say({"type": "text", "channel": "collisions", "id": number * sys.hash_info.modulus})
    for number in range(1, 3001):
        assert talk.hear()["id"] == number * sys.hash_info.modulus


def test_an_object_of_very_many_names(talk: Talk, http: httpx2.Client) -> None:
    message = {"type": "text", "data": {f"{number:x}": 0 for number in range(4000)}}
    for _ in range(50):
        talk.say(message)
        assert talk.hear()["data"] == message["data"]


# Names


@pytest.mark.parametrize(
    "name",
    [
        *(
            "a\0b",
            "a\nb",
            "a\rb",
            "a\x7f",
            "\x85",
            "\u2028",
            "\u202ename",
            "zero\u200bwidth",
            "\ufeff",
            "\ue000",
            "\u0378",
        ),
        *("$user:bob", "$broadcast", "", "x" * 256),
    ],
)
def test_a_name_that_is_no_name(talk: Talk, http: httpx2.Client, name: str) -> None:
    for command in ("join_channel", "history", "presence", "leave_channel"):
        assert talk.ask(command, channel=name)["code"] == "invalid_channel"
    talk.say({"type": "text", "channel": name, "id": "q"})
    assert talk.hear()["code"] == "invalid_channel"
    answer = http.post("/send", json={"channel": name, "data": 1})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_channel")
    with httpx2.stream("GET", f"{http.base_url}events?channel={quote(name, safe='')}", trust_env=False) as stream:
        assert stream.status_code == 422


def test_half_of_a_surrogate_pair(talk: Talk, http: httpx2.Client) -> None:
    # JSON can say it, and UTF-8 cannot.
    talk.say('{"type":"command","command":"join_channel","id":"q","data":{"channel":"\\ud800"}}')
    answer = talk.hear()
    assert (answer["type"], answer.get("data", answer.get("code"))) in (
        ("text", '{"type":"command","command":"join_channel","id":"q","data":{"channel":"\\ud800"}}'),
        ("error", "invalid_text"),
        ("error", "invalid_channel"),
    )
    refused = http.post("/send", content=b'{"channel":"\\udfff"}', headers={"Content-Type": "application/json"})
    assert refused.status_code in (400, 422)


def test_names_that_look_alike_are_two(talk: Talk, http: httpx2.Client) -> None:
    composed = "caf\u00e9"
    decomposed = unicodedata.normalize("NFD", composed)
    cyrillic = "c\u0430f\u00e9"
    for name in (composed, decomposed, cyrillic):
        assert talk.ask("join_channel", channel=name)["ok"]
    for number, name in enumerate((composed, decomposed, cyrillic)):
        http.post("/send", json={"channel": name, "data": number})
        heard = talk.hear()
        assert (heard["channel"], heard["data"], heard["meta"]["offset"]) == (name, number, 1)


# What becomes lines


_BREAKS: Final = ("\n", "\r", "\r\n", "\n\n", "\0", "\x0b", "\x85", "\u2028")


def events_of(http: httpx2.Client, channel: str, said: list[dict[str, object]]) -> list[Event]:
    """Return what an event stream says when so many messages are published."""
    parser, heard = EventStreamParser(), list[Event]()
    with http.stream("GET", f"/events?channel={channel}") as stream:
        chunks = stream.iter_bytes()
        while not any(event.event == "connected" for event in heard):
            heard += [each for each in parser.receive_data(next(chunks)) if isinstance(each, Event)]
        for message in said:
            assert http.post("/send", json={"channel": channel, **message}).status_code == 200
        heard.clear()
        while len(heard) < len(said):
            heard += [each for each in parser.receive_data(next(chunks)) if isinstance(each, Event)]
    return heard


def test_breaks_in_what_is_said_make_no_events(http: httpx2.Client) -> None:
    texts = [f"a{end}data: forged{end}{end}event: disconnect{end}id: 7{end}{end}" for end in _BREAKS]
    heard = events_of(http, "breaks", [{"data": text, text: text} for text in texts])
    assert [(event.event, json.loads(event.data)["data"]) for event in heard] == [("message", text) for text in texts]
    assert [json.loads(event.data)[text] for event, text in zip(heard, texts, strict=True)] == texts
    assert [event.id for event in heard] == [json.loads(event.data)["meta"]["id"] for event in heard]


@pytest.mark.parametrize("end", _BREAKS)
def test_breaks_in_the_name_of_an_event_are_refused(talk: Talk, http: httpx2.Client, end: str) -> None:
    message = {"channel": "breaks", "type": "text", "event": f"x{end}data: forged", "id": "q"}
    talk.say(message)
    assert talk.hear()["code"] == "invalid_event"
    assert http.post("/send", json=message).json()["error"]["code"] == "invalid_event"


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r", "\0"])
def test_breaks_in_requests_make_no_headers(http: httpx2.Client, server: Server, end: str) -> None:
    forged = quote(f"x{end}Set-Cookie: forged=1{end}{end}<script>", safe="")
    for path in (
        f"/events?channel={forged}",
        f"/events?channel=a&last_event_id={forged}",
        f"/channels/{forged}/history",
        f"/assets/{forged}",
        f"/webrtc/rooms/{forged}",
        f"/{forged}",
    ):
        with http.stream("GET", path) as response:
            assert "set-cookie" not in response.headers
            assert not any("forged" in value for value in response.headers.values())
            assert response.headers["content-type"].split(";")[0] in ("application/json", "text/event-stream")
    # In a header itself they end it, or the request.
    with Attacker.on(server.port) as attacker:
        sock = attacker.open()
        attacker.send(
            sock,
            f"GET /realtime/events HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost{end}X-Forged: 1"
            f"\r\nLast-Event-ID: a{end}b: c\r\nConnection: close\r\n\r\n".encode(),
        )
        head = attacker.hear(sock, b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 200 ")), head
    assert b"forged" not in head.lower()
