"""An ASGI application for the native server to serve, with one behaviour for each path."""

from __future__ import annotations

import json
import threading

from starlette.types import Message, Receive, Scope, Send

__all__ = ["Application"]


class Application:
    """An ASGI application with one behaviour for each path, and notes of what it was told."""

    def __init__(self) -> None:
        self.left = threading.Event()
        self.scopes: list[Scope] = []
        self.ended: Message = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        self.scopes.append(scope)
        name = scope["path"].strip("/").replace("-", "_") or "root"
        await getattr(self, f"_{scope['type']}_{name}")(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        scope["state"]["answer"] = 42
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    # HTTP

    async def _http_root(self, scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, json.dumps({"state": scope["state"]["answer"]}).encode())

    async def _http_echo(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        await respond(send, body)

    async def _http_deaf(self, scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"no, thanks", 413)

    async def _http_endless(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream to a client without ever asking whether it is there: sending tells."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        except OSError:
            self.left.set()
            raise

    async def _http_wait(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Say something and wait for the client to leave: receiving tells."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ready", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left.set()

    async def _http_fail(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("a fault of the application")

    async def _http_fail_late(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
        await send({"type": "http.response.body", "body": b"some", "more_body": True})
        raise ValueError("a fault of the application")

    async def _http_silent(self, scope: Scope, receive: Receive, send: Send) -> None:
        pass

    # WebSocket

    async def _websocket_echo(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        subprotocol = next(iter(scope["subprotocols"]), None)
        await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": [(b"x-own", b"yes")]})
        while (message := await receive())["type"] == "websocket.receive":
            if message.get("text") == "close":
                await send({"type": "websocket.close", "code": 4000, "reason": "as you like"})
            elif message.get("text") == "return":
                return
            elif message.get("text") == "fail":
                raise ValueError("a fault of the application")
            else:
                await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})
        self.ended = message
        self.left.set()

    async def _websocket_refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close"})

    async def _websocket_explain(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"9")]
        await send({"type": "websocket.http.response.start", "status": 409, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"not ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"today"})

    async def _websocket_silent(self, scope: Scope, receive: Receive, send: Send) -> None:
        pass

    async def _websocket_fail(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("a fault of the application")

    async def _websocket_lie(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "never offered"})

    async def _websocket_flood(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            while True:
                await send({"type": "websocket.send", "bytes": b"x" * 65536})
        except OSError:
            self.left.set()
            raise


async def respond(send: Send, body: bytes, status: int = 200) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
