"""The document of calls is right: what it shows in Python runs. What it shows for browsers runs in one, elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiortc import VideoStreamTrack

from rtcore import ConnectionClosed
from rtcore_adapters.webrtc import ChannelReceived, WebRTCPeer, receive_file
from rtcore_transports import WSClient

from .snippets import snippets

DOCUMENT = "docs/signaling.md"


def function(name: str) -> Callable[..., Any]:
    """Return a function that a snippet defines."""
    [code] = [each.code for each in snippets(DOCUMENT) if f"async def {name}(" in each.code]
    names: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(code, DOCUMENT, "exec"), names)
    found: Callable[..., Any] = names[name]
    return found


def test_no_snippet_is_left_out() -> None:
    assert [(each.heading, each.language) for each in snippets(DOCUMENT)] == [
        ("In a browser", "html"),
        ("In Python", "python"),
        ("In Python", "python"),
    ]


def test_taking_part(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Loopback, which aioice leaves out.
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    path = tmp_path / "file"
    path.write_bytes(b"something")
    folder = tmp_path / "received"
    folder.mkdir()
    url = f"ws://127.0.0.1:{port}/realtime/ws"

    async def main() -> None:
        async with (
            asyncio.timeout(60),
            WSClient(url) as client,
            WebRTCPeer(client, "lobby", tracks=[VideoStreamTrack()]) as peer,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(function("take_part")(url, str(path)))
            async for event in peer:
                if isinstance(event, ChannelReceived):
                    with suppress(ConnectionClosed):
                        file = await receive_file(event.channel, folder, max_size=100)
                        break
        assert file.path.read_bytes() == b"something"

    asyncio.run(main())
    assert f" has {path}: " in capsys.readouterr().out


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_signals_one_by_one(port: int, backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"ws://127.0.0.1:{port}/realtime/ws"

    async def answer(client: WSClient) -> None:
        async for message in client:
            if message["type"] == "webrtc_signal":
                assert message["sdp"] == "v=0 offer"
                await client.send_webrtc_signal("answer", str(message["peer_id"]), "v=0 answer")
                return

    async def main() -> None:
        with anyio.fail_after(60):
            async with WSClient(url) as client, anyio.create_task_group() as tasks:
                await client.join_room("lobby", peer_id="you")
                tasks.start_soon(answer, client)
                await function("offer")(url, "v=0 offer")
                await client.leave_room("lobby")

    anyio.run(main, backend=backend)
    assert capsys.readouterr().out == "you answers v=0 answer\n"
