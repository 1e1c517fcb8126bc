"""An ASGI application that sends every WebSocket message back.

Run it as ``rtcore serve --app examples.echo:app``, or from Python with ``await rtcore_transports.serve(app=app)``; any
other ASGI server will do as well.
"""

from __future__ import annotations

from rtcore_transports.asgi import Receive, Scope, Send

__all__ = ["app"]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one connection, or the lifespan of the server."""
    match scope["type"]:
        case "websocket":
            await echo(receive, send)
        case "lifespan":
            await lifespan(receive, send)
        case "http":
            await refuse(send)
        case kind:
            raise ValueError(f"{kind!r} is not served here")


async def echo(receive: Receive, send: Send) -> None:
    """Accept a WebSocket, and send back what comes until it ends."""
    while True:
        message = await receive()
        match message["type"]:
            case "websocket.connect":
                await send({"type": "websocket.accept"})
            case "websocket.receive":
                # One of the two is there; servers may leave out the other or set it to None.
                await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})
            case "websocket.disconnect":
                return


async def lifespan(receive: Receive, send: Send) -> None:
    """Start and stop with the server: the place to open and close what connections share."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def refuse(send: Send) -> None:
    """Tell whoever comes without a WebSocket that one is needed."""
    body = b'{"error":{"code":"upgrade_required","message":"open a WebSocket here"}}'
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"upgrade", b"websocket"),
    ]
    await send({"type": "http.response.start", "status": 426, "headers": headers})
    await send({"type": "http.response.body", "body": body})
