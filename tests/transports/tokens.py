"""Tokens for the clients: where they are had from, and what a server says about them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio

from rtcore import Message

from .servers import Api, ASGISocket

__all__ = ["EXPIRED", "SECRET", "Issuer", "PickyApi", "next_command", "refuse", "say_expired"]

#: What is in every token, and must be nowhere else.
SECRET = "s3cr3t"

EXPIRED: Message = {"type": "disconnect", "code": 4401, "reason": "the token has expired", "reconnect": False}


class Issuer:
    """Gives tokens, each another one; may fail, and may wait until it is told to go on."""

    def __init__(self) -> None:
        self.given = 0
        self.asked = 0
        self.at_once = 0
        self.most_at_once = 0
        self.failing: Callable[[], str] | None = None
        self.gate: anyio.Event | None = None

    async def __call__(self) -> str:
        self.asked += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.gate is not None:
                await self.gate.wait()
            await anyio.lowlevel.checkpoint()
            if self.failing is not None:
                return self.failing()
            self.given += 1
            return f"{SECRET}-{self.given}"
        finally:
            self.at_once -= 1


class PickyApi(Api):
    """An HTTP API that refuses some tokens."""

    def __init__(self, *refused: str) -> None:
        super().__init__()
        self.refused = list(refused)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        token = dict(scope.get("headers", [])).get(b"authorization", b"").decode().removeprefix("Bearer ")
        self.status = 401 if token in self.refused else 200
        await super().__call__(scope, receive, send)


async def next_command(socket: ASGISocket) -> Message:
    message = await socket.receive()
    assert message is not None
    assert message["type"] == "command"
    return message


async def refuse(socket: ASGISocket, message: Message, code: str = "invalid_token") -> None:
    await socket.send({"type": "error", "id": message["id"], "code": code, "message": "no"})


async def say_expired(socket: ASGISocket) -> None:
    await socket.send(EXPIRED)
    await socket.close(4401, "the token has expired")
