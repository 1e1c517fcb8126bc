"""The whole system on the native server, for a browser: python serve.py asyncio|trio PORT FOLDER.

Settings come from the environment and from what is in FOLDER. It prints its URL once it listens, and stops on SIGTERM.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import anyio

from rtcore_adapters import RealtimeApp
from rtcore_adapters.hosting import run_server
from rtcore_adapters.settings import load_settings


async def main(port: int, folder: Path) -> None:
    """Serve until told to stop."""
    settings = load_settings(cwd=folder)
    await run_server(
        RealtimeApp(settings),
        None,
        host="127.0.0.1",
        port=port,
        server="native",
        shutdown_timeout=settings.realtime.shutdown_timeout,
        announce=lambda url: print(url, flush=True),
    )


if __name__ == "__main__":
    # Faults of the peer are logged below this, faults of ours at or above it.
    logging.basicConfig(level=logging.WARNING)
    anyio.run(main, int(sys.argv[2]), Path(sys.argv[3]), backend=sys.argv[1])
