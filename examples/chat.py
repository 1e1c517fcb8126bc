"""A chat in the terminal: what you type goes to a channel, what others say there is printed.

Start a server with ``make serve``, and then, as often as you like::

    python -m examples.chat --name Ann
    python -m examples.chat --name Bob --trio
"""

from __future__ import annotations

import argparse
import sys

import anyio
import anyio.to_thread

from rtcore_transports import WSClient


async def chat(url: str, name: str, channel: str) -> None:
    """Chat until the end of standard input."""
    async with WSClient(url, user_id=name) as client:

        @client.on_message("chat")
        async def said(data: dict[str, str]) -> None:
            print(f"{data['name']}: {data['text']}", flush=True)

        @client.on_message("user_joined")
        async def joined(event: dict[str, object]) -> None:
            print(f"* {event['user_id'] or 'somebody'} is here", flush=True)

        @client.on_message("user_left")
        async def left(event: dict[str, object]) -> None:
            print(f"* {event['user_id'] or 'somebody'} has gone", flush=True)

        room = await client.subscribe_to_channel(channel)
        print(f"* you are in {channel} with {room['presence']['count'] - 1} others", flush=True)
        while line := await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            message = {"type": "chat", "channel": channel, "data": {"name": name, "text": line.strip()}, "echo": False}
            await client.send_json(message, ack=True)


def main() -> None:
    """Read the command line, and chat."""
    parser = argparse.ArgumentParser(description="Chat in the terminal.")
    parser.add_argument("--url", default="ws://127.0.0.1:8000/realtime/ws")
    parser.add_argument("--name", default="Ann")
    parser.add_argument("--channel", default="general")
    parser.add_argument("--trio", action="store_true", help="run on trio instead of asyncio")
    options = parser.parse_args()
    backend = "trio" if options.trio else "asyncio"
    anyio.run(chat, options.url, options.name, options.channel, backend=backend)


if __name__ == "__main__":
    main()
