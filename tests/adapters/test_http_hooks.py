"""What the application and the limits of users have to say about requests to the HTTP API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import time

import attrs
import httpx2
import pytest

from rtcore import Credential, Grant, Identity, LocalProtocolError, Refusal, Transport, encode
from rtcore_adapters import ConnectionManager, RealtimeApp, Settings, WSAuthenticator, connection_manager
from rtcore_adapters.settings import ApiKeySettings, RealtimeSettings, WebSocketSettings, WsSettings
from rtcore_transports import Admission, Batch, Credentials

from .matrix_stage import SECRET, make_token

pytestmark = pytest.mark.anyio

PROGRAM, PUPPET = {"X-API-Key": "the-key-of-a-program"}, {"X-API-Key": "the-key-of-somebody-s"}
KEYS = Settings(
    ws=WsSettings(
        jwt_secret_key=SECRET,
        api_keys=(
            ApiKeySettings(key=PROGRAM["X-API-Key"], name="program"),
            ApiKeySettings(key=PUPPET["X-API-Key"], name="puppet", user="denied"),
        ),
    )
)


class Deaf:
    """An outlet that takes everything."""

    def deliver(self, batch: Batch) -> None:
        """Take it."""

    def close(self, code: int, reason: str) -> None:
        """Take note."""


def bearer(user: str, **claims: object) -> dict[str, str]:
    now = int(time())
    return {"Authorization": f"Bearer {make_token({'sub': user, 'iat': now, 'exp': now + 600, **claims})}"}


def code_of(response: httpx2.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"] if response.status_code >= 400 else ""


Asked = list[tuple[object, ...]]


@asynccontextmanager
async def asking(
    settings: Settings, *, no: str = "denied"
) -> AsyncIterator[tuple[httpx2.AsyncClient, Asked, RealtimeApp]]:
    """Serve an application that is asked about everything, and denies what is, or who is, called `no`."""
    app = RealtimeApp(settings)
    asked: Asked = []

    async def connect(visitor: object, identity: Identity) -> bool:
        asked.append(("connect", identity.user_id))
        return identity.user_id != no

    async def subscribe(identity: Identity, channel: str) -> bool:
        asked.append(("subscribe", identity.user_id, channel))
        return channel != no

    async def publish(identity: Identity, channel: str, message: dict[str, object]) -> bool:
        asked.append(("publish", identity.user_id, channel))
        return channel != no

    app.hooks.connect, app.hooks.subscribe, app.hooks.publish = connect, subscribe, publish
    transport = httpx2.ASGITransport(app, client=("127.0.0.1", 1))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost/realtime") as client:
        yield client, asked, app


@pytest.mark.parametrize("what", ["history", "presence"])
async def test_the_hook_is_asked_before_somebody_is_told_of_a_channel(what: str) -> None:
    async with asking(KEYS) as (client, asked, app):
        for channel, status in (("allowed", 200), ("denied", 403)):
            app.driver.publish(channel, {"type": "note"})
            response = await client.get(f"/channels/{channel}/{what}", headers=bearer("ann"))
            assert response.status_code == status
        assert code_of(response) == (403, "subscribe_denied")
        assert asked == [
            *(("connect", "ann"), ("subscribe", "ann", "allowed")),
            *(("connect", "ann"), ("subscribe", "ann", "denied")),
        ]
        # Not about what is refused anyway.
        asked.clear()
        nothing: dict[str, object] = {"history": [], "presence": []}
        response = await client.get(f"/channels/allowed/{what}", headers=bearer("ann", **nothing))
        assert code_of(response) == (403, f"{what}_denied")
        response = await client.get(f"/channels/{'x' * 300}/{what}", headers=bearer("ann"))
        assert code_of(response) == (422, "invalid_channel")
        assert [each[0] for each in asked] == ["connect", "connect"]


async def test_channels_that_the_hook_denies_are_not_listed() -> None:
    async with asking(KEYS) as (client, asked, app):
        outlet = Deaf()
        admission = Admission("zoe", ("allowed", "denied", "other"))
        app.driver.attach(outlet, "1", admission, transport=Transport.WEBSOCKET)

        async def listed(headers: dict[str, str]) -> list[str]:
            response = await client.get("/channels", headers=headers)
            return [each["channel"] for each in response.json()["channels"]]

        assert await listed(bearer("ann", channels=["allowed", "denied"])) == ["allowed"]
        assert asked[1:] == [("subscribe", "ann", "allowed"), ("subscribe", "ann", "denied")]
        asked.clear()
        assert await listed(PROGRAM) == ["allowed", "denied", "other"]
        assert asked == []
        app.hooks.subscribe = None
        assert await listed(bearer("ann")) == ["allowed", "denied", "other"]


async def test_the_hook_is_asked_whether_a_user_may_come() -> None:
    async with asking(KEYS) as (client, asked, _):
        for path in ("/channels", "/connections", "/channels/x/history"):
            for headers in (bearer("denied"), PUPPET):
                assert code_of(await client.get(path, headers=headers)) == (403, "connect_denied")
        response = await client.post("/send", json={"channel": "allowed"}, headers=bearer("denied"))
        assert code_of(response) == (403, "connect_denied")
        assert asked == [("connect", "denied")] * 7
        asked.clear()
        assert (await client.get("/channels")).status_code == 200
        assert (await client.get("/health", headers=bearer("denied"))).status_code == 200
        assert (await client.get("/stats", headers=PROGRAM)).status_code == 200
        assert asked == []
    async with asking(Settings()) as (client, asked, _):
        assert (await client.get("/stats", headers=bearer("denied"))).status_code == 200
        assert asked == []


async def test_the_hook_is_not_asked_about_what_is_refused_or_repeated() -> None:
    async with asking(KEYS) as (client, asked, _):
        for channel, status in (("a", 200), ("a", 200), ("b", 403)):
            body = {"channel": channel, "data": 1, "id": f"the {channel}"}
            response = await client.post("/send", json=body, headers=bearer("ann", publish=["a"]))
            assert response.status_code == status
        assert [each for each in asked if each[0] == "publish"] == [("publish", "ann", "a")]


WRITES: list[tuple[str, dict[str, object]]] = [
    ("/send", {"channel": "a"}),
    ("/send", {"user_id": "bob"}),
    ("/send", {"connection_id": "1"}),
    ("/broadcast", {"data": 1}),
    ("/notifications/send", {"user_id": "bob", "title": "t", "content": "c"}),
    ("/webrtc/signal", {"room_id": "r", "peer_id": "p", "signal_type": "bye", "target_peer_id": "q"}),
]


@pytest.mark.parametrize(("path", "body"), WRITES)
async def test_a_user_says_no_more_over_http_than_by_connections(path: str, body: dict[str, object]) -> None:
    settings = attrs.evolve(KEYS, realtime=RealtimeSettings(user_rate_limit=0.01))
    async with asking(settings) as (client, _, app):
        app.driver.attach(Deaf(), "1", Admission("ann", ("a",)), transport=Transport.WEBSOCKET)
        operator = bearer("ann", roles=["admin"])
        first, second = [await client.post(path, json=body, headers=operator) for _ in range(2)]
        assert first.status_code == (404 if "signal" in path else 200), first.text
        assert code_of(second) == (429, "rate_limited")
        assert 90 <= int(second.headers["retry-after"]) <= 100
        response = await client.post("/send", json={"channel": "a"}, headers=bearer("bob"))
        assert response.status_code == 200
        app.driver.attach(Deaf(), "2", Admission("eve", ()), transport=Transport.WEBSOCKET)
        app.driver.receive_text("2", '{"type": "command", "command": "ping"}')
        response = await client.post("/send", json={"channel": "a"}, headers=bearer("eve"))
        assert code_of(response) == (429, "rate_limited")
        for _ in range(5):
            assert (await client.post("/send", json={"channel": "a"}, headers=PROGRAM)).status_code == 200
        app.driver.publish("a", {"type": "note"})


class Tickets:
    """Knows tickets by the user's name, and no keys."""

    async def authenticate(self, credentials: Credentials) -> Identity | Refusal:
        return await self.verify(credentials.token or "")

    async def verify(self, token: str) -> Identity | Refusal:
        name, _, ticket = token.partition("-")
        if ticket != "ticket":
            return Refusal("invalid_token", "there is no such ticket", status=401)
        # Of what kind a ticket is, it need not say.
        return Identity(name, Grant(credential=Credential.TOKEN, token_id=token) if name == "ann" else Grant())


