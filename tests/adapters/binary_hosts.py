"""Hosts that take files, and forms to send them with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rtcore import Message
from rtcore_adapters import Settings
from rtcore_adapters.settings import BinarySettings, RealtimeSettings

from .clients import TIMEOUT, Client
from .hosting import Host, HostKind, run_host

__all__ = ["INLINE", "MAX_FILE", "PNG", "Binary", "binary_host", "hear_file", "split"]

#: The most bytes of a file that is in the message about it.
INLINE = 1000
#: Small, so that tests of the limit are.
MAX_FILE = 3_000_000

#: What a picture begins with.
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0"


class Binary:
    """A host that keeps files in a folder."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host = host
        self.http = host.http
        self.folder = folder

    @property
    def kept(self) -> list[Path]:
        """What is in the folder, be it a part of a file."""
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def stats(self) -> tuple[int, int]:
        """Return how many files are kept, and how many publications there have been."""
        stats = self.http.get("/stats").json()
        return stats["files"], stats["published_messages"]

    def wait_until_nothing_is_kept(self) -> None:
        """Wait until no part of a file is left."""
        self.host.wait_for(lambda: not self.kept)

    def upload(self, *files: tuple[str | None, bytes, str], **fields: str) -> list[Message]:
        """Send files, each with its name and its type, that must be taken; returns what is told of them."""
        response = self.http.post("/binary/upload", data=fields, files=[("file", file) for file in files])
        assert response.status_code == 200, response.text
        told: list[Message] = response.json()["files"]
        return told

    def get(self, file: Message, **headers: str) -> Any:
        """Ask for a file; the response has been read."""
        url = str(file["url"])
        assert url.startswith(f"{self.host.prefix}/binary/")
        return self.http.get(
            url.removeprefix(self.host.prefix), headers={n.replace("_", "-"): v for n, v in headers.items()}
        )


@contextmanager
def binary_host(kind: HostKind, folder: Path, **settings: Any) -> Iterator[Binary]:
    """Run a host that keeps files in a folder; settings of other tables may be given."""
    binary = {"max_file_size": MAX_FILE, "inline_max_size": INLINE, **settings.pop("binary", {})}
    realtime = {"allow_anonymous": True, "presence_grace": 0.0, **settings.pop("realtime", {})}
    given = Settings(
        realtime=RealtimeSettings(**realtime),
        binary=BinarySettings(store_url=folder.as_uri(), **binary),
        **settings,
    )
    with run_host(kind, given) as host:
        yield Binary(host, folder)


def split(payload: bytes) -> tuple[Message, bytes]:
    """Return the head and the file of a binary frame."""
    end = 4 + int.from_bytes(payload[:4], "big")
    head: Message = json.loads(payload[4:end])
    return head, payload[end:]


def hear_file(client: Client) -> tuple[Message, bytes | None]:
    """Return the next message about a file, and the file if that is in it, passing over others."""
    while True:
        said = client.websocket.recv(timeout=TIMEOUT)
        message, data = split(said) if isinstance(said, bytes) else (json.loads(said), None)
        if message["type"] == "binary":
            return message, data
