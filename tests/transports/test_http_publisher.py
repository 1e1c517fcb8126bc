"""What the clients say over HTTP, beside their stream."""

from __future__ import annotations

import pytest

from rtcore import CommandError, ConnectionFailed, LocalProtocolError
from rtcore_transports import WSClient

from .servers import HASTY, Api, Server, nothing_left

pytestmark = pytest.mark.anyio


async def test_publishing_over_http(idle_server: Server) -> None:
    api = Api()
    idle_server.app = api
    await idle_server.start()
    position = {"id": "e:1", "offset": 1, "epoch": "e"}
    client = WSClient(idle_server.url("/realtime/ws?channel=x"), token="t")
    assert await client.broadcast("before connecting") == position
    async with nothing_left(), client:
        assert await client.broadcast({"type": "news", "text": "hi"}) == position
        await client.send_notification(title="T", content="C", type="warning", user_id=5, duration=100)
        await client.send_notification(title="T", content="C", channel="room", auto_hide=False)
        await client.send_notification("T", "C")
        with pytest.raises(LocalProtocolError, match="not to both"):
            await client.send_notification("T", "C", channel="a", user_id="b")
        with pytest.raises(LocalProtocolError, match="no notification"):
            await client.send_notification("T", "C", "loud")  # type: ignore[arg-type]
        with pytest.raises(LocalProtocolError, match="JSON"):
            await client.broadcast(object())
        with pytest.raises(LocalProtocolError, match="user id"):
            await client.send_notification("T", "C", user_id="")
    base = {"title": "T", "content": "C", "type": "info", "auto_hide": True}
    assert [(posted.path, posted.body) for posted in api.posted] == [
        ("/realtime/broadcast", {"data": "before connecting"}),
        ("/realtime/broadcast", {"type": "news", "text": "hi"}),
        ("/realtime/notifications/send", {**base, "type": "warning", "user_id": "5", "duration": 100}),
        ("/realtime/notifications/channel", {**base, "auto_hide": False, "channel": "room"}),
        ("/realtime/notifications/broadcast", base),
    ]
    assert {posted.headers["authorization"] for posted in api.posted} == {"Bearer t"}


async def test_http_that_fails(idle_server: Server) -> None:
    api = Api()
    idle_server.app = api
    await idle_server.start()
    async with WSClient(idle_server.url(), websocket=HASTY) as client:
        api.status, api.answer = 403, {"error": {"code": "forbidden", "message": "not you"}}
        with pytest.raises(CommandError, match="forbidden: not you"):
            await client.broadcast({})
        api.status, api.answer = 502, b"<html>"
        with pytest.raises(CommandError, match="http_502"):
            await client.broadcast({})
        api.status, api.answer = 200, b"[]"
        with pytest.raises(ConnectionFailed, match="not a JSON object"):
            await client.broadcast({})
    await idle_server.stop()
    with pytest.raises(ConnectionFailed, match="no answer"):
        await client.broadcast({})
