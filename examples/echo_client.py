"""A WebSocket client that sends every message back, until the server ends the conversation.

Run it as ``python -m examples.echo_client ws://127.0.0.1:8000/``.
"""

from __future__ import annotations

import sys
from contextlib import suppress

import anyio

from rtcore import ConnectionClosed, WebSocketConfig
from rtcore_transports.websocket_stream import open_websocket

__all__ = ["echo"]


async def echo(url: str, config: WebSocketConfig | None = None) -> None:
    """Connect to `url`, and send back what comes; returns once the WebSocket is closed.

    Raises:
        ConnectionFailed: It could not be opened.
    """
    async with open_websocket(url, config=config) as websocket:
        with suppress(ConnectionClosed):
            while True:
                await websocket.send(await websocket.receive())


if __name__ == "__main__":
    anyio.run(echo, sys.argv[1])
