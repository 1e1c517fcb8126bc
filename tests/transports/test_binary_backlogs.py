"""Files for clients that do not keep up: they come in order, in the form that was asked for."""

from __future__ import annotations

import base64
import json
import socket

import anyio.to_thread
import attrs
import pytest

from rtcore import Message

from ..adapters.clients import raw_upgrade, read_frames
from .servers import Server, patiently

pytestmark = pytest.mark.anyio

SIZE = 200_000


def read_files(sock: socket.socket, last: int) -> list[tuple[int, int, bytes]]:
    """Return the opcode, the number and the content of each file, until that of number `last`."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    heard: list[tuple[int, int, bytes]] = []
    for opcode, payload in read_frames(sock):
        if opcode == 2:
            end = 4 + int.from_bytes(payload[:4], "big")
            message, data = json.loads(payload[4:end]), payload[end:]
        else:
            message = json.loads(payload)
            data = base64.b64decode(message.get("binary_data", ""))
        if message["type"] == "binary":
            heard.append((opcode, message["number"], data))
            if message["number"] == last:
                break
    return heard


@pytest.mark.parametrize(("form", "opcode"), [("frames", 2), ("base64", 1)])
async def test_files_that_wait(idle_server: Server, form: str, opcode: int) -> None:
    idle_server.config = attrs.evolve(idle_server.config, max_backlog=2**26)
    await idle_server.start()
    driver = idle_server.driver
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(10.0)
        await anyio.to_thread.run_sync(sock.connect, ("127.0.0.1", idle_server.port))
        sock.sendall(raw_upgrade(f"/realtime/ws?channel=room&binary={form}"))
        await patiently(lambda: driver.stats()["websocket_count"] == 1)
        count = 0
        while not driver.stats()["backlog_bytes"]:
            for _ in range(5):
                head: Message = {"type": "binary", "size": SIZE, "number": count}
                driver.publish("room", head, data=bytes([count % 256]) * SIZE)
                count += 1
            await anyio.wait_all_tasks_blocked()
            assert count < 1000
        # What waits counts as what it is, whatever it becomes.
        assert driver.stats()["backlog_bytes"] < count * (SIZE + 1000)
        heard = await anyio.to_thread.run_sync(read_files, sock, count - 1)
        assert [(kind, number) for kind, number, _ in heard] == [(opcode, number) for number in range(count)]
        assert all(data == bytes([number % 256]) * SIZE for _, number, data in heard)
