"""FastAPI on uvicorn with the loop over connections of its documentation.

The first argument names uvicorn's implementation of WebSockets, the second its event loop.
"""

from __future__ import annotations

import socket
import sys

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

_subscribers: list[WebSocket] = []
_app = FastAPI()


@_app.websocket("/subscribe")
async def _subscribe(websocket: WebSocket) -> None:
    await websocket.accept()
    _subscribers.append(websocket)
    try:
        await websocket.receive_text()
    except WebSocketDisconnect:
        _subscribers.remove(websocket)


@_app.websocket("/publish")
async def _publish(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        for subscriber in _subscribers:
            await subscriber.send_text(text)


@_app.websocket("/echo")
async def _echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


def main() -> None:
    """Serve until killed."""
    websockets, loop = sys.argv[1:]
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(
        _app,
        ws=websockets,
        loop=loop,
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        lifespan="off",
        log_level="error",
        backlog=4096,
    )
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main()
