"""Files to send in tests, a server that keeps them, and what is left of them there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

from rtcore import Message
from rtcore.uploads import FileConfig
from rtcore_transports import WSClient

from .servers import EAGER, Server, receive
from .stores import DiskStore

__all__ = ["CHUNK", "CONFIG", "LARGE", "SIZE", "WINDOW", "at", "client_of", "heard_file", "kept", "written"]

CHUNK: Final = 8192
WINDOW: Final = 4 * CHUNK
SIZE: Final = 20 * CHUNK + 5
# More than the window and what the server gathers before it writes: without its store it does not come to an end.
LARGE: Final = 2**21 + 5

CONFIG: Final = FileConfig(chunk_size=CHUNK, window=WINDOW, max_file_size=2**22, max_uploads_per_connection=4)


def written(folder: Path, name: str = "cat.jpg", size: int = SIZE, seed: int = 1) -> Path:
    path = folder / name
    path.write_bytes(Random(seed).randbytes(size))
    return path


def client_of(server: Server, port: int | None = None, **options: Any) -> WSClient:
    url = f"ws://127.0.0.1:{port or server.port}/realtime/ws?channel=room"
    return WSClient(url, **{"config": EAGER, **options})


async def heard_file(client: WSClient) -> Message:
    """Return the next message about a file."""
    while (message := await receive(client))["type"] != "binary":
        pass
    return message


def kept(store: DiskStore) -> dict[str, bytes]:
    """Return the files in a store, which holds nothing else."""
    names = store.names
    files = [name for name in names if "." not in name]
    assert names == sorted([*files, *(f"{name}.json" for name in files)])
    return {name: (store.folder / name).read_bytes() for name in files}


def at(points: list[int], act: Callable[[], object]) -> Callable[[int, int], None]:
    """Return a progress function that acts where the next point is reached."""

    def progress(sent: int, total: int) -> None:
        if points and sent >= points[0]:
            points.pop(0)
            act()

    return progress
