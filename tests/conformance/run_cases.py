"""The echo client against the fuzzing server: python run_cases.py asyncio|trio HOST:PORT.

The server's protocol is Autobahn's: one connection tells how many cases there are, each case has one of its own, and
the last one has the report written.
"""

from __future__ import annotations

import logging
import sys

import anyio

from examples.echo_client import echo
from rtcore import WebSocketConfig
from rtcore_transports.websocket_stream import open_websocket

# What the largest cases (9.1.6, 9.2.6) send.
LARGEST_MESSAGE = 2**24
# Some cases do little but wait.
AT_ONCE = 4


async def main(backend: str, address: str) -> None:
    """Run all cases that the server has."""
    config = WebSocketConfig(max_message_size=LARGEST_MESSAGE)
    agent = f"rtcore-{backend}"
    async with open_websocket(f"ws://{address}/getCaseCount") as websocket:
        count = int(await websocket.receive())
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def run(case: int) -> None:
        async with limiter:
            await echo(f"ws://{address}/runCase?case={case}&agent={agent}", config)

    async with anyio.create_task_group() as tasks:
        for case in range(1, count + 1):
            tasks.start_soon(run, case)
    await echo(f"ws://{address}/updateReports?agent={agent}")


if __name__ == "__main__":
    # Faults of the peer are logged below this, faults of ours at or above it.
    logging.basicConfig(level=logging.WARNING)
    anyio.run(main, sys.argv[1], sys.argv[2], backend=sys.argv[1])
