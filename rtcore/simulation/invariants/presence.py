"""Who is said to be present is present, once things are quiet, and nobody is said to leave who is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rtcore.encoded import Encoded
from rtcore.messages import Message
from rtcore.router import Roster

from .invariant import Invariant

if TYPE_CHECKING:
    from rtcore.simulation.client import SimulatedClient
    from rtcore.simulation.server import SimulatedServer

__all__ = ["PresenceTruth"]

_decode = msgspec.json.Decoder().decode
# A user, or a connection of nobody in particular.
_Who = tuple[object, object]


class PresenceTruth(Invariant):
    """Presence equals the truth once things are quiet, and no leave follows the join that outdates it."""

    name = "presence_is_true"

    def __init__(self) -> None:
        # What each client believes, by channel.
        self._believed: dict[str, dict[str, dict[_Who, None]]] = {}
        self._heard: dict[str, dict[str, tuple[str, int]]] = {}

    def server_delivers(self, server: SimulatedServer, message: Encoded, receivers: tuple[str, ...]) -> None:
        """See `Observer`."""
        source = message.source
        if source is None or not source.presence:
            return
        event = _decode(message.json)
        if event["type"] == "user_left":
            roster = server.node._router.roster(source.channel)
            if not isinstance(roster, Roster) or (roster.epoch, roster.offset) != (source.epoch, source.offset):
                # Told again to somebody who has missed it, and followed by others.
                return
            user_id, channel = event["user_id"], event["channel"]
            for connection in server.node.connections():
                channels = connection["channels"]
                assert isinstance(channels, list), "as the protocol has it"
                same = connection["connection_id"] == event["connection_id"]
                if channel in channels and (same or (user_id is not None and connection["user_id"] == user_id)):
                    raise self.broken(f"{event} is told while {connection} is there")

    # What clients believe

    def client_joined(self, client: SimulatedClient, channel: str, answer: Message, *, again: bool) -> None:
        """See `Observer`."""
        roster = answer.get("presence")
        types = client.filters(channel).get("types")
        if not isinstance(roster, dict) or (isinstance(types, list) and not {"user_joined", "user_left"} <= set(types)):
            # It may not know who comes and goes, or does not want to hear of it.
            self.client_left(client, channel)
            return
        if channel in client.channels and roster["users"] is not None:
            self._believed.setdefault(client.name, {})[channel] = {_who(each): None for each in roster["users"]}
            self._heard.setdefault(client.name, {})[channel] = (roster["epoch"], roster["offset"])

    def client_left(self, client: SimulatedClient, channel: str) -> None:
        """See `Observer`."""
        self._believed.get(client.name, {}).pop(channel, None)
        self._heard.get(client.name, {}).pop(channel, None)

    def client_removed(self, client: SimulatedClient, channel: str) -> None:
        """See `Observer`."""
        self.client_left(client, channel)

    def client_heard(self, client: SimulatedClient, message: Message) -> None:
        """See `Observer`."""
        kind = message["type"]
        if kind == "gap" and message.get("stream") == "presence":
            # What it believes is out of date, until it asks for the roster or joins again.
            self._believed.get(client.name, {}).pop(str(message["channel"]), None)
        if kind not in ("user_joined", "user_left"):
            return
        channel, meta = str(message["channel"]), message["meta"]
        assert isinstance(meta, dict), "as the protocol has it"
        believed = self._believed.get(client.name, {}).get(channel)
        if believed is None:
            return
        heard = self._heard[client.name]
        epoch, offset = heard[channel]
        if meta["epoch"] == epoch and meta["offset"] <= offset:
            # Told again on the way back, and already part of the roster.
            return
        heard[channel] = (meta["epoch"], meta["offset"])
        who = _who(message)
        if kind == "user_joined":
            believed[who] = None
        else:
            believed.pop(who, None)

    def at_rest(self) -> None:
        """See `Invariant`."""
        simulation = self.simulation
        truth: dict[tuple[str, str], dict[_Who, None]] = {}
        for client in simulation.clients:
            if client.ended or client.server is None:
                continue
            for channel in client.channels:
                who = (None, client.connection_id) if client.user_id is None else (client.user_id, "")
                truth.setdefault((client.server.name, channel), {})[who] = None
        for server in simulation.servers:
            for entry in server.node.channels():
                channel = str(entry["channel"])
                if not server.config.node.router.namespaces.get(channel).presence:
                    continue
                users = _roster(server, channel)
                there = truth.get((server.name, channel), {})
                if users is not None and users != there:
                    raise self.broken(f"{server} says that {list(users)} are in {channel}, but it is {list(there)}")
        for client in simulation.clients:
            for channel, believed in self._believed.get(client.name, {}).items():
                if client.ended or client.server is None or channel not in client.channels:
                    continue
                there = truth[client.server.name, channel]
                if believed != there:
                    raise self.broken(f"{client} believes that {list(believed)} are in {channel}: it is {list(there)}")


def _who(member: Message) -> _Who:
    return (None, member["connection_id"]) if member["user_id"] is None else (member["user_id"], "")


def _roster(server: SimulatedServer, channel: str) -> dict[_Who, None] | None:
    answer = server.node.presence(channel)
    assert isinstance(answer, dict), "it is not refused where there is presence"
    users = answer["users"]
    if not isinstance(users, list):
        return None
    return {_who(each): None for each in users}
