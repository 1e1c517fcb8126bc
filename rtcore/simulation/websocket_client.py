"""A client on a WebSocket: the machine `rtcore.Client` over simulated connections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import assert_never
from urllib.parse import urlencode

import attrs
import msgspec

from rtcore.client import (
    Answered,
    Client,
    ClientConfig,
    ClientState,
    Command,
    Connected,
    Disconnect,
    Drop,
    Effect,
    Ended,
    Join,
    Leave,
    Lost,
    MessageReceived,
    Open,
    ProtocolFault,
    Publish,
    RefreshDue,
    Refused,
    Rejoined,
    RejoinRefused,
    Request,
    Send,
    SendBytes,
    SendText,
)
from rtcore.messages import Message
from rtcore.websocket import WebSocketConfig

from .authority import Wallet
from .client import SimulatedClient
from .invariants.ledger import number_of
from .network import Network
from .observer import Observer
from .sending import Sending, SimulatedUpload
from .server import SimulatedServer
from .websocket_link import WebSocketLink
from .world import World

__all__ = ["Call", "SimulatedWebSocketClient"]


@attrs.define(eq=False)
class Call:
    """Something that a user has asked for, and what came of it.

    Attributes:
        command: What.
        id: The id under which it was sent.
        outcome: What came of it, once something has.
    """

    command: Command
    id: str = ""
    outcome: Answered | Refused | None = None


class SimulatedWebSocketClient(SimulatedClient):
    """One `rtcore.Client`, over any number of connections.

    Args:
        world: Where it is.
        network: How it reaches servers.
        name: Differs from all others.
        user_id: Whom it says it is, or ``None`` for nobody.
        servers: Where it may connect.
        observer: Who is told what happens.
        given: The channels that its URL names, which the server joins by itself.
        base64: Whether it wants to get files as text.
        wallet: Its tokens; ``None`` for a client that says whom it is, and has nothing to show.
        config: Limits and times of the client.
        websocket: Those of its WebSockets.
        skew: What its clock shows at the beginning.

    Attributes:
        machine: The machine.
        sending: The files that it sends in chunks.
    """

    def __init__(
        self,
        world: World,
        network: Network,
        name: str,
        *,
        user_id: str | None,
        servers: Sequence[SimulatedServer],
        observer: Observer,
        given: Sequence[str] = (),
        base64: bool = False,
        wallet: Wallet | None = None,
        config: ClientConfig | None = None,
        websocket: WebSocketConfig | None = None,
        skew: float = 0.0,
    ) -> None:
        super().__init__(world, network, name, user_id=user_id, servers=servers, observer=observer, skew=skew)
        session = world.choices.entropy(8).hex()
        self.machine = Client(config or ClientConfig(), random=world.choices.random, session=session)
        self.websocket = websocket or WebSocketConfig()
        self._wallet = wallet
        self.sending = Sending(self)
        self.hears_text = base64
        self._given = dict.fromkeys(given)
        # Those of them to which the present server has not joined it, or from which it has taken it.
        self._denied: dict[str, None] = {}
        # Those of them that its user has left, and has not joined again since.
        self._left: dict[str, None] = {}
        # Those to which a server has joined it some time; ``None`` before the first connection.
        self._known: dict[str, None] | None = None
        self._filters: dict[str, object] = {}
        self._link: WebSocketLink | None = None
        # Those that were dropped and are not closed yet too.
        self._links: dict[WebSocketLink, None] = {}
        self._calls: dict[str, Call] = {}
        # Joins that a leave has followed: what they are answered is of no account, even if another join has followed.
        self._overtaken: dict[str, bool] = {}
        # The numbers of what was published twice at once, by id.
        self._clicks: dict[str, int | None] = {}
        self._resumes = False

    # What its user does

    @property
    def channels(self) -> tuple[str, ...]:
        """See `SimulatedClient`."""
        gone = self._left | self._denied
        given = () if self.ended else (channel for channel in self._given if channel not in gone)
        return tuple(dict.fromkeys((*given, *self.machine.channels)))

    def filters(self, channel: str) -> Mapping[str, object]:
        """See `SimulatedClient`."""
        filters = self._filters.get(channel)
        return filters if isinstance(filters, Mapping) else {}

    def is_given(self, channel: str) -> bool:
        """See `SimulatedClient`."""
        return channel in self._given

    def wants_to_join(self, channel: str) -> bool:
        """See `SimulatedClient`."""
        commands = (call.command for call in self._calls.values())
        return any(isinstance(command, Join) and command.channel == channel for command in commands)

    @property
    def ended(self) -> bool:
        """See `SimulatedClient`."""
        return self.machine.state is ClientState.CLOSED

    @property
    def busy(self) -> bool:
        """Whether something that its user has asked for has no outcome yet."""
        return bool(self._calls or self.sending.uploads)

    @property
    def uploads(self) -> list[SimulatedUpload]:
        """The files that it is sending in chunks."""
        return self.sending.uploads

    def connect(self) -> None:
        """See `SimulatedClient`."""
        if self.machine.state in (ClientState.IDLE, ClientState.WAITING):
            self.perform(self.machine.connect(now=self.now()))

    def disconnect(self) -> None:
        """See `SimulatedClient`."""
        if not self.ended:
            self.note("disconnects")
            self.perform(self.machine.send(Disconnect(), now=self.now()))

    def join(self, channel: str, **data: object) -> Call:
        """Become a member of a channel; `data` goes with each join."""
        self.observer.client_asks(self, channel)
        return self.call(Join(channel, data))

    def leave(self, channel: str) -> Call:
        """Be a member no longer."""
        self.observer.client_left(self, channel)
        for token, call in self._calls.items():
            if isinstance(call.command, Join) and call.command.channel == channel:
                self._overtaken[token] = True
        if channel in self._given:
            self._left[channel] = None
        return self.call(Leave(channel))

    def publish(self, message: Mapping[str, object], data: bytes | None = None) -> Call:
        """Publish a message, which has a ``channel`` or a ``recipient_id``, with a file in it where there is `data`."""
        self.observer.client_publishes(self, {**message}, data)
        return self.call(Publish(message, data))

    def publish_twice(self, message: Mapping[str, object]) -> Call:
        """Publish a message as by a double click: at once again, under the same id.

        The machine has one outcome for each id, so the second answer comes to the user as any other message does.
        """
        call = self.publish(message)
        self.observer.client_publishes(self, {**message})
        self._clicks[call.id] = number_of(message)
        self.perform(self.machine.send(Send({**message, "id": call.id}), now=self.now()))
        return call

    def send_file(self, message: Mapping[str, object], content: bytes) -> SimulatedUpload:
        """Send a file in chunks, of which a message is published with these fields when it is whole."""
        return self.sending.begin({**message}, content)

    def request(self, name: str, **data: object) -> Call:
        """Give the server any command."""
        return self.call(Request(name, data))

    def call(self, command: Command) -> Call:
        """Ask for something, of which `Call.outcome` tells what came.

        Raises:
            LocalProtocolError, QueueFull: As `rtcore.Client.request` does.
        """
        call = Call(command)
        call.id, effects = self.machine.request(command, now=self.now())
        self.note("asks", (call.id, command))
        self._calls[call.id] = call
        self.perform(effects)
        return call

    # Time

    def next_timeout(self) -> float | None:
        """See `Machine.next_timeout`."""
        due = (self.machine.next_timeout(), self.sending.next_timeout())
        earliest = min((at for at in due if at is not None), default=None)
        for link in self._links:
            at = link.next_timeout()
            if at is not None and (earliest is None or at < earliest):
                earliest = at
        return earliest

    def handle_timeout(self) -> None:
        """See `Machine.handle_timeout`."""
        now = self.now()
        for link in list(self._links):
            at = link.next_timeout()
            if at is not None and at <= now:
                link.handle_timeout(now)
        at = self.machine.next_timeout()
        if at is not None and at <= now:
            self.perform(self.machine.handle_timeout(now=now))
            at = self.machine.next_timeout()
            if at is not None and at <= now:
                raise self.world.fail("no_deadline_in_the_past", f"{self.name} has one at {at}, and it is {now}")
        at = self.sending.next_timeout()
        if at is not None and at <= now:
            self.sending.handle_timeout(now)

    # What its connections tell

    def opened(self) -> None:
        """The WebSocket is open; one that was dropped before never is."""
        self.perform(self.machine.opened(now=self.now()))

    def heard_something(self, link: WebSocketLink) -> None:
        """Bytes have come."""
        if link is self._link:
            self.perform(self.machine.receive_activity(now=self.now()))

    def received(self, link: WebSocketLink, message: str | bytes) -> None:
        """A message has come: a text, or the payload of a binary frame."""
        if link is not self._link:
            return
        self.note("<-", message)
        if isinstance(message, bytes):
            self.perform(self.machine.receive_bytes(message, now=self.now()))
            return
        if self._given and message.startswith('{"type":"connected"'):
            self._enter(msgspec.json.decode(message)["channels"])
        self.perform(self.machine.receive_text(message, now=self.now()))

    def lost(self, link: WebSocketLink, code: int | None, reason: str) -> None:
        """A connection has ended, or an attempt has failed."""
        if link is self._link:
            self._link = None
            self._disconnected()
            self.perform(self.machine.lost(code, reason, now=self.now()))

    def forget(self, link: WebSocketLink) -> None:
        """Keep no more deadlines of a connection."""
        self._links.pop(link, None)

    # Inside

    def send_bytes(self, payload: bytes) -> None:
        """Send a binary frame on the present connection."""
        assert self._link is not None, "it says something only while it has a connection"
        self.note("->", payload)
        self._link.send(payload)

    def perform(self, effects: Sequence[Effect]) -> None:
        """Carry out effects of the machine, in order."""
        is_new = False
        for effect in effects:
            match effect:
                case SendText(text=text):
                    assert self._link is not None, "it says something only while it has a connection"
                    self.note("->", text)
                    self.observer.client_says(self, text)
                    self._link.send(text)
                case SendBytes(payload=payload):
                    self.send_bytes(payload)
                case MessageReceived(message=message) if message["type"] == "upload":
                    self.sending.hear(message)
                case MessageReceived(message=message):
                    self._hear_of_click(message)
                    self.hear(message)
                    if message["type"] == "unsubscribed":
                        self._remove(str(message["channel"]))
                case Answered(id=token) | Refused(id=token):
                    self._tell(token, effect)
                case Open(last_event_id=last_event_id):
                    self._open(last_event_id)
                case Drop(code=code, reason=reason):
                    link, self._link = self._link, None
                    assert link is not None, "it drops only what it has"
                    self.note("drops", (code, reason))
                    link.drop(code, reason)
                    self._disconnected()
                case Connected():
                    self.connection_id = effect.connection_id
                    self.reconnects += effect.reconnected
                    self.note("is", effect.connection_id)
                    self.observer.client_connected(self, effect.connection_id, resumes=self._resumes)
                    is_new = True
                case Rejoined(channel=channel, data=data):
                    assert isinstance(data, dict), "the server says where the channel stands"
                    self.observer.client_joined(self, channel, data, again=True)
                case RejoinRefused(channel=channel):
                    self.note("is not let in again", effect)
                    self.observer.client_left(self, channel)
                case ProtocolFault(reason=reason):
                    raise self.world.fail("protocol", f"{self.name} does not understand the server: {reason}")
                case Lost():
                    self.note("waits", effect)
                case RefreshDue():
                    self.note("needs a token")
                    # It takes a while to get one.
                    seconds = self.world.choices.seconds(0.01, 0.5)
                    self.world.scheduler.after(seconds, partial(self.attend, self._refresh))
                case Ended():
                    self.note("ends", effect)
                    if self._calls:
                        raise self.world.fail("outcomes", f"{self.name} has ended with {list(self._calls)} open")
                    self.sending.end()
                case _:
                    assert_never(effect)
        if is_new and self.connected:
            self.sending.connected()
        self.rekey()

    def _open(self, last_event_id: str | None) -> None:
        self._resumes = last_event_id is not None
        query = [("session", self.machine.session), *(("channel", channel) for channel in self._given)]
        if self._wallet is not None:
            if (token := self._wallet.token()) is not None:
                query.append(("token", token))
        elif self.user_id is not None:
            query.append(("user_id", self.user_id))
        if self.hears_text:
            query.append(("binary", "base64"))
        if last_event_id is not None:
            query.append(("last_event_id", last_event_id))
        server = self.choose_server()
        self.note("opens", (server.name, last_event_id))
        self._link = WebSocketLink(self, server, f"/ws?{urlencode(query)}")
        self._links[self._link] = None

    def _enter(self, channels: Sequence[str]) -> None:
        """Take note of the channels of its URL that a server has joined it to."""
        known = dict.fromkeys(channels) if self._known is None else self._known
        # The machine remembers only of those that it was in once that its user has left them.
        self._left = {channel: None for channel in self._left if channel in known}
        self._known = known | dict.fromkeys(channels)
        self._denied = {channel: None for channel in self._given if channel not in channels}
        for channel in self._denied:
            self._notice(channel)

    def _remove(self, channel: str) -> None:
        """Take note that the server has taken it out of a channel."""
        if channel in self._given:
            self._denied[channel] = None
        self._notice(channel)

    def _notice(self, channel: str) -> None:
        """Tell that it is not in a channel, unless a join is under way that goes on where it was."""
        if self.machine.position(channel) is None:
            self.observer.client_removed(self, channel)

    def _refresh(self) -> None:
        """Show the server another token, if it is still wanted."""
        if not self.machine.refresh_wanted:
            return
        assert self._wallet is not None, "without a wallet it has nothing to refresh"
        token = self._wallet.fresh(self.world)
        if token is None:
            self.perform(self.machine.refresh_failed(now=self.now()))
        else:
            self.call(Request("refresh_token", {"token": token}))

    def _tell(self, token: str, outcome: Answered | Refused) -> None:
        call = self._calls.pop(token, None)
        if call is None:
            raise self.world.fail("outcomes", f"{self.name} was told {outcome}, of what it has not asked or was told")
        self.note("is told", outcome)
        call.outcome = outcome
        match call.command:
            case Join(channel=channel):
                overtaken = self._overtaken.pop(token, False)
                if isinstance(outcome, Answered) and not overtaken:
                    assert isinstance(outcome.data, dict), "the server says where the channel stands"
                    self._filters[channel] = call.command.data.get("filters")
                    self._left.pop(channel, None)
                    self._denied.pop(channel, None)
                    self.observer.client_joined(self, channel, outcome.data, again=False)
                elif channel not in self.machine.channels:
                    self.observer.client_left(self, channel)
            case Publish(message=message):
                number = number_of(message)
                if number is not None:
                    if isinstance(outcome, Answered):
                        assert isinstance(outcome.data, dict), "the server says where it is"
                        self.observer.client_published(self, number, outcome.data)
                    else:
                        self.observer.client_refused(self, number, outcome.code)
            case Request():
                self.sending.told(token, outcome)
            case Leave():
                pass
            case _:
                assert_never(call.command)

    def _hear_of_click(self, message: Message) -> None:
        """Take the acknowledgement of the second of two clicks."""
        if message["type"] == "response":
            number, receipt = self._clicks.get(str(message["id"])), message["data"]
            if number is not None and isinstance(receipt, dict):
                self.observer.client_published(self, number, receipt)

    def _disconnected(self) -> None:
        if self.connection_id is not None:
            self.connection_id = None
            self.sending.lost()
            self.observer.client_disconnected(self)
