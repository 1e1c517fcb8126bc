"""aiohttp's own file endpoints, as its documentation shows them: a form's file is written to disk, and sent from there.

The argument is the folder.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from aiohttp import web

_FOLDER = Path(sys.argv[1])


async def _upload(request: web.Request) -> web.Response:
    size = 0
    async for part in await request.multipart():
        if part.name == "file":
            with open(_FOLDER / "uploaded", "wb") as file:  # noqa: ASYNC230, as in its documentation
                while chunk := await part.read_chunk():
                    size += len(chunk)
                    file.write(chunk)
    return web.json_response({"size": size})


async def _download(request: web.Request) -> web.FileResponse:
    return web.FileResponse(_FOLDER / "file")


def main() -> None:
    """Serve until killed."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(listener.getsockname()[1], flush=True)
    app = web.Application(client_max_size=2**40)
    app.add_routes([web.post("/upload", _upload), web.get("/file", _download)])
    web.run_app(app, sock=listener, print=None, access_log=None)


if __name__ == "__main__":
    main()
