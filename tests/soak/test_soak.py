"""A small version of each soak; nothing here depends on how long anything takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..adapters.s3 import s3_server
from .soaks import chat_beside_a_file, form, served, there_and_back

_SIZE = 12_000_000
# The whole interpreter is in it, with everything that the command imports.
_MAX_MEMORY = 150e6


def nothing(carried: int, total: int) -> None:
    """Show nothing."""


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_there_and_back(loop: str, tmp_path: Path) -> None:
    with served(tmp_path, loop=loop) as server:
        trip = there_and_back(server, tmp_path, _SIZE, cuts=3, up=nothing, down=nothing, loop=loop)
        assert trip.cuts[0] > 0
        assert trip.cuts[1] > 0
        assert trip.peak_memory < _MAX_MEMORY
        assert form(server, 2 * _SIZE, progress=nothing) < _MAX_MEMORY
        assert list(tmp_path.glob("store/**/*.part")) == []


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_chat_beside_a_file(loop: str, tmp_path: Path) -> None:
    with served(tmp_path, loop=loop) as server:
        chat = chat_beside_a_file(server, tmp_path, 2 * _SIZE, alone=10, progress=nothing, loop=loop)
        assert len(chat.beside) > 1


def test_there_and_back_by_object_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "something")
    with s3_server(tmp_path) as s3:
        s3.make_bucket("soak")
        with served(tmp_path, store_url=s3.url("soak", "files")) as server:
            trip = there_and_back(server, tmp_path, _SIZE, cuts=3, up=nothing, down=nothing, loop="asyncio")
            assert trip.peak_memory < _MAX_MEMORY
        assert s3.incomplete("soak") == []
