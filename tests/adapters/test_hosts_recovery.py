"""History, recovery and idempotence on every host, for clients that are not ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rtcore_adapters import Settings
from rtcore_adapters.settings import NamespaceSettings, RealtimeSettings

from .clients import Client, error_code, get
from .hosting import HOSTS, Host, HostKind, run_host

_NAMESPACES = (
    NamespaceSettings(pattern="state:*", last_value=True),
    NamespaceSettings(pattern="short:*", history_size=2, max_message_size=100),
    NamespaceSettings(pattern="hidden:*", presence=False),
)


@pytest.fixture(scope="module", params=HOSTS, ids=str)
def running_host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """Run a host of each kind, with namespaces."""
    kind: HostKind = request.param
    realtime = RealtimeSettings(allow_anonymous=True, presence_grace=0.0, namespaces=_NAMESPACES)
    with run_host(kind, Settings(realtime=realtime)) as running:
        yield running


@pytest.fixture
def channel(request: pytest.FixtureRequest) -> str:
    """Return a channel that no other test of the host uses."""
    return request.node.originalname.removeprefix("test_")


def say(host: Host, channel: str, *numbers: int, **fields: object) -> dict[str, Any]:
    receipt: dict[str, Any] = {}
    for number in numbers:
        receipt = host.post("/send", {"channel": channel, "type": "note", "data": number, **fields})
    return receipt


# History


def test_history_page_by_page(host: Host, channel: str) -> None:
    last = say(host, channel, *range(1, 8))

    def page(**query: object) -> dict[str, Any]:
        response = host.http.get(f"/channels/{channel}/history", params={"limit": 3, **query})
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        assert (body["channel"], body["epoch"], body["offset"]) == (channel, last["epoch"], 7)
        return body

    def offsets(body: dict[str, Any]) -> list[int]:
        return [publication["meta"]["offset"] for publication in body["publications"]]

    newest = page()
    assert (offsets(newest), newest["more"], newest["complete"]) == ([5, 6, 7], True, True)
    assert newest["publications"][-1]["meta"]["id"] == last["id"]
    older = page(before=5, epoch=last["epoch"])
    assert (offsets(older), older["more"]) == ([2, 3, 4], True)
    oldest = page(before=2)
    assert (offsets(oldest), oldest["more"]) == ([1], False)
    later = page(after=0)
    assert (offsets(later), later["more"]) == ([1, 2, 3], True)
    assert offsets(page(after=6)) == [7]
    assert offsets(page(after=7)) == []


def test_the_history_of_a_channel_whose_name_is_a_path(host: Host) -> None:
    say(host, "a/b c/history", 1)
    publications = host.http.get("/channels/a%2Fb%20c%2Fhistory/history").json()["publications"]
    assert [publication["data"] for publication in publications] == [1]


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("limit=x", 422, "invalid_limit"),
        ("limit=", 422, "invalid_limit"),
        ("limit=0", 422, "invalid_limit"),
        ("limit=1001", 422, "invalid_limit"),
        (f"limit={'9' * 5000}", 422, "invalid_limit"),
        ("limit=%C2%B2", 422, "invalid_limit"),
        ("after=-1", 422, "invalid_after"),
        ("before=1.5", 422, "invalid_before"),
        ("after=1&before=3", 422, "invalid_before"),
        ("epoch=another", 409, "epoch_changed"),
    ],
)
def test_history_that_is_refused(host: Host, channel: str, query: str, status: int, code: str) -> None:
    say(host, channel, 1)
    response = host.http.get(f"/channels/{channel}/history?{query}")
    assert (response.status_code, error_code(response.content)) == (status, code)


def test_the_history_of_a_channel_that_cannot_be(host: Host) -> None:
    response = host.http.get("/channels/%24broadcast/history")
    assert (response.status_code, error_code(response.content)) == (422, "invalid_channel")


def test_history_that_is_no_longer_held(host: Host) -> None:
    say(host, "short:gone", 1, 2, 3, 4)
    body = host.http.get("/channels/short:gone/history").json()
    assert ([each["data"] for each in body["publications"]], body["complete"]) == ([3, 4], False)


# Namespaces


def test_members_that_are_not_known(host: Host) -> None:
    response = host.http.get("/channels/hidden:room/presence")
    assert (response.status_code, error_code(response.content)) == (403, "presence_disabled")


def test_a_message_too_large_for_its_channel(host: Host) -> None:
    body = {"channel": "short:small", "data": "x" * 100}
    for path, wrong in (
        ("/send", body),
        ("/notifications/channel", {"channel": "short:small", "title": "x" * 100, "content": ""}),
    ):
        response = host.http.post(path, json=wrong)
        assert (response.status_code, error_code(response.content)) == (413, "message_too_large")
    assert host.post("/send", {**body, "data": "x"})["offset"] == 1


def test_what_is_kept_for_later_joiners(host: Host, channel: str) -> None:
    say(host, channel, 1, persistent=True)
    say(host, channel, 2)
    say(host, "state:room", 3, 4)
    with host.stream(f"channel={channel}&channel=state:room") as stream, host.client() as client:
        assert [stream.hear_type("note")["data"] for _ in range(2)] == [1, 4]
        assert client.join(channel)["replayed"] == 1
        assert client.hear_type("note")["data"] == 1
        assert client.join("state:room")["replayed"] == 1
        assert client.hear_type("note")["data"] == 4
    response = host.http.post("/send", json={"channel": channel, "persistent": "yes"})
    assert (response.status_code, error_code(response.content)) == (422, "invalid_persistent")


# Event streams


@pytest.mark.parametrize("by", ["header", "query", "both"])
def test_a_stream_goes_on_where_it_was(host: Host, channel: str, by: str) -> None:
    query = f"channel={channel}&channel={channel}-2&user_id=ann"
    with host.stream(query) as stream:
        say(host, channel, 1)
        assert stream.hear_type("note")["data"] == 1
        token = stream.last_event_id
    say(host, f"{channel}-2", 2)
    say(host, channel, 3)
    host.post("/send", {"user_id": "ann", "type": "note", "data": 4})
    host.post("/broadcast", {"data": 5})
    say(host, "elsewhere", 6)
    headers = {} if by == "query" else {"Last-Event-ID": token}
    if by != "header":
        # The header is newer: a browser repeats the query as it was.
        query += f"&last_event_id={token if by == 'query' else 'old-1'}"
    host.http.headers.update(headers)
    try:
        with host.stream(query) as stream:
            assert (stream.connected["recovered"], stream.connected["last_event_id"]) == (True, token)
            heard: list[object] = []
            while len(heard) < 4:
                message = stream.hear()
                if message["type"] in ("note", "broadcast", "gap"):
                    heard.append(message.get("data", message))
            assert heard == [2, 3, 4, 5]
    finally:
        host.http.headers.pop("Last-Event-ID", None)


@pytest.mark.parametrize("token", [b"nonsense", b"other-7", b"\xff\xfe", b"\xed\xa0\x80-1", b"-", b"1-1.1"])
def test_a_token_that_is_worth_nothing_is_told_in_the_stream(host: Host, channel: str, token: bytes) -> None:
    say(host, channel, 1)
    path = f"{host.prefix}/events?channel={channel}"
    quoted = "".join(f"%{byte:02X}" for byte in token).encode()
    for request in (
        get(path).replace(b"\r\n\r\n", b"\r\nLast-Event-ID: " + token + b"\r\n\r\n"),
        get(path).replace(b" HTTP/1.1", b"&last_event_id=" + quoted + b" HTTP/1.1"),
    ):
        with host.connect() as sock:
            sock.sendall(request)
            data = b""
            while data.count(b"\nevent: gap\n") < 2:
                more = sock.recv(65536)
                assert more, data
                data += more
            assert data.startswith(b"HTTP/1.1 200 ")
            assert b'"recovered":false' in data


def test_an_empty_token_is_none(host: Host, channel: str) -> None:
    with host.stream(f"channel={channel}&last_event_id=") as stream:
        assert "recovered" not in stream.connected
        say(host, channel, 1)
        assert stream.hear_type("note")["data"] == 1


# WebSockets


def test_a_websocket_goes_on_where_it_was(host: Host, channel: str) -> None:
    with host.client(f"channel={channel}&user_id=bob") as client:
        say(host, channel, 1)
        token = client.hear_type("note")["meta"]["id"]
    host.post("/send", {"user_id": "bob", "type": "note", "data": 2})
    say(host, channel, 3)
    with host.client(f"channel={channel}&user_id=bob&last_event_id={token}") as client:
        assert client.connected["recovered"] is True
        assert [client.hear_type("note")["data"] for _ in range(2)] == [2, 3]
    with host.client(f"channel={channel}&user_id=bob&last_event_id=%FF") as client:
        assert client.connected["recovered"] is False
        assert [(gap["channel"], gap["reason"]) for gap in client.connected["gaps"]] == [
            ("$broadcast", "invalid_token"),
            ("$user:bob", "invalid_token"),
            (channel, "invalid_token"),
        ]


def test_a_session_is_known_again(host: Host, channel: str) -> None:
    note = {"type": "note", "channel": channel, "id": "once"}
    with host.client("session=a%20secret%20%C3%A4") as client:
        life = client.connected["session_epoch"]
        client.say(note)
        first = client.hear()
        assert first["data"]["offset"] == 1
    with host.client("session=a%20secret%20%C3%A4") as client:
        assert client.connected["session_epoch"] == life
        client.say(note)
        assert client.hear() == first
    with host.client("session=another") as client:
        assert client.connected["session_epoch"] != life
        client.say(note)
        assert client.hear()["data"]["offset"] == 2


@pytest.mark.parametrize("session", ["", "x" * 256, "a%00b", "%FF", "a%0Ab"])
def test_a_session_that_cannot_be(host: Host, session: str) -> None:
    response = host.http.get(f"/events?session={session}")
    assert response.status_code == 400
    assert error_code(response.content) in ("invalid_session", "invalid_query")
    with host.websocket(query=f"session={session}") as websocket:
        assert Client(websocket, welcome=False).closed()[0] == 4400


def test_counts(host: Host) -> None:
    counts = host.http.get("/stats").json()
    assert {"history_bytes", "slow_disconnects", "dropped_messages", "gaps", "backlog_bytes"} <= set(counts)
