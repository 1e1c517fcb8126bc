"""rtcore's native server, the whole application, by the settings of a file.

The first argument names the event loop, the second the file.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import anyio

from rtcore_adapters import RealtimeApp
from rtcore_adapters.settings import load_settings
from rtcore_transports import serve


async def main() -> None:
    """Serve until killed."""
    path = Path(sys.argv[2])
    realtime = RealtimeApp(load_settings(config=path, env={}, cwd=path.parent))
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    # What comes before it is served waits for it.
    print(listener.getsockname()[1], flush=True)
    await serve(realtime.driver, app=realtime, sockets=[listener], config=realtime.config)


if __name__ == "__main__":
    loop = sys.argv[1]
    options = {"use_uvloop": loop == "uvloop"} if loop != "trio" else {}
    anyio.run(main, backend="trio" if loop == "trio" else "asyncio", backend_options=options)
