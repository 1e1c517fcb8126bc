"""What the tests of the client's machine say to it, and bring it to."""

from __future__ import annotations

import json

from rtcore.client import (
    Client,
    ClientConfig,
    Command,
    Connected,
    Effect,
    Open,
    SendText,
)

LOST = "the connection was lost before the answer came"
UNSENT = "the client ended before it could send this"
LEFT = "the channel was left before it was joined"
LATE = "the server did not answer in time"


def text(message: object) -> str:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False)


def command(name: str, data: object, token: str | None = None) -> SendText:
    message = {"type": "command", "command": name, "data": data}
    return SendText(text(message if token is None else {**message, "id": token}))


def join(channel: str, token: str, **data: object) -> SendText:
    return command("join_channel", {**data, "channel": channel}, token)


def leave(channel: str, token: str | None = None) -> SendText:
    return command("leave_channel", {"channel": channel}, token)


def response(token: str, data: object = None) -> str:
    return text({"type": "response", "id": token, "ok": True, "data": data})


def error(token: str, code: str = "forbidden", message: str = "no") -> str:
    return text({"type": "error", "id": token, "code": code, "message": message})


def welcome(connection_id: str = "c1", **fields: object) -> str:
    return text({"type": "connected", "connection_id": connection_id, "user_id": "ann", "protocol": 1, **fields})


def new(jitter: float = 0.5, **config: object) -> Client:
    """Return a client whose ids are "0-1", "0-2"… and whose jitter is `jitter`."""
    draws = iter([0.0])
    return Client(ClientConfig(**config), random=lambda: next(draws, jitter))  # type: ignore[arg-type]


def connecting(now: float = 0.0, *, jitter: float = 0.5, **config: object) -> Client:
    client = new(jitter, **config)
    assert client.connect(now=now) == [Open()]
    assert client.opened(now=now) == []
    return client


def connected(now: float = 0.0, *, jitter: float = 0.5, hello: str | None = None, **config: object) -> Client:
    client = connecting(now, jitter=jitter, **config)
    assert client.receive_text(hello or welcome(), now=now) == [Connected("c1", "ann", reconnected=False)]
    return client


def reconnect(client: Client, now: float, hello: str | None = None) -> list[Effect]:
    """Bring a client that is WAITING back; return the effects of ``connected`` after the first."""
    assert client.connect(now=now) == [Open()]
    assert client.opened(now=now) == []
    effects = client.receive_text(hello or welcome("c2"), now=now)
    assert effects[0] == Connected("c2", "ann", reconnected=True)
    return effects[1:]


def ask(client: Client, request: Command, now: float = 0.0) -> str:
    """Make a request of which only the id matters."""
    return client.request(request, now=now)[0]
