"""What we issue is taken by a real TURN server, by clients that are not ours, as long as it is good and no longer."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from aioice import stun, turn
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection

from rtcore.signaling.ice_servers import IceServer, ice_servers
from rtcore_adapters.settings import load_settings

from .coturn import Coturn


def issue(
    coturn: Coturn, folder: Path, *, user: str | None = "anna", secret: str | None = None, ago: float = 0.0
) -> IceServer:
    """Return what a server with these settings told `user` so many seconds ago."""
    env = {"WEBRTC_TURN_SERVERS": coturn.url, "WEBRTC_TURN_SECRET": secret or coturn.secret, "WEBRTC_TURN_TTL": "60"}
    settings = load_settings(env=env, cwd=folder).webrtc
    [server] = ice_servers(
        settings.stun_servers,
        settings.turn_servers,
        secret=settings.turn_secret,
        user=user,
        now_wall_seconds=time.time() - ago,
        ttl=settings.turn_ttl,
    )
    return server


class Relayed(asyncio.DatagramProtocol):
    """What hears by a relay; `lost` once the relay is given up."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


async def allocate(coturn: Coturn, server: IceServer) -> tuple[str, int]:
    """Return the relayed address that aioice gets.

    Raises:
        aioice.stun.TransactionFailed: It gets none.
    """
    transport, relayed = await turn.create_turn_endpoint(
        Relayed,
        server_addr=("127.0.0.1", coturn.port),
        username=server["username"],
        password=server["credential"],
    )
    address: tuple[str, int] = transport.get_extra_info("sockname")
    transport.close()
    await relayed.lost.wait()
    return address


def relay_between_two(coturn: Coturn, server: IceServer) -> subprocess.CompletedProcess[str]:
    """Let coturn's own client allocate twice, and send something from the one to the other."""
    path = shutil.which("turnutils_uclient")
    assert path is not None, "it is in the package of the server"
    arguments = ["-y", "-c", "-m", "1", "-n", "1", "-p", str(coturn.port)]
    credentials = ["-u", server["username"], "-w", server["credential"]]
    return subprocess.run(
        [path, *arguments, *credentials, "127.0.0.1"], capture_output=True, text=True, check=False, timeout=60
    )


USERS = [None, "42", "anna@example.org", "Анна К.", "a b'c\"d\\e:f%g", "reunion-selected", "x" * 255, "ж" * 255]


@pytest.mark.anyio
@pytest.mark.parametrize("user", USERS)
async def test_anybody_gets_a_relay(coturn: Coturn, tmp_path: Path, user: str | None) -> None:
    host, port = await allocate(coturn, issue(coturn, tmp_path, user=user))
    assert host == "127.0.0.1"
    assert port != coturn.port


def test_a_relay_relays(coturn: Coturn, tmp_path: Path) -> None:
    done = relay_between_two(coturn, issue(coturn, tmp_path))
    assert done.returncode == 0, done.stdout
    assert "tot_send_msgs=2, tot_recv_msgs=2" in done.stdout
    assert "Total lost packets 0 " in done.stdout


@pytest.mark.anyio
async def test_who_is_refused(coturn: Coturn, tmp_path: Path) -> None:
    good = issue(coturn, tmp_path)
    expiry, _, user = good["username"].partition(":")
    prolonged: IceServer = {**good, "username": f"{int(expiry) + 60}:{user}"}
    renamed: IceServer = {**good, "username": f"{expiry}:boris"}
    expired = issue(coturn, tmp_path, ago=62.0)
    for server in (expired, issue(coturn, tmp_path, secret="south"), prolonged, renamed):
        with pytest.raises(stun.TransactionFailed) as caught:
            await allocate(coturn, server)
        assert caught.value.response.attributes["ERROR-CODE"][0] == 401
    assert f"Cannot find credentials of user <{expired['username']}>" in coturn.log.read_text()
    await allocate(coturn, good)


@pytest.mark.parametrize("wrong", [{"ago": 62.0}, {"secret": "south"}], ids=["expired", "forged"])
def test_who_is_refused_a_relay(coturn: Coturn, tmp_path: Path, wrong: dict[str, float | str]) -> None:
    done = relay_between_two(coturn, issue(coturn, tmp_path, **wrong))  # type: ignore[arg-type]
    assert done.returncode != 0
    assert "Cannot complete Allocation" in done.stdout + done.stderr


@pytest.mark.anyio
async def test_a_peer_connection_takes_them_as_they_are(coturn: Coturn, tmp_path: Path) -> None:
    server = issue(coturn, tmp_path)
    connection = RTCPeerConnection(RTCConfiguration([RTCIceServer(**server)]))
    connection.createDataChannel("chat")
    await connection.setLocalDescription(await connection.createOffer())
    assert " 127.0.0.1 " in "\n".join(
        line for line in connection.localDescription.sdp.splitlines() if "typ relay" in line
    )
    await connection.close()
