"""A server under attack that keeps files, and a plain client that sends it some."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import httpx2
from websockets.sync.client import ClientConnection, connect

from rtcore.binary import encode_payload

from .ordinary import OrdinaryClient, Server, serving

__all__ = ["Keeper", "Talk", "keeping", "talking"]

#: More than any attack costs the server.
_MEMORY: Final = 48 * 2**20
_TIMEOUT: Final = 30.0


@attrs.frozen
class Keeper:
    """A server that keeps files in a folder."""

    server: Server
    folder: Path

    @property
    def left(self) -> list[str]:
        """What is in the folder, in order, files that are on their way included."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())

    @property
    def stats(self) -> dict[str, Any]:
        """What the server tells of itself."""
        with self.http() as http:
            return dict(http.get("/stats").json())

    def http(self) -> httpx2.Client:
        """Return a client of its API."""
        base = f"http://127.0.0.1:{self.server.port}/realtime"
        return httpx2.Client(base_url=base, timeout=_TIMEOUT, trust_env=False)

    def send(self, data: bytes, **query: str) -> httpx2.Response:
        """Send a file."""
        with self.http() as http:
            return http.post("/binary/send", params={"channel": "room", **query}, content=data)

    def wait_until_left(self, names: list[str]) -> None:
        """Wait until nothing else is in the folder."""
        until = time.monotonic() + _TIMEOUT
        while (left := self.left) != names:
            assert time.monotonic() < until, left
            time.sleep(0.02)

    @contextmanager
    def attacked(self) -> Iterator[None]:
        """Have an ordinary client beside the block, a bound for memory, and a file sent and read back at its end."""
        with OrdinaryClient(self.server.port):
            self.server.forget_peak()
            before = self.server.memory
            yield
            assert self.server.peak_memory - before < _MEMORY, f"{self.server.peak_memory - before:,} bytes more"
            data = b"what somebody else sends" * 1000
            told = self.send(data)
            assert told.status_code == 200, told.text
            with self.http() as http:
                assert http.get(f"/binary/{told.json()['file_id']}").content == data


@contextmanager
def keeping(folder: Path, *options: str) -> Iterator[Keeper]:
    kept = folder / "files"
    with serving(folder, "--folder", str(kept), *options) as server:
        yield Keeper(server, kept)


class Talk:
    """A WebSocket client, plain."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        assert self.hear()["type"] == "connected"

    def hear(self) -> dict[str, Any]:
        while True:
            said = self.websocket.recv(_TIMEOUT)
            assert isinstance(said, str)
            message: dict[str, Any] = json.loads(said)
            if message["type"] != "heartbeat":
                return message

    def begin(self, upload_id: str, size: int = 1000) -> dict[str, Any]:
        data = {"upload_id": upload_id, "channel": "room", "size": size}
        self.websocket.send(json.dumps({"type": "command", "command": "begin_upload", "data": data, "id": upload_id}))
        while (answer := self.hear()).get("id") != upload_id:
            pass
        return answer

    def chunk(self, upload_id: str, offset: int, data: bytes, digest: str | None = None) -> None:
        head: dict[str, object] = {"type": "chunk", "upload_id": upload_id, "offset": offset}
        self.websocket.send(encode_payload(head if digest is None else {**head, "sha256": digest}, data))

    def hear_end(self, upload_id: str) -> dict[str, Any]:
        """Return what is said in the end of an upload."""
        while True:
            message = self.hear()
            if message.get("upload_id") == upload_id and ("error" in message or "file" in message):
                return message


@contextmanager
def talking(keeper: Keeper) -> Iterator[Talk]:
    url = f"ws://127.0.0.1:{keeper.server.port}/realtime/ws"
    with connect(url, proxy=None, max_size=None, open_timeout=_TIMEOUT, ping_interval=None) as websocket:
        yield Talk(websocket)
