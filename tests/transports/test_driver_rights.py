"""The driver: who may do what, and what becomes of those who may no longer."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest
from anyio.abc import TaskGroup

from rtcore import Credential, Grant, Identity, LocalProtocolError, Message, NodeConfig, Refusal, Scope, Transport
from rtcore.permissions import EVERYTHING, OPEN
from rtcore.permissions.revocations import Revocation
from rtcore.router import Published, Request
from rtcore.signaling import CreateRoom
from rtcore_transports import Admission, Credentials, Driver, EndpointConfig, GateConfig, serve

from .outlets import Outlet, attach

pytestmark = pytest.mark.anyio


@pytest.fixture
async def driver(tasks: TaskGroup) -> Driver:
    made = Driver(NodeConfig(websocket_heartbeat=None))
    tasks.start_soon(made.run)
    return made


def allowed(*channels: str, **rest: Any) -> Grant:
    scope = Scope(channels, exclusive=True)
    return Grant(subscribe=scope, publish=scope, history=scope, presence=scope, **rest)


class Known:
    """Knows tokens by the user's name, and fails at ``bug``."""

    async def authenticate(self, credentials: Credentials) -> Identity | Refusal:
        raise AssertionError("nobody comes in here")

    async def verify(self, token: str) -> Identity | Refusal:
        await anyio.lowlevel.checkpoint()
        if token == "bug":
            raise ValueError(token)
        return Identity(token, allowed("b*", credential=Credential.TOKEN, token_id=token))


@pytest.fixture
async def knowing(tasks: TaskGroup) -> Driver:
    made = Driver(NodeConfig(websocket_heartbeat=None), authenticator=Known())
    tasks.start_soon(made.run)
    return made


def enter(driver: Driver, connection_id: str, grant: Grant, *channels: str, **rest: Any) -> Outlet:
    outlet = Outlet()
    driver.attach(outlet, connection_id, Admission("ann", channels, grant=grant, **rest), transport=Transport.WEBSOCKET)
    return outlet


def codes(*outcomes: object) -> list[str | None]:
    return [outcome.code if isinstance(outcome, Refusal) else None for outcome in outcomes]


async def test_publishing_for_somebody(driver: Driver) -> None:
    outlet = attach(driver, "1", None, "a", "b")
    ann = Identity("ann", allowed("a"))
    note = {"type": "note", "id": "7"}
    first = driver.publish("a", note, by=ann)
    assert isinstance(first, Published)
    again = driver.publish("a", note, by=ann)
    assert isinstance(again, Published)
    assert (again.offset, again.repeated) == (first.offset, True)
    assert '"user_id":"ann"' in await outlet.hears('"note"')
    other: Message = {"type": "note"}
    assert codes(driver.publish("b", other, by=ann), driver.publish("b", other)) == ["publish_denied", None]
    # Of two programs without a user each is known by its key.
    keys = [Identity(None, allowed("a", credential=Credential.KEY, token_id=name)) for name in ("one", "two", "one")]
    offsets = [
        published.offset for key in keys if isinstance(published := driver.publish("a", note, by=key), Published)
    ]
    assert offsets == [2, 3, 2]


async def test_nobody_learns_of_a_connection_that_they_may_not_speak_to(driver: Driver) -> None:
    attach(driver, "1")
    stranger, operator = Identity("ann", Grant()), Identity(None, EVERYTHING)
    for connection_id, code in (("1", None), ("2", "not_found")):
        note = {"type": "note"}
        assert codes(
            driver.publish_to_connection(connection_id, note, by=stranger),
            driver.publish_to_connection(connection_id, note, by=operator),
            driver.publish_to_connection(connection_id, note),
        ) == ["publish_denied", code, code]
        channel = f"$connection:{connection_id}"
        by_hook = [await driver.publish_by(each, channel, note) for each in (stranger, operator)]
        assert codes(*by_hook) == ["publish_denied", code]


