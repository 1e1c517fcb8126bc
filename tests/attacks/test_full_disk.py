"""A disk that is full, and a store that is down, beside an ordinary client that notices nothing."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Final

import httpx2
import pytest

from .keeper import Keeper, keeping, talking

_CHUNK: Final = 2**16
# More than the system lets the server write, and less than what it takes.
_DATA: Final = bytes(range(256)) * 3600
_AT_ONCE: Final = 8


@pytest.fixture(params=["asyncio", "trio"])
def keeper(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Keeper]:
    with keeping(tmp_path, "--backend", request.param, "--disk", str(len(_DATA) - 1)) as running:
        yield running


def send_at_once(keeper: Keeper) -> list[tuple[int, str | None]]:
    """Have several send a file, by form and as it is; returns how each is answered."""

    def send(number: int) -> httpx2.Response:
        if number % 2:
            return keeper.send(_DATA)
        with keeper.http() as http:
            return http.post("/binary/upload?channel=room", files={"file": ("a.bin", _DATA)})

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        answers = list(threads.map(send, range(_AT_ONCE)))
    return [(answer.status_code, answer.json().get("error", {}).get("code")) for answer in answers]


def send_in_chunks(keeper: Keeper, upload_id: str) -> str:
    """Send a file in chunks, none of them before there is room for it; returns why it is not kept."""
    with talking(keeper) as talk:
        window = talk.begin(upload_id, len(_DATA))["data"]["window"]
        stored = 0
        for offset in range(0, len(_DATA), _CHUNK):
            while offset + _CHUNK - stored > window:
                said = talk.hear()
                if "error" in said:
                    return str(said["error"]["code"])
                stored = said["offset"]
            last = offset + _CHUNK >= len(_DATA)
            talk.chunk(upload_id, offset, _DATA[offset : offset + _CHUNK], sha256(_DATA).hexdigest() if last else None)
        return str(talk.hear_end(upload_id)["error"]["code"])


def test_a_disk_that_is_full(keeper: Keeper) -> None:
    with keeper.attacked():
        assert send_at_once(keeper) == [(507, "store_full")] * _AT_ONCE
        assert send_in_chunks(keeper, "full") == "store_full"
        keeper.wait_until_left([])
        assert keeper.stats["file_bytes"] == 0


def test_a_store_that_is_down(keeper: Keeper) -> None:
    """A folder that cannot be had; once it can, files are taken."""
    with keeper.attacked():
        keeper.folder.write_text("in its place")
        assert send_at_once(keeper) == [(503, "store_unavailable")] * _AT_ONCE
        assert send_in_chunks(keeper, "down") == "store_unavailable"
        with keeper.http() as http:
            answer = http.get(f"/binary/{'0' * 32}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
        assert keeper.stats["file_bytes"] == 0
        keeper.folder.unlink()
