"""What holds on every host for those who are in: hooks, the end of tokens, and how many they may be."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import anyio
import attrs
import httpx2
import pytest

from rtcore import CommandError, Grant, Identity, Message
from rtcore_adapters import Settings
from rtcore_adapters.settings import RealtimeSettings
from rtcore_transports import Visitor

from .clients import error_code
from .hosting import HOSTS, Host, HostKind, run_host
from .visits import CLOSED, KEY, SECRET, WS, authenticate, bearer, revoke, token, turned_away


@pytest.fixture(scope="module", params=HOSTS, ids=str)
def kind(request: pytest.FixtureRequest) -> HostKind:
    """Return each kind of host in turn."""
    kind: HostKind = request.param
    return kind


@pytest.fixture(scope="module")
def closed_host(kind: HostKind) -> Iterator[Host]:
    """Run a host that requires a credential of everybody."""
    with run_host(kind, CLOSED) as running:
        yield running


@pytest.fixture
def host(closed_host: Host) -> Iterator[Host]:
    """Return a host that requires a credential of everybody, whose hooks are the test's own."""
    hooks = closed_host.realtime.hooks
    yield closed_host
    hooks.connect = hooks.subscribe = hooks.publish = None


@pytest.fixture
def impatient(host: Host) -> Iterator[Host]:
    """Return the host while it has little patience, and only with few."""
    keeper = host.realtime.driver.gatekeeper
    config = keeper.config
    keeper.config = attrs.evolve(config, authentication_timeout=0.3, hook_timeout=0.3)
    yield host
    keeper.config = config


# Hooks


def test_a_hook_that_denies_a_connection(impatient: Host, error_log: list[object]) -> None:
    host = impatient
    seen: list[tuple[str | None, str | None]] = []

    async def connect(visitor: Visitor, identity: Identity) -> bool | None:
        seen.append((visitor.address, identity.user_id))
        match identity.user_id:
            case "ann":
                return True
            case "bob":
                raise CommandError("not_paid", "pay first")
            case "bug":
                raise ValueError("a fault of the application")
            case "hang":
                await anyio.sleep_forever()
        return None

    host.realtime.hooks.connect = connect
    with host.client(f"token={token()}"), host.http.stream("GET", f"/events?token={token()}") as response:
        assert response.status_code == 200
    for user, code in (
        ("bob", "not_paid"),
        ("zoe", "connect_denied"),
        ("bug", "connect_denied"),
        ("hang", "connect_denied"),
    ):
        farewell, closed_with, reason = turned_away(host, f"token={token(user)}")
        assert (farewell["code"], farewell["reconnect"], closed_with, reason) == (4403, False, 4403, code)
        farewell, closed_with, reason = turned_away(host, say=authenticate(token(user)))
        assert (closed_with, reason) == (4403, code)
        response = host.http.get(f"/events?token={token(user)}")
        assert (response.status_code, error_code(response.content)) == (403, code)
    assert set(seen) == {("127.0.0.1", user) for user in ("ann", "bob", "zoe", "bug", "hang")}
    assert len(error_log) == 6
    error_log.clear()


def test_a_hook_that_denies_a_join(host: Host, error_log: list[object]) -> None:
    async def subscribe(identity: Identity, channel: str) -> bool:
        if channel == "bug":
            raise ValueError("a fault of the application")
        return channel.startswith(f"of-{identity.user_id}")

    host.realtime.hooks.subscribe = subscribe
    mine = token(channels=["*"])
    with host.client(f"token={mine}&channel=of-bob&channel=of-ann") as client:
        assert client.connected["channels"] == ["of-ann"]
        assert client.hear()["code"] == "subscribe_denied"
        client.join("of-ann-too")
        for channel in ("of-bob", "bug"):
            assert client.ask("join_channel", channel=channel)["code"] == "subscribe_denied"
        assert client.ask("presence", channel="of-ann")["data"]["count"] == 1
    with host.stream(f"token={mine}&channel=of-bob&channel=of-ann") as stream:
        assert stream.connected["channels"] == ["of-ann"]
        assert stream.hear_type("error")["code"] == "subscribe_denied"
    assert len(error_log) == 1
    error_log.clear()