async def test_looking_for_somebody(driver: Driver) -> None:
    driver.publish("a", {"type": "note"})
    ann = Identity("ann", allowed("b"))
    assert codes(driver.history({"channel": "a"}, asker=ann), driver.history({"channel": "b"}, asker=ann)) == [
        "history_denied",
        None,
    ]
    zoe = Identity("zoe", Grant(signal=Scope(("b",), exclusive=True)))
    room = CreateRoom(Request(None), "a")
    assert codes(driver.create_room(room, asker=zoe), driver.create_room(room)) == ["signal_denied", None]
    assert codes(driver.remove_peer("a", "nobody")) == ["unknown_peer"]


async def test_the_hook_is_asked_about_what_is_published_for_somebody(driver: Driver) -> None:
    async def publish(identity: Identity, channel: str, message: Message) -> bool:
        return channel == "a"

    driver.hooks.publish = publish
    ann = Identity("ann", Grant())
    outcomes = [await driver.publish_by(ann, channel, {"type": "note"}) for channel in ("a", "b")]
    assert codes(*outcomes, driver.publish("b", {"type": "note"})) == [None, "publish_denied", None]


async def test_the_hook_is_asked_about_what_is_new_and_allowed(driver: Driver) -> None:
    asked: list[tuple[Identity, str, Message]] = []

    async def publish(identity: Identity, channel: str, message: Message) -> bool:
        asked.append((identity, channel, message))
        await anyio.lowlevel.checkpoint()
        return True

    driver.hooks.publish = publish
    ann, note = Identity("ann", allowed("a")), {"type": "note", "id": "7"}
    first, again, forbidden, nobody = [
        await driver.publish_by(ann, channel, note if channel == "a" else {"type": "note"})
        for channel in ("a", "a", "b", "$connection:9")
    ]
    assert isinstance(first, Published)
    assert isinstance(again, Published)
    assert (again.offset, again.repeated) == (first.offset, True)
    assert codes(forbidden, nobody) == ["publish_denied", "publish_denied"]
    assert asked == [(ann, "a", note)]


async def test_a_place_for_whoever_is_let_in(driver: Driver) -> None:
    expired = allowed("a", credential=Credential.TOKEN, expires_at=1.0)
    assert driver.admit(Admission("ann", ()), Transport.SSE) is None
    assert codes(driver.admit(Admission("ann", (), grant=expired), Transport.SSE)) == ["token_expired"]
    # Too late by the time it comes: it is told, and is not there.
    outlet = enter(driver, "1", expired, answers="7", denied=(Refusal("subscribe_denied", "no"),))
    assert outlet.closed == (4401, "the token has expired: get another one")
    assert len(driver.node) == len(driver.fanout.outlets) == 0


async def test_what_is_told_to_whoever_comes(driver: Driver) -> None:
    outlet = enter(driver, "1", Grant(), answers="7", denied=(Refusal("subscribe_denied", "no"),))
    assert await outlet.hears('"id":"7"') == '{"type":"response","id":"7","ok":true,"data":{"user_id":"ann"}}'
    assert await outlet.hears("error") == '{"type":"error","code":"subscribe_denied","message":"no"}'


async def test_a_token_that_is_renewed(knowing: Driver, faults: list[logging.LogRecord]) -> None:
    outlet = enter(knowing, "1", allowed("a*", "b*"), "a1", "b1")

    async def renew(token: str) -> str:
        said = {"type": "command", "command": "refresh_token", "data": {"token": token}, "id": token}
        (verify,) = knowing.receive_text("1", msgspec.json.encode(said).decode())
        assert token not in repr(verify).replace(f"id='{token}'", "")
        await knowing.handle(verify)
        return await outlet.hears(f'"id":"{token}"')

    assert "user_mismatch" in await renew("bob")
    assert "authentication_unavailable" in await renew("bug")
    assert [record.getMessage() for record in faults] == ["a credential could not be verified: ValueError"]
    faults.clear()
    assert "unsubscribed" not in "".join(outlet.heard)
    assert '"ok":true' in await renew("ann")
    assert '"channel":"a1"' in await outlet.hears('"unsubscribed"')
    # Whoever has gone meanwhile is told nothing.
    (verify,) = knowing.receive_text("1", '{"type":"command","command":"refresh_token","data":{"token":"ann"}}')
    knowing.detach("1", outlet)
    await knowing.handle(verify)


