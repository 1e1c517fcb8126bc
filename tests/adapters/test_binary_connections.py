"""Files that an application sends within one message."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rtcore import BinaryMessage, CommandError
from rtcore_adapters import ConnectionManager, Settings
from rtcore_adapters.settings import BinarySettings

from .binary_hosts import PNG, Binary, binary_host, hear_file
from .hosting import NATIVE, HostKind

NOTE = BinaryMessage(b"hello", "Text/Plain", "dir/note.txt")


@pytest.fixture(params=NATIVE, ids=str)
def binary(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Binary]:
    kind: HostKind = request.param
    with binary_host(kind, tmp_path, binary={"allowed_types": ("text/plain", "image/*")}) as running:
        yield running


def test_to_everybody_and_to_some(binary: Binary) -> None:
    manager, call = binary.host.realtime.connection_manager, binary.host.portal.call
    with binary.host.client("channel=news&user_id=ann") as client:
        receipts = [
            call(manager.send_to_channel, "news", NOTE, True),
            call(manager.send_to_user, "ann", NOTE),
            call(manager.send_to_connection, client.connection_id, NOTE),
            call(manager.broadcast, NOTE),
        ]
        heard = [hear_file(client) for _ in receipts]
    said = {"type": "binary", "content_type": "text/plain", "filename": "note.txt", "size": 5}
    for receipt, (head, data) in zip(receipts, heard, strict=True):
        assert data == NOTE.data
        meta = head.pop("meta")
        assert isinstance(meta, dict)
        assert receipt == {name: meta[name] for name in ("id", "offset", "epoch")}
        assert {name: head[name] for name in said} == said
    assert heard[0][0]["persistent"] is True
    assert call(manager.send_to_connection, "nobody", NOTE) is None
    assert binary.kept == []


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (BinaryMessage(b"1", "no type"), "invalid_content_type"),
        (BinaryMessage(b"1", "video/mp4"), "type_not_allowed"),
        (BinaryMessage(PNG, "image/png", ".."), "invalid_filename"),
        (BinaryMessage(b"<html>", "image/png"), "content_mismatch"),
        (BinaryMessage(bytes(2**20 + 1), "text/plain"), "binary_too_large"),
    ],
)
def test_what_cannot_be_sent(binary: Binary, message: BinaryMessage, code: str) -> None:
    manager = binary.host.realtime.connection_manager
    with pytest.raises(CommandError) as refused:
        binary.host.portal.call(manager.send_to_channel, "news", message)
    assert refused.value.code == code
    assert binary.stats() == (0, 0)


@pytest.mark.anyio
async def test_switched_off() -> None:
    manager = ConnectionManager(Settings(binary=BinarySettings(data_enabled=False)))
    with pytest.raises(CommandError) as refused:
        await manager.broadcast(NOTE)
    assert refused.value.code == "binary_disabled"
