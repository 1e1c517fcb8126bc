"""The `websockets` library with its `broadcast()`; on uvloop if the first argument says so."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.http11 import Request, Response

_subscribers: set[ServerConnection] = set()


async def _serve(connection: ServerConnection) -> None:
    assert connection.request is not None, "the handshake is over"
    match connection.request.path:
        case "/subscribe":
            _subscribers.add(connection)
            try:
                await connection.wait_closed()
            finally:
                _subscribers.remove(connection)
        case "/publish":
            async for message in connection:
                broadcast(_subscribers, message)
        case _:
            async for message in connection:
                await connection.send(message)


async def main(process_request: Callable[[ServerConnection, Request], Response | None] | None = None) -> None:
    """Serve until killed.

    Args:
        process_request: Tells how a request is refused, or ``None``.
    """
    async with serve(
        _serve, "127.0.0.1", 0, process_request=process_request, compression=None, ping_interval=None, backlog=4096
    ) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1:] == ["uvloop"]:
        import uvloop

        uvloop.run(main())
    else:
        asyncio.run(main())