async def test_what_a_hook_is_asked_about(driver: Driver) -> None:
    asked: list[tuple[Identity, str]] = []

    async def subscribe(identity: Identity, channel: str) -> bool:
        asked.append((identity, channel))
        return channel != "b"

    driver.hooks.subscribe = subscribe
    outlet = attach(driver, "1", "ann")
    join = '{{"type":"command","command":"join_channel","data":{{"channel":"{0}"}},"id":"{0}"}}'
    for channel in ("a", "b"):
        (consult,) = driver.receive_text("1", join.format(channel))
        await driver.handle(consult)
    assert '"ok":true' in await outlet.hears('"id":"a"')
    assert "subscribe_denied" in await outlet.hears('"id":"b"')
    assert asked == [(Identity("ann", OPEN), "a"), (Identity("ann", OPEN), "b")]
    # With the rights that it has by then.
    (consult,) = driver.receive_text("1", join.format("c"))
    assert driver.regrant("1", Grant()) is None
    await driver.handle(consult)
    assert asked.pop() == (Identity("ann", Grant()), "c")
    # Of whoever has gone nobody is asked anything.
    (consult,) = driver.receive_text("1", join.format("d"))
    driver.detach("1", outlet)
    await driver.handle(consult)
    assert len(asked) == 2


@pytest.mark.parametrize("name", ["history", "presence"])
async def test_the_hook_is_asked_before_a_connection_is_told_of_a_channel(driver: Driver, name: str) -> None:
    async def subscribe(identity: Identity, channel: str) -> bool:
        return channel == "a"

    driver.hooks.subscribe = subscribe
    outlet = attach(driver, "1", "ann")
    for channel in ("a", "b"):
        said = {"type": "command", "command": name, "data": {"channel": channel}, "id": channel}
        (consult,) = driver.receive_text("1", msgspec.json.encode(said).decode())
        await driver.handle(consult)
    assert '"ok":true' in await outlet.hears('"id":"a"')
    assert "subscribe_denied" in await outlet.hears('"id":"b"')


async def test_revoking(driver: Driver) -> None:
    one, two = (allowed("a", credential=Credential.TOKEN, token_id=name, issued_at=1.0) for name in ("one", "two"))
    first, second, rest = enter(driver, "1", one), enter(driver, "2", one), enter(driver, "3", two)
    assert driver.revoke({"token_id": "one"}) == 2
    assert first.closed == second.closed == (4401, "the token was revoked")
    assert rest.closed is None
    assert codes(driver.admit(Admission("ann", (), grant=one), Transport.SSE)) == ["token_revoked"]
    assert codes(driver.revoke({})) == ["invalid_revocation"]
    assert driver.revoke(Revocation(user_id="ann", until=4e9)) == 1
    assert rest.closed == (4401, "the token was revoked")


async def test_rights_that_change(driver: Driver) -> None:
    outlets = [enter(driver, str(number), allowed("a", "b"), "a", "b") for number in range(2)]
    assert driver.regrant("0", allowed("a")) is None
    assert '"channel":"b"' in await outlets[0].hears('"unsubscribed"')
    assert driver.regrant_user("ann", allowed("b")) is None
    assert '"channel":"a"' in await outlets[1].hears('"unsubscribed"')
    assert codes(driver.regrant("2", Grant()), driver.regrant_user("nobody", Grant())) == ["not_found", None]


async def test_a_server_and_its_driver_must_agree(anyio_backend: str) -> None:
    config = EndpointConfig(gate=GateConfig(allow_anonymous=True))
    with pytest.raises(LocalProtocolError, match="gate=config"):
        await serve(Driver(), port=0, config=config)