def test_a_hook_that_denies_a_publication(host: Host) -> None:
    async def publish(identity: Identity, channel: str, message: Message) -> bool:
        return "spam" not in str(message.get("data"))

    host.realtime.hooks.publish = publish
    with host.client(f"token={token()}&channel=room") as client:
        for number, data in enumerate(("spam", "news")):
            client.say({"type": "note", "channel": "room", "data": data, "id": number})
        assert client.hear()["code"] == "publish_denied"
        assert client.hear_type("note")["data"] == "news"
        # Over HTTP it is asked too.
        for data, status in (("spam", 403), ("news", 200)):
            response = host.http.post("/send", json={"channel": "room", "data": data}, headers=bearer(token()))
            assert response.status_code == status
        assert client.hear_type("channel_message")["data"] == "news"


def test_a_connection_ends_while_a_hook_is_asked(host: Host) -> None:
    asked: list[anyio.Event] = []

    async def subscribe(identity: Identity, channel: str) -> bool:
        asked.append(anyio.Event())
        await asked[-1].wait()
        return True

    host.realtime.hooks.subscribe = subscribe
    join: Message = {"type": "command", "command": "join_channel", "data": {"channel": "slow"}, "id": "1"}
    with host.client(f"token={token('leaver')}") as client:
        client.say(join)
        host.wait_for(lambda: len(asked) == 1)
        client.websocket.socket.shutdown(socket.SHUT_RDWR)
    with host.client(f"token={token('revoked')}") as client:
        client.say(join)
        host.wait_for(lambda: len(asked) == 2)
        assert revoke(host, user_id="revoked") == 1
        assert client.closed() == (4401, "the token was revoked")
    for answer in asked:
        host.portal.call(answer.set)
    host.wait_for(lambda: len(host.realtime.driver.node) == 0)
    assert host.realtime.driver.node.channels() == []


# How long


def test_a_token_that_ends(host: Host) -> None:
    with host.client(f"token={token(expires_in=0.5)}") as client:
        farewell = client.hear_type("disconnect")
        assert (farewell["code"], farewell["reason"], farewell["reconnect"]) == (4401, "the token has expired", False)
        assert client.closed()[0] == 4401
    with host.stream(f"token={token(expires_in=0.5)}") as stream:
        assert stream.hear_type("disconnect")["code"] == 4401
        with pytest.raises(EOFError):
            stream.next_event()


def test_a_token_that_is_renewed(host: Host) -> None:
    brief = token(expires_in=1.0, channels=["a*", "b*"])
    with host.client(f"token={brief}&channel=a1&channel=b1") as client:
        for bad, code in (("garbage", "invalid_token"), (token("bob"), "user_mismatch")):
            assert client.ask("refresh_token", token=bad)["code"] == code
        client.say(
            {
                "type": "command",
                "command": "refresh_token",
                "data": {"token": token(expires_in=600, channels=["a*"])},
                "id": "r",
            }
        )
        unsubscribed = client.hear()
        assert (unsubscribed["type"], unsubscribed["channel"]) == ("unsubscribed", "b1")
        answer = client.hear()
        assert (answer["id"], answer["data"]["user_id"]) == ("r", "ann")
        assert answer["data"]["expires_in"] > 500
        # Two at once are two in turn.
        for number, channels in enumerate((["a*", "b*"], ["a*"])):
            data = {"token": token(channels=channels)}
            client.say({"type": "command", "command": "refresh_token", "data": data, "id": number})
        assert [client.hear()["id"] for _ in range(2)] == [0, 1]
        assert client.ask("join_channel", channel="b1")["code"] == "subscribe_denied"
        # The first would have ended by now.
        with host.client(f"token={token(expires_in=1.0)}") as other:
            other.hear_type("disconnect")
        assert client.ask("ping")["ok"] is True


