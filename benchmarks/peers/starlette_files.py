"""Starlette's own file endpoints, on uvicorn: a form's file is copied to disk, and sent from there.

The argument is the folder.
"""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path

import anyio.to_thread
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Route

_FOLDER = Path(sys.argv[1])


async def _upload(request: Request) -> JSONResponse:
    async with request.form() as form:
        upload = form["file"]
        assert isinstance(upload, UploadFile), "a file"

        def copy() -> None:
            with open(_FOLDER / "uploaded", "wb") as file:
                shutil.copyfileobj(upload.file, file)

        await anyio.to_thread.run_sync(copy)
        return JSONResponse({"size": upload.size})


async def _download(request: Request) -> FileResponse:
    return FileResponse(_FOLDER / "file")


def main() -> None:
    """Serve until killed."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(listener.getsockname()[1], flush=True)
    app = Starlette(routes=[Route("/upload", _upload, methods=["POST"]), Route("/file", _download)])
    uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="error")).run([listener])


if __name__ == "__main__":
    main()