async def test_an_authenticator_of_ones_own() -> None:
    required = Settings(websocket=WebSocketSettings(auth_required=True))
    app = RealtimeApp(required, authenticator=Tickets())
    assert isinstance(app.driver.authenticator, Tickets)
    transport = httpx2.ASGITransport(app, client=("127.0.0.1", 1))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost/realtime") as client:
        for headers, expected in (
            ({}, (401, "unauthorized")),
            ({"Authorization": "Bearer eve"}, (401, "invalid_token")),
            ({"Authorization": "Bearer ann-ticket"}, (200, "")),
        ):
            response = await client.post("/send", json={"channel": "a"}, headers=headers)
            assert code_of(response) == expected
        for headers, expected in (
            ({"Authorization": "Bearer bob-ticket"}, (403, "admin_required")),
            ({"Authorization": "Bearer ann-ticket"}, (403, "admin_required")),
        ):
            assert code_of(await client.get("/stats", headers=headers)) == expected
    page = app.driver.history({"channel": "a"})
    assert isinstance(page, dict)
    assert '"user_id":"ann"' in encode(page).text


async def test_an_authenticator_of_ones_own_and_the_settings_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WEBSOCKET_AUTH_REQUIRED", "true")
    app = RealtimeApp(authenticator=Tickets())
    assert app.connection_manager is not connection_manager
    assert app.config.gate.websocket_auth_required
    assert isinstance(app.driver.authenticator, Tickets)
    # Instead of what the settings would make.
    assert isinstance(ConnectionManager(KEYS, authenticator=Tickets()).driver.authenticator, Tickets)
    assert isinstance(ConnectionManager(KEYS).driver.authenticator, WSAuthenticator)


async def test_nobody_requires_what_nobody_knows() -> None:
    with pytest.raises(LocalProtocolError, match="no authenticator"):
        RealtimeApp(Settings(websocket=WebSocketSettings(auth_required=True)))