def test_a_token_that_is_revoked(host: Host) -> None:
    mine, other = token("eve", jti="one"), token("eve", jti="two")
    with (
        host.client(f"token={mine}") as client,
        host.stream(f"token={mine}") as stream,
        host.client(f"token={other}") as rest,
    ):
        assert revoke(host, token_id="one") == 2
        farewell = client.hear_type("disconnect")
        assert (farewell["code"], farewell["reconnect"]) == (4401, False)
        assert client.closed() == (4401, "the token was revoked")
        assert stream.hear_type("disconnect")["code"] == 4401
        assert rest.ask("ping")["ok"] is True
        assert rest.ask("refresh_token", token=mine)["code"] == "token_revoked"
    assert turned_away(host, f"token={mine}")[1:] == (4401, "token_revoked")
    assert turned_away(host, say=authenticate(mine))[1:] == (4401, "token_revoked")
    response = host.http.get(f"/events?token={mine}")
    assert (response.status_code, error_code(response.content)) == (401, "token_revoked")


def test_rights_that_are_taken_away(host: Host) -> None:
    driver = host.realtime.driver
    with host.client(f"token={token('ida', channels=['a*'])}&channel=a1") as client:
        host.portal.call(driver.regrant_user, "ida", Grant())
        assert client.ask("join_channel", channel="b1")["ok"] is True
        assert host.portal.call(driver.regrant, client.connection_id, Grant(admin=True)) is None
        assert client.ask("get_connection_stats")["ok"] is True
    refusal = host.portal.call(driver.regrant, "nobody", Grant())
    assert refusal is not None
    assert refusal.code == "not_found"


# How many


@pytest.mark.parametrize("kind", HOSTS, ids=str)
def test_so_many_of_a_user_and_no_more(kind: HostKind) -> None:
    settings = Settings(realtime=RealtimeSettings(max_connections_per_user=2), ws=WS)
    with run_host(kind, settings) as host:
        with host.client(f"token={token()}"), host.stream(f"token={token()}"):
            farewell, closed_with, reason = turned_away(host, f"token={token()}")
            assert (closed_with, reason) == (4429, "too_many_connections")
            assert (farewell["reconnect"], farewell["retry_after"]) == (True, 5.0)
            response = host.http.get(f"/events?token={token()}")
            assert (response.status_code, error_code(response.content)) == (429, "too_many_connections")
            assert response.headers["retry-after"] == "5"
            with host.client(f"token={token('bob')}"), host.client(), host.client(), host.client():
                pass
        host.wait_for(lambda: len(host.realtime.driver.node) == 0)
        with host.client(f"token={token()}"):
            pass


@pytest.mark.parametrize("kind", HOSTS, ids=str)
def test_so_many_from_an_address_and_no_more(kind: HostKind) -> None:
    realtime = RealtimeSettings(max_connections_per_address=1, trusted_proxies=("127.0.0.0/8", "10.0.0.0/8"))
    with run_host(kind, Settings(realtime=realtime, ws=WS)) as host:

        def through(*addresses: str) -> dict[str, str]:
            return {"X-Forwarded-For": ", ".join(addresses)}

        with (
            host.client(additional_headers=through("198.51.100.7", "10.0.0.1")),
            host.client(additional_headers=through("2001:db8::1", "10.0.0.1")),
        ):
            for same in (
                ("198.51.100.7", "10.0.0.1"),
                ("203.0.113.9", "198.51.100.7", "10.0.0.1"),
                ("198.51.100.7", "10.0.0.1", "10.0.0.2"),
                ("2001:db8::ffff", "10.0.0.1"),
            ):
                headers = through(*same)
                farewell, closed_with, reason = turned_away(host, additional_headers=headers)
                assert (closed_with, reason, farewell["retry_after"]) == (4429, "too_many_connections", 5.0)
                response = host.http.get("/events", headers=headers)
                assert (response.status_code, response.headers["retry-after"]) == (429, "5")
            with host.client(additional_headers=through("198.51.100.8", "10.0.0.1")), host.client():
                pass
        host.wait_for(lambda: len(host.realtime.driver.node) == 0)
        with host.client(additional_headers=through("198.51.100.7", "10.0.0.1")):
            pass


# Who listens


def test_nothing_of_it_is_logged(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "rtcore")
    good, bad = token(), token()[:-4] + "AAAA"
    with host.client(f"token={good}"), host.stream(f"api_key={KEY}"):
        turned_away(host, f"token={bad}")
        turned_away(host, say=authenticate(bad))
        assert isinstance(host.http.get(f"/events?token={bad}"), httpx2.Response)
    for secret in (good, bad, KEY, SECRET):
        assert secret not in caplog.text
