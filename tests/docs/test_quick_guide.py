"""Every snippet of the quick guide does what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import httpx2
import pytest
from anyio import fail_after, sleep
from websockets.sync.client import connect

from rtcore import BinaryMessage
from rtcore_adapters import load_settings
from rtcore_transports import SSEClient, WSClient

from .snippets import Snippet, snippets

GUIDE = "docs/quick-guide.ru.md"
TESTED = {
    "WebSocket клиент",
    "SSE клиент",
    "WebSocket",
    "SSE (Server-Sent Events)",
    "WebSocket endpoint",
    "SSE endpoint",
    "Настройка",
    "Основные endpoints",
    "Мониторинг",
    "Бинарные данные",
    "Каналы и комнаты",
    "Тестирование",
    "Клиентский JavaScript",
}

# What the guide takes for granted in an application.
APPLICATION = "from fastapi import FastAPI\napp = FastAPI()\n"

# Of 1 x 1 pixel.
PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010804000000b51c0c020000000b4944415478da6364f80f00010501012718e366"
    "0000000049454e44ae426082"
)
PHOTO = {
    "type": "binary",
    "content_type": "image/png",
    "filename": "photo.png",
    "size": len(PICTURE),
    "data": PICTURE,
    "id": ANY,
    "meta": ANY,
}

pytestmark = pytest.mark.anyio


def snippet(heading: str, port: int) -> Snippet:
    [found] = [each for each in snippets(GUIDE) if each.heading == heading]
    return found.on_port(port)


def run(code: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {}
    exec(compile(code, GUIDE, "exec"), namespace)
    return namespace


async def next_file(client: WSClient) -> dict[str, Any]:
    with fail_after(10):
        async for message in client:
            if message["type"] == "binary":
                return message
    raise AssertionError("the connection has ended")


def test_no_snippet_is_left_out() -> None:
    assert {each.heading for each in snippets(GUIDE)} == TESTED


async def test_websocket_client(port: int) -> None:
    before = stats(port)
    example = run(snippet("WebSocket клиент", port).code)["websocket_example"]
    await example()
    after = stats(port)
    assert after["accepted_connections"] == before["accepted_connections"] + 1
    assert after["published_messages"] == before["published_messages"] + 1


async def test_sse_client(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    example = run(snippet("SSE клиент", port).code)["sse_example"]
    await example()
    body = {"title": "Внимание", "content": "…"}
    httpx2.post(f"http://127.0.0.1:{port}/realtime/notifications/broadcast", json=body).raise_for_status()
    printed = ""
    with fail_after(10):
        while "Уведомление" not in printed:
            await sleep(0.01)
            printed += capsys.readouterr().out
    assert "Внимание" in printed


async def test_websocket(port: int) -> None:
    async with WSClient(f"ws://127.0.0.1:{port}/realtime/ws") as client:
        await run(snippet("WebSocket", port).as_function("client", "file_data"))["snippet"](client, PICTURE)
        # What names no channel comes back, as text does.
        assert await next_file(client) == PHOTO
        assert (await client.send_command("presence", {"channel": "general"}))["count"] == 1


async def test_server_sent_events(port: int) -> None:
    async with SSEClient(f"http://127.0.0.1:{port}/realtime/events", channel="general") as client:
        await run(snippet("SSE (Server-Sent Events)", port).as_function("client", "user_id"))["snippet"](client, 42)
        heard: list[str] = []
        with fail_after(10):
            async for event in client.events():
                heard.append(event.data)
                if "Глобальное сообщение" in event.data:
                    break
    assert any("Объявление" in data for data in heard)
    assert not any("Персональное" in data for data in heard)


async def test_files(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "image.png").write_bytes(PICTURE)
    monkeypatch.chdir(tmp_path)
    async with WSClient(f"ws://127.0.0.1:{port}/realtime/ws") as client:
        code = snippet("Бинарные данные", port).as_function("client", "BinaryMessage")
        await run(code)["snippet"](client, BinaryMessage)
        assert await next_file(client) == {**PHOTO, "filename": "image.png"}


async def test_channels(port: int) -> None:
    async with WSClient(f"ws://127.0.0.1:{port}/realtime/ws") as client:
        await run(snippet("Каналы и комнаты", port).as_function("client"))["snippet"](client)
        with fail_after(10):
            async for message in client:
                if message["type"] == "channel_message":
                    break
    assert message["message"] == "Привет всем в комнате!"


async def test_monitoring(capsys: pytest.CaptureFixture[str]) -> None:
    await run(snippet("Мониторинг", 0).as_function())["snippet"]()
    assert capsys.readouterr().out == "Активных соединений: 0\nSSE соединений: 0\n"


async def test_testing(port: int) -> None:
    await run(snippet("Тестирование", port).code)["test_websocket_connection"]()


def test_websocket_endpoint(serve_application: Callable[[str], int]) -> None:
    port = serve_application(APPLICATION + snippet("WebSocket endpoint", 0).code)
    with connect(f"ws://127.0.0.1:{port}/ws", proxy=None) as websocket:
        assert json.loads(websocket.recv(10))["connection_id"] == "user_123"
        websocket.send("Привет")
        heard = json.loads(websocket.recv(10))
    assert (heard["type"], heard["message"]) == ("broadcast", "Привет")


def test_sse_endpoint(serve_application: Callable[[str], int]) -> None:
    port = serve_application(APPLICATION + snippet("SSE endpoint", 0).code)
    with httpx2.stream("GET", f"http://127.0.0.1:{port}/events") as response:
        lines = [line for line, _ in zip(response.iter_lines(), range(6), strict=False)]
    # The position where the stream begins is no event.
    assert lines[2].startswith("id: ")
    assert [*lines[:2], *lines[3:5]] == ["retry: 3000", "", "", "event: connected"]
    assert json.loads(lines[5].removeprefix("data: "))["channels"] == ["general"]


def test_settings(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(snippet("Настройка", 0).code)
    settings = load_settings(env={}, cwd=tmp_path)
    assert (settings.websocket.enabled, settings.sse.enabled, settings.realtime.max_connections) == (True, True, 1000)


def test_endpoints(port: int) -> None:
    expected = {"WS": 426, "GET": 200, "POST": 415}
    for line in snippet("Основные endpoints", 0).code.splitlines():
        method, path, _ = line.split(maxsplit=2)
        url = f"http://127.0.0.1:{port}{path}"
        with httpx2.stream(method.replace("WS", "GET"), url) as response:
            assert response.status_code == expected[method], line


def stats(port: int) -> dict[str, int]:
    answer: dict[str, int] = httpx2.get(f"http://127.0.0.1:{port}/realtime/stats").json()
    return answer
