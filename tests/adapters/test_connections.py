"""Connections of one's own endpoints, in FastAPI, in Starlette and in bare ASGI, on every host."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any, Final

import pytest
from fastapi import FastAPI, WebSocketDisconnect
from fastapi import WebSocket as FastAPIWebSocket
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from rtcore import BinaryMessage, CommandError, Credential, Grant, Message, permissions
from rtcore_adapters import ConnectionManager, Settings
from rtcore_adapters.settings import NamespaceSettings, RealtimeSettings

from .clients import Client
from .hosting import HOSTS, Host, HostKind, run_host

SETTINGS: Final = Settings(
    realtime=RealtimeSettings(
        max_connections=4, namespaces=(NamespaceSettings(pattern="small:*", max_message_size=100),)
    )
)


def in_fastapi(manager: ConnectionManager) -> ASGIApp:
    app = FastAPI()

    @app.websocket("/own/ws/{connection_id}")
    async def websocket_endpoint(websocket: FastAPIWebSocket, connection_id: str, user: str | None = None) -> None:
        await manager.connect_websocket(websocket, connection_id, user_id=user)
        try:
            while True:
                text = await websocket.receive_text()
                await manager.send_to_connection(connection_id, {"said": text})
        except WebSocketDisconnect:
            await manager.disconnect_websocket(connection_id)

    @app.get("/own/events/{connection_id}")
    async def events_endpoint(connection_id: str) -> Response:
        return await manager.connect_event_stream(connection_id, user_id=5, channels=["news"])

    return app


def in_starlette(manager: ConnectionManager) -> ASGIApp:
    async def websocket_endpoint(websocket: WebSocket) -> None:
        connection_id = websocket.path_params["connection_id"]
        await websocket.accept()
        await manager.connect_websocket(websocket, connection_id, websocket.query_params.get("user"))
        async for text in websocket.iter_text():
            await manager.send_to_connection(connection_id, {"said": text})
        await manager.disconnect_websocket(connection_id)

    async def events_endpoint(request: Request) -> Response:
        return await manager.connect_event_stream(request.path_params["connection_id"], user_id="5", channels=["news"])

    routes = [
        WebSocketRoute("/own/ws/{connection_id}", websocket_endpoint),
        Route("/own/events/{connection_id}", events_endpoint),
    ]
    return Starlette(routes=routes)


def in_bare_asgi(manager: ConnectionManager) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("none here")
        connection_id = scope["path"].rpartition("/")[2]
        if scope["type"] == "http":
            response = await manager.connect_event_stream(connection_id, user_id=5, channels=["news"])
            await response(scope, receive, send)
            return
        user = scope["query_string"].decode().partition("user=")[2] or None
        await receive()
        await send({"type": "websocket.accept"})
        await manager.connect_websocket(send, connection_id, user)
        while (message := await receive())["type"] == "websocket.receive":
            await manager.send_to_connection(connection_id, {"said": message["text"]})
        await manager.disconnect_websocket(connection_id)

    return app


FRAMEWORKS: Final[tuple[Callable[[ConnectionManager], ASGIApp], ...]] = (in_fastapi, in_starlette, in_bare_asgi)
PLAIN: Final = [kind for kind in HOSTS if not kind.mounted]


class Own:
    """A host of one's own endpoints, and their manager."""

    def __init__(self, host: Host, manager: ConnectionManager) -> None:
        self.host = host
        self.manager = manager

    def client(self, connection_id: str, user: str = "") -> Any:
        return self.host.client(f"user={user}" if user else "", path=f"/own/ws/{connection_id}")

    def stream(self, connection_id: str) -> Any:
        return self.host.stream(path=f"/own/events/{connection_id}")

    def call(self, function: Callable[..., Awaitable[Any]], *arguments: object) -> Any:
        return self.host.portal.call(function, *arguments)

    def wait_for_stats(self, **counts: int) -> None:
        def reached() -> bool:
            stats = self.call(self.manager.get_connection_stats)
            return all(stats[name] == count for name, count in counts.items())

        self.host.wait_for(reached)


@pytest.fixture(
    scope="module",
    params=[(kind, app) for kind in PLAIN for app in FRAMEWORKS],
    ids=lambda p: f"{p[0]}-{p[1].__name__}",
)
def running(request: pytest.FixtureRequest) -> Iterator[Own]:
    kind: HostKind
    kind, framework = request.param
    manager = ConnectionManager(SETTINGS)
    with run_host(kind, Settings(realtime=RealtimeSettings(prefix="")), framework(manager)) as host:
        yield Own(host, manager)


