"""What the tests of the client's machine say to it, and bring it to."""

from __future__ import annotations

import json

from rtcore.client import (
    Client,
    ClientConfig,
    Command,
    Connected,
    Effect,
    Join,
    MessageReceived,
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


def error(token: str, code: str = "forbidden", message: str = "no", **fields: object) -> str:
    return text({"type": "error", "id": token, "code": code, "message": message, **fields})


def welcome(connection_id: str = "c1", **fields: object) -> str:
    hello = {"type": "connected", "connection_id": connection_id, "user_id": "ann", "protocol": 1}
    return text({**hello, "session_epoch": "s", **fields})


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


def reconnect(client: Client, now: float, hello: str | None = None, *, token: str | None = None) -> list[Effect]:
    """Bring a client that is WAITING back; return the effects of ``connected`` after the first."""
    assert client.connect(now=now) == [Open(token)]
    assert client.opened(now=now) == []
    effects = client.receive_text(hello or welcome("c2"), now=now)
    assert effects[0] == Connected("c2", "ann", reconnected=True)
    return effects[1:]


def ask(client: Client, request: Command, now: float = 0.0) -> str:
    """Make a request of which only the id matters."""
    return client.request(request, now=now)[0]


def message(offset: int, epoch: str = "e", **fields: object) -> dict[str, object]:
    """Return a publication, whose number among all is that of its offset unless `seq` names another."""
    seq = fields.pop("seq", offset)
    return {"type": "m", "n": offset, **fields, "meta": {"id": f"i-{seq}", "offset": offset, "epoch": epoch}}


def hear(client: Client, *messages: dict[str, object], now: float = 0.0) -> list[Effect]:
    """Hand in messages of the server; return all that follows from them."""
    return [effect for each in messages for effect in client.receive_text(text(each), now=now)]


def heard(*offsets: int, epoch: str = "e", **fields: object) -> list[Effect]:
    return [MessageReceived(message(offset, epoch, **fields)) for offset in offsets]


def gap(channel: str, offset: int, epoch: str = "e", reason: str = "history_lost", **fields: object) -> MessageReceived:
    said = {"type": "gap", "channel": channel, **fields, "epoch": epoch, "offset": offset, "reason": reason}
    return MessageReceived(said)


def standing(offset: int, epoch: str = "e", **fields: object) -> dict[str, object]:
    """Return the data of the answer to a join."""
    return {"channel": "a", "offset": offset, "epoch": epoch, "replayed": 0, **fields}


def member(offset: int, epoch: str = "e", *, channel: str = "a", **fields: object) -> Client:
    """Return a client that has joined one channel, by the command "0-1"."""
    client = connected()
    client.receive_text(response(ask(client, Join(channel)), standing(offset, epoch, **fields)), now=0.0)
    return client


def rejoin(token: str, offset: int, epoch: str = "e", *, channel: str = "a", **fields: object) -> SendText:
    """Return a join from a position."""
    persistent = {"persistent": fields.pop("persistent")} if "persistent" in fields else {}
    since = {"epoch": epoch, "offset": offset, **persistent}
    data = fields.pop("data", {})
    assert isinstance(data, dict)
    return command("join_channel", {**data, "channel": channel, "since": since, **fields}, token)
