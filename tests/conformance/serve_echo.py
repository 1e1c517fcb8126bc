"""The echo example on the native server, for the fuzzing client: python serve_echo.py asyncio|trio.

Prints its address once it accepts connections; stops on SIGTERM.
"""

from __future__ import annotations

import logging
import signal
import sys
from functools import partial

import anyio

from examples.echo import app
from rtcore import WebSocketConfig
from rtcore_transports import EndpointConfig, serve

# What the largest cases (9.1.6, 9.2.6) send.
LARGEST_MESSAGE = 2**24


async def main() -> None:
    """Serve until told to stop."""
    config = EndpointConfig(websocket=WebSocketConfig(max_message_size=LARGEST_MESSAGE))
    shutdown = anyio.Event()
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        async with anyio.create_task_group() as tasks:
            host, port = await tasks.start(partial(serve, app=app, port=0, config=config, shutdown=shutdown))
            print(f"{host}:{port}", flush=True)
            async for _ in signals:
                shutdown.set()
                break


if __name__ == "__main__":
    # Faults of the peer are logged below this, faults of ours at or above it.
    logging.basicConfig(level=logging.WARNING)
    anyio.run(main, backend=sys.argv[1])