@pytest.fixture
def own(running: Own) -> Own:
    running.wait_for_stats(total_connections=0)
    return running


def test_sending(own: Own) -> None:
    send = own.manager
    with own.client("one", "5") as one, own.client("two") as two, own.stream("three") as three:
        assert one.connected["connection_id"] == "one"
        assert one.connected["user_id"] == "5"
        own.call(send.subscribe_to_channel, "two", "news")
        receipt = own.call(send.send_to_channel, "news", {"data": 1})
        assert sorted(receipt) == ["epoch", "id", "offset"]
        own.call(send.send_to_user, 5, "to the user")
        assert own.call(send.send_to_connection, "two", {"type": "wave"}) is not None
        assert own.call(send.send_to_connection, "nobody", {"type": "wave"}) is None
        own.call(send.unsubscribe_from_channel, "two", "news")
        own.call(send.send_to_channel, "news", {"data": 2})
        own.call(send.broadcast, {"data": "all"})

        def heard(client: Any, until: str = "broadcast") -> list[tuple[object, object]]:
            messages: list[tuple[object, object]] = []
            while not messages or messages[-1][0] != until:
                message = client.hear()
                if not message["type"].startswith("user_") or message["type"] == "user_message":
                    messages.append((message["type"], message.get("data")))
            return messages

        assert heard(one) == [("user_message", "to the user"), ("broadcast", "all")]
        assert heard(two) == [("channel_message", 1), ("wave", None), ("broadcast", "all")]
        assert heard(three) == [
            ("channel_message", 1),
            ("user_message", "to the user"),
            ("channel_message", 2),
            ("broadcast", "all"),
        ]


def test_receiving_is_the_endpoints_own(own: Own) -> None:
    with own.client("one") as client:
        client.say("hello")
        assert client.hear()["said"] == "hello"


def test_stats_and_leaving(own: Own) -> None:
    with own.client("one", "ann"), own.client("two", "ann"), own.stream("three"):
        own.wait_for_stats(websocket_count=2, sse_count=1, total_connections=3, unique_users=2, active_channels=1)
    own.wait_for_stats(websocket_count=0, sse_count=0, total_connections=0, unique_users=0, active_channels=0)


def test_disconnecting(own: Own) -> None:
    with own.client("one") as client:
        own.call(own.manager.disconnect_websocket, "one")
        farewell = client.hear()
        assert (farewell["type"], farewell["code"], farewell["reconnect"]) == ("disconnect", 1000, False)
        assert client.closed() == (1000, "disconnected")
        own.call(own.manager.disconnect_websocket, "one")


def test_a_client_that_comes_back_takes_the_place_of_its_old_connection(own: Own) -> None:
    with own.client("one", "ann") as old, own.client("one", "ann") as new:
        farewell = old.hear_type("disconnect")
        assert (farewell["code"], farewell["reconnect"]) == (1001, False)
        assert old.closed()[0] == 1001
        # The endpoint of the old one ends and says so, under the same id; that does not harm the new one.
        new.say("still there?")
        assert new.hear()["said"] == "still there?"
        own.wait_for_stats(total_connections=1)
        new.say("still there?")
        assert new.hear()["said"] == "still there?"


def test_an_event_stream_that_comes_back(own: Own) -> None:
    with own.stream("one") as old, own.stream("one") as new:
        assert old.hear_type("disconnect")["reconnect"] is False
        own.call(own.manager.send_to_connection, "one", {"data": 1})
        assert new.hear_type("user_message")["data"] == 1


def test_an_event_stream_that_goes_on_where_it_was(own: Own) -> None:
    with own.stream("one") as stream:
        own.call(own.manager.send_to_channel, "news", {"data": 1})
        assert stream.hear_type("channel_message")["data"] == 1
        own.host.http.headers["Last-Event-ID"] = stream.last_event_id
    own.wait_for_stats(total_connections=0)
    own.call(own.manager.send_to_user, 5, {"data": 2})
    own.call(own.manager.send_to_channel, "news", {"data": 3})
    try:
        with own.stream("one") as stream:
            assert stream.connected["recovered"] is True
            assert [stream.hear()["data"] for _ in range(2)] == [2, 3]
    finally:
        del own.host.http.headers["Last-Event-ID"]


