"""A client as a process, which a test may stop and let go on: python listen.py asyncio|trio KIND PORT USER CHANNEL….

It prints what it hears, a line of JSON each, and first of all that it listens.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import anyio

from tests.network.clients import Kind, hear, open_client


async def main(kind: Kind, port: int, user_id: str, channels: list[str]) -> None:
    """Listen until killed."""

    def tell(message: dict[str, Any]) -> None:
        # What it is padded with is of no interest to those who check it.
        print(json.dumps({**message, "padding": ""}), flush=True)

    async with open_client(kind, port, channels, user_id) as client:
        print(json.dumps("listening"), flush=True)
        await hear(client, tell)


if __name__ == "__main__":
    _, backend, chosen, at, user, *names = sys.argv
    anyio.run(main, "websocket" if chosen == "websocket" else "event-stream", int(at), user, names, backend=backend)
