"""Who is let in, what the application says to it, and how long anybody waits."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import anyio
import anyio.lowlevel
import attrs
import pytest

from rtcore import (
    Action,
    CommandError,
    Credential,
    Grant,
    Identity,
    LocalProtocolError,
    Message,
    Refusal,
    Scope,
    Transport,
)
from rtcore.permissions import EVERYTHING, OPEN
from rtcore_transports import Admission, Credentials, GateConfig, Gatekeeper, Hooks, Pending, Visitor

from .servers import TIMEOUT

pytestmark = pytest.mark.anyio

ANN: Final = Identity("ann", Grant(subscribe=Scope(("a*",), exclusive=True), credential=Credential.TOKEN))
BAD: Final = Refusal("invalid_token", "that is none", status=401)
WANTED: Final = Admission(None, ("a1", "a2"), session="secret")
REQUIRED: Final = GateConfig(websocket_auth_required=True, sse_auth_required=True)


class Known:
    """Knows the token ``good`` and the key ``k3y``, fails at ``bug`` and never answers to ``slow``."""

    async def authenticate(self, credentials: Credentials) -> Identity | Refusal:
        if credentials.api_key is not None:
            return Identity(None, EVERYTHING) if credentials.api_key == "k3y" else BAD
        assert credentials.token is not None
        return await self.verify(credentials.token)

    async def verify(self, token: str) -> Identity | Refusal:
        await anyio.lowlevel.checkpoint()
        if token == "bug":
            raise ValueError(f"cannot read {token}")
        if token == "slow":
            await anyio.sleep_forever()
        return ANN if token == "good" else BAD


def gate(config: GateConfig | None = None, hooks: Hooks | None = None) -> Gatekeeper:
    return Gatekeeper(config, Known(), hooks)


def visitor(token: str | None = None, *, local: bool = False, **rest: object) -> Visitor:
    peer = "127.0.0.1" if local else "2001:db8::1"
    made = Gatekeeper().visitor(((b"host", b"localhost"),), b"", peer, "http")
    assert made.local is local
    return attrs.evolve(made, **{"credentials": Credentials(token)} | rest)


# On a server that knows no credentials


@pytest.mark.parametrize("transport", Transport)
async def test_nobody_is_asked_where_nobody_knows(transport: Transport) -> None:
    keeper = Gatekeeper()
    nothing = attrs.evolve(WANTED, grant=Grant(), address="2001:db8::/64")
    assert await keeper.admit(visitor(), WANTED, transport) == nothing
    assert await keeper.admit(visitor("whatever"), WANTED, transport) == nothing
    local = attrs.evolve(WANTED, grant=OPEN, address="127.0.0.1")
    assert await keeper.admit(visitor(local=True), WANTED, transport) == local
    assert await keeper.identify(visitor("whatever")) == Identity(None, Grant())
    assert await keeper.identify(visitor(local=True)) == Identity(None, EVERYTHING)
    assert await keeper.identify(visitor(credentials=BAD, local=True)) == BAD
    for refusal in (await keeper.authenticate(Credentials("good")), await keeper.verify("good")):
        assert isinstance(refusal, Refusal)
        assert refusal.code == "unauthorized"


async def test_whom_the_query_names() -> None:
    named = attrs.evolve(WANTED, user_id="zoe")
    admitted = await Gatekeeper().admit(visitor(), named, Transport.SSE)
    assert isinstance(admitted, Admission)
    assert admitted.user_id == "zoe"
    admitted = await gate().admit(visitor(), named, Transport.SSE)
    assert isinstance(admitted, Admission)
    assert (admitted.user_id, admitted.grant) == ("zoe", Grant())
    admitted = await gate().admit(visitor("good"), named, Transport.SSE)
    assert isinstance(admitted, Admission)
    assert admitted.user_id == "ann"


@pytest.mark.parametrize("config", [GateConfig(websocket_auth_required=True), GateConfig(sse_auth_required=True)])
def test_what_is_required_must_be_known(config: GateConfig) -> None:
    with pytest.raises(LocalProtocolError, match="no authenticator"):
        Gatekeeper(config)


# On one that does


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.parametrize("config", [GateConfig(), REQUIRED])
async def test_who_comes_with_a_credential(config: GateConfig, transport: Transport) -> None:
    keeper = gate(config)
    admitted = attrs.evolve(WANTED, user_id="ann", grant=ANN.grant, address="2001:db8::/64")
    assert await keeper.admit(visitor("good"), WANTED, transport) == admitted
    assert await keeper.identify(visitor("good")) == ANN
    for bad in (visitor("bad"), visitor("bad", local=True), visitor(credentials=BAD)):
        assert await keeper.admit(bad, WANTED, transport) == BAD
        assert await keeper.identify(bad) == BAD


async def test_who_comes_without() -> None:
    nobody = attrs.evolve(WANTED, grant=Grant(), address="127.0.0.1")
    for transport in Transport:
        # Where there are keys, it does not matter who is near.
        assert await gate().admit(visitor(local=True), WANTED, transport) == nobody
    assert await gate().identify(visitor(local=True)) == Identity(None, Grant())
    stranger = visitor(local=True)
    assert await gate(REQUIRED).admit(stranger, WANTED, Transport.WEBSOCKET) == Pending(stranger, WANTED)
    for config in (REQUIRED, GateConfig(websocket_auth_required=True), GateConfig(sse_auth_required=True)):
        refusal = await gate(config).identify(stranger)
        assert isinstance(refusal, Refusal)
        assert (refusal.code, refusal.status) == ("unauthorized", 401)
    assert await gate(REQUIRED).admit(stranger, WANTED, Transport.SSE) == refusal
    assert await gate(GateConfig(sse_auth_required=True)).admit(stranger, WANTED, Transport.WEBSOCKET) == nobody
    assert await gate(GateConfig(websocket_auth_required=True)).admit(stranger, WANTED, Transport.SSE) == nobody


async def test_a_credential_that_no_longer_holds() -> None:
    revoked = Refusal("token_revoked", "gone", status=401)
    asked: list[Identity] = []

    async def connect(visitor: Visitor, identity: Identity) -> bool:
        raise AssertionError("it is not asked about whoever may not come")

    def refuses(identity: Identity) -> Refusal | None:
        asked.append(identity)
        return revoked

    keeper = Gatekeeper(None, Known(), Hooks(connect=connect), refuses=refuses)
    assert await keeper.admit(visitor("good"), WANTED, Transport.SSE) == revoked
    assert await keeper.identify(visitor("good")) == revoked
    assert await keeper.verify("good") == revoked
    assert asked == [ANN] * 3


async def test_an_authenticator_that_fails(faults: list[logging.LogRecord]) -> None:
    with anyio.fail_after(TIMEOUT):
        for token, timeout in (("bug", TIMEOUT), ("slow", 0.01)):
            keeper = gate(GateConfig(authentication_timeout=timeout))
            refusal = await keeper.verify(token)
            assert isinstance(refusal, Refusal)
            assert (refusal.code, refusal.status, refusal.retry_after) == ("authentication_unavailable", 503, 5)
            assert await keeper.admit(visitor(token), WANTED, Transport.SSE) == refusal
            assert await keeper.identify(visitor(token)) == refusal
    # Without the text of the error, in which there may be the token.
    assert [(record.getMessage(), record.exc_info) for record in faults] == [
        *[("a credential could not be verified: ValueError", None)] * 3,
        *[("a credential could not be verified in 0.01 s", None)] * 3,
    ]
    faults.clear()


# The first message


def first(text: str | None) -> Callable[[], Awaitable[str | None]]:
    async def receive() -> str | None:
        await anyio.lowlevel.checkpoint()
        return text

    return receive


def authenticate(token: str, id: str = "") -> str:
    return f'{{"type": "command", "command": "authenticate", "data": {{"token": "{token}"}}, "id": "{id}"}}'


async def pend(keeper: Gatekeeper, who: Visitor | None = None) -> Pending:
    pending = await keeper.admit(who or visitor(), WANTED, Transport.WEBSOCKET)
    assert isinstance(pending, Pending)
    return pending


async def test_somebody_who_says_it_first() -> None:
    keeper = gate(REQUIRED)
    admitted = attrs.evolve(WANTED, user_id="ann", grant=ANN.grant, address="2001:db8::/64", answers="7")
    assert await keeper.introduce(await pend(keeper), first(authenticate("good", "7"))) == admitted
    assert await keeper.introduce(await pend(keeper), first(authenticate("bad"))) == BAD
    refusal = await keeper.introduce(await pend(keeper), first('{"type": "text"}'))
    assert isinstance(refusal, Refusal)
    assert refusal.code == "unauthorized"
    assert await keeper.introduce(await pend(keeper), first(None)) is None


async def test_somebody_who_says_nothing() -> None:
    keeper = gate(attrs.evolve(REQUIRED, authentication_timeout=0.01))
    with anyio.fail_after(TIMEOUT):
        refusal = await keeper.introduce(await pend(keeper), anyio.sleep_forever)  # type: ignore[arg-type]
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.status) == ("authentication_timeout", 401)


async def test_so_many_may_wait_and_no_more() -> None:
    keeper = gate(attrs.evolve(REQUIRED, max_pending=2))
    said = anyio.Event()
    outcomes: list[Admission | Refusal | None] = []

    async def receive() -> str:
        await said.wait()
        return authenticate("good")

    async def come() -> None:
        outcomes.append(await keeper.introduce(await pend(keeper), receive))

    with anyio.fail_after(TIMEOUT):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(come)
            while not outcomes:
                await anyio.lowlevel.checkpoint()
            said.set()
    refusal = outcomes.pop(0)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.status, refusal.retry_after) == ("too_many_pending", 503, 5)
    assert [isinstance(outcome, Admission) for outcome in outcomes] == [True, True]
    assert isinstance(await keeper.introduce(await pend(keeper), first(authenticate("good"))), Admission)


async def test_those_who_wait_while_the_server_stops() -> None:
    keeper = gate(REQUIRED)
    outcomes: list[Admission | Refusal | None] = []
    waiting = anyio.Event()

    async def receive() -> str:
        waiting.set()
        await anyio.sleep_forever()
        raise AssertionError

    async def come() -> None:
        outcomes.append(await keeper.introduce(await pend(keeper), receive))

    with anyio.fail_after(TIMEOUT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(come)
            await waiting.wait()
            keeper.drain()
        await come()
    assert [(each.code, each.status) for each in outcomes if isinstance(each, Refusal)] == [("draining", 503)] * 2


# Hooks


def answering(answer: object) -> Callable[..., Awaitable[bool]]:
    async def hook(*_: object) -> bool:
        await anyio.lowlevel.checkpoint()
        if isinstance(answer, Exception):
            raise answer
        if answer == "hang":
            await anyio.sleep_forever()
        return answer  # type: ignore[return-value]

    return hook


def no_hook(*_: object) -> bool:
    return True


DENIALS: Final = (False, None, 1, "yes", [True], ValueError("a fault of the application"), "hang")


@pytest.mark.parametrize("answer", DENIALS, ids=repr)
async def test_a_hook_that_does_not_allow_denies(answer: object, faults: list[logging.LogRecord]) -> None:
    hook = answering(answer)
    keeper = gate(GateConfig(hook_timeout=0.01 if answer == "hang" else TIMEOUT), Hooks(hook, hook, hook))
    with anyio.fail_after(TIMEOUT):
        refusals = [
            await keeper.admit(visitor("good"), WANTED, Transport.SSE),
            await keeper.consult(Action.SUBSCRIBE, ANN, "a1"),
            await keeper.consult(Action.PUBLISH, ANN, "a1", {"type": "text"}),
        ]
    assert [(each.code, each.status) for each in refusals if isinstance(each, Refusal)] == [
        ("connect_denied", 403),
        ("subscribe_denied", 403),
        ("publish_denied", 403),
    ]
    assert len(faults) == (3 if answer == "hang" or isinstance(answer, Exception) else 0)
    faults.clear()


async def test_what_is_no_coroutine_denies(faults: list[logging.LogRecord]) -> None:
    keeper = gate(hooks=Hooks(subscribe=no_hook))  # type: ignore[arg-type]
    assert await keeper.consult(Action.SUBSCRIBE, ANN, "a1") is not None
    assert [record.getMessage() for record in faults] == ["the hook 'subscribe' failed, which denies"]
    faults.clear()


async def test_a_hook_that_says_why() -> None:
    hook = answering(CommandError("not_paid", "pay first", retry_after=1.5))
    keeper = gate(hooks=Hooks(hook, hook, hook))
    refusal = Refusal("not_paid", "pay first", status=403, retry_after=2)
    assert await keeper.admit(visitor("good"), WANTED, Transport.SSE) == refusal
    assert await keeper.consult(Action.SUBSCRIBE, ANN, "a1") == refusal
    assert await keeper.consult(Action.PUBLISH, ANN, "a1", {"type": "text"}) == refusal


async def test_what_hooks_are_told() -> None:
    told: list[object] = []

    async def connect(visitor: Visitor, identity: Identity) -> bool:
        told.append((visitor, identity))
        return True

    async def subscribe(identity: Identity, channel: str) -> bool:
        told.append((identity, channel))
        return channel != "a2"

    async def publish(identity: Identity, channel: str, message: Message) -> bool:
        told.append((identity, channel, message))
        return True

    keeper = gate(hooks=Hooks(connect, subscribe, publish))
    somebody = visitor("good")
    admitted = await keeper.admit(somebody, WANTED, Transport.SSE)
    assert isinstance(admitted, Admission)
    assert admitted.channels == ("a1",)
    assert [refusal.code for refusal in admitted.denied] == ["subscribe_denied"]
    assert await keeper.consult(Action.PUBLISH, ANN, "a1", {"type": "text"}) is None
    assert told[0] == (somebody, ANN)
    assert sorted(told[1:3], key=repr) == [(ANN, "a1"), (ANN, "a2")]
    assert told[3:] == [(ANN, "a1", {"type": "text"})]


async def test_hooks_that_are_not_there() -> None:
    hooks = Hooks()
    keeper = gate(hooks=hooks)
    for action in Action:
        assert action not in hooks
        assert await keeper.consult(action, ANN, "a1") is None
    hooks.subscribe = hooks.publish = answering(True)
    assert [action for action in Action if action in hooks] == [Action.SUBSCRIBE, Action.PUBLISH]


async def test_many_channels_are_asked_about_within_the_time_of_one() -> None:
    """Nobody waits longer for having asked for more, and what was answered by then counts."""
    asked = 0

    async def subscribe(identity: Identity, channel: str) -> bool:
        nonlocal asked
        asked += 1
        if channel.startswith("slow"):
            await anyio.sleep_forever()
        return True

    keeper = gate(GateConfig(hook_timeout=0.05), Hooks(subscribe=subscribe))
    channels = ("a", *(f"slow{number}" for number in range(40)), "z")
    with anyio.fail_after(TIMEOUT):
        admitted = await keeper.admit(visitor("good"), Admission(None, channels), Transport.SSE)
    assert isinstance(admitted, Admission)
    assert admitted.channels == ("a",)
    assert len(admitted.denied) == 41
    assert asked == 17  # no more than 16 at once, of which one had answered