def test_what_is_kept_for_later_joiners(own: Own) -> None:
    receipt = own.call(own.manager.send_to_channel, "kept", {"data": 1}, True)
    own.call(own.manager.send_to_channel, "kept", {"data": 2}, False)
    with own.client("one") as client:
        own.call(own.manager.subscribe_to_channel, "one", "kept")
        message = client.hear()
        assert (message["data"], message["persistent"], message["meta"]["id"]) == (1, True, receipt["id"])
        own.call(own.manager.send_to_channel, "kept", {"data": 3})
        assert client.hear()["data"] == 3


def test_what_a_connection_is_allowed(own: Own) -> None:
    sent: list[dict[str, object]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(dict(message))

    only = permissions.Scope(("a",), exclusive=True)
    own.call(own.manager.connect_websocket, send, "bare", "ann", Grant(subscribe=only))
    own.call(own.manager.subscribe_to_channel, "bare", "a")
    with pytest.raises(CommandError) as refused:
        own.call(own.manager.subscribe_to_channel, "bare", "b")
    assert refused.value.code == "subscribe_denied"
    own.call(own.manager.disconnect_websocket, "bare")
    assert sent[-1]["type"] == "websocket.close"
    ended = Grant(credential=Credential.TOKEN, expires_at=1.0)
    with pytest.raises(CommandError) as refused:
        own.call(own.manager.connect_websocket, send, "bare", "ann", ended)
    assert refused.value.code == "token_expired"
    response = own.call(own.manager.connect_event_stream, "bare", "ann", (), ended)
    assert response.status_code == 401


@pytest.mark.parametrize("json_only", [False, True])
def test_how_a_connection_hears_files(own: Own, json_only: bool) -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(dict(message))

    async def connect() -> None:
        await own.manager.connect_websocket(send, "bare", "ann", json_only=json_only)
        head: Message = {"type": "binary", "content_type": "text/plain", "size": 5}
        own.manager.driver.publish_to_connection("bare", head, data=b"hello")

    own.host.portal.call(connect)
    own.host.wait_for(lambda: len(sent) > 1)
    own.call(own.manager.disconnect_websocket, "bare")
    if json_only:
        assert BinaryMessage.from_message(json.loads(sent[1]["text"])) == BinaryMessage(b"hello", "text/plain")
    else:
        assert sent[1]["bytes"].endswith(b"hello")


def test_full(own: Own) -> None:
    with own.client("1"), own.client("2"), own.client("3"), own.client("4"):
        response = own.host.http.get("/own/events/5")
        assert response.status_code == 503
        assert response.headers["retry-after"] == "5"
        # Whoever comes back does not count twice.
        with own.client("4") as client:
            client.say("here")
            assert client.hear()["said"] == "here"


@pytest.mark.parametrize(
    ("method", "arguments", "code"),
    [
        ("subscribe_to_channel", ("nobody", "news"), "not_found"),
        ("subscribe_to_channel", ("nobody", "$x"), "invalid_channel"),
        ("unsubscribe_from_channel", ("nobody", "news"), "not_found"),
        ("send_to_channel", ("", {}), "invalid_channel"),
        ("send_to_channel", (5, {}), "invalid_channel"),
        ("send_to_user", (1.5, {}), "invalid_user_id"),
        ("send_to_channel", ("news", {"type": 5}), "invalid_type"),
        ("send_to_channel", ("news", {"data": object()}), "invalid_message"),
        ("send_to_channel", ("small:room", "x" * 100), "message_too_large"),
        ("broadcast", ({"event": "a\nb"},), "invalid_event"),
    ],
)
def test_arguments_that_cannot_be(own: Own, method: str, arguments: tuple[object, ...], code: str) -> None:
    with pytest.raises(CommandError) as refused:
        own.call(getattr(own.manager, method), *arguments)
    assert refused.value.code == code


def test_cleaning_up(own: Own) -> None:
    with own.client("one") as one:
        assert own.call(own.manager.cleanup_inactive_connections) == 0
        one.say("here")
        assert one.hear()["said"] == "here"


def test_a_client_is_a_client(own: Own) -> None:
    with own.client("one") as client:
        assert isinstance(client, Client)
