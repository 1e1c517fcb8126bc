"""rtcore's native server, under the event loop that the first argument names."""

from __future__ import annotations

import sys

import anyio

from rtcore import NodeConfig, WebSocketConfig
from rtcore_transports import Driver, EndpointConfig, serve


async def main() -> None:
    """Serve until killed."""
    # As for the others: no pings, no heartbeats, so that nothing but the messages is measured.
    driver = Driver(NodeConfig(max_connections=20_000, websocket_heartbeat=None))
    config = EndpointConfig(allow_anonymous=True, websocket=WebSocketConfig(ping_interval=None))
    async with anyio.create_task_group() as tasks:
        host_and_port = await tasks.start(
            lambda *, task_status: serve(driver, port=0, config=config, task_status=task_status)
        )
        print(host_and_port[1], flush=True)


if __name__ == "__main__":
    anyio.run(main, backend=sys.argv[1])
