"""Nobody is told of a gap without need: what could be told again is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rtcore.encoded import Encoded
from rtcore.messages import Message
from rtcore.namespaces import SlowConsumer
from rtcore.tokens import Token

from .invariant import Invariant
from .ledger import Ledger, Line
from .rights import Rights

if TYPE_CHECKING:
    from rtcore.simulation.client import SimulatedClient
    from rtcore.simulation.server import SimulatedServer

__all__ = ["Justification"]

_decode = msgspec.json.Decoder().decode


class Justification(Invariant):
    """A gap is told only where something was lost.

    That is: by another server or in another life of it; where the history no longer holds all that was missed, or has
    no room for so many bytes; where the channel, or one that it might have been, was forgotten; where the channel may
    drop what a connection does not read; or where somebody may not be told what was said.

    Args:
        ledger: What was published.
        rights: Who may be told of it.

    Attributes:
        recovered: How often somebody who came back was told all.
        lost: How often not.
    """

    name = "no_gap_without_need"

    def __init__(self, ledger: Ledger, rights: Rights) -> None:
        self._ledger = ledger
        self._rights = rights
        self.recovered = 0
        self.lost = 0
        # What connections came with: their tokens, and what their joins say that they have heard, by channel.
        self._tokens: dict[str, str] = {}
        self._since: dict[tuple[str, object], tuple[str, Message]] = {}

    def server_connected(
        self,
        server: SimulatedServer,
        connection_id: str,
        user_id: str | None,
        channels: tuple[str, ...],
        *,
        last_event_id: str | None,
    ) -> None:
        """See `Observer`."""
        if last_event_id:
            self._tokens[connection_id] = last_event_id

    def server_received(self, server: SimulatedServer, connection_id: str, text: str) -> None:
        """See `Observer`."""
        message = _decode(text)
        if message.get("command") == "join_channel" and "since" in message["data"]:
            data = message["data"]
            self._since[connection_id, message.get("id")] = (data["channel"], data["since"])

    def server_delivers(self, server: SimulatedServer, message: Encoded, receivers: tuple[str, ...]) -> None:
        """See `Observer`."""
        if message.source is not None:
            return
        if message.json.startswith(b'{"type":"connected"'):
            welcome = _decode(message.json)
            if (token := self._tokens.pop(receivers[0], None)) is not None:
                self._check_welcome(server, token, welcome)
        elif message.json.startswith(b'{"type":"response"'):
            answer = _decode(message.json)
            since = self._since.pop((receivers[0], answer["id"]), None)
            if since is not None:
                self._check_join(server, receivers[0], *since, answer["data"])

    def client_heard(self, client: SimulatedClient, message: Message) -> None:
        """See `Observer`."""
        if message["type"] == "gap" and message["reason"] == "slow_consumer":
            assert client.server is not None, "somebody has said it"
            line = self._ledger.line(client.server, str(message["channel"]))
            if line.namespace.slow_consumer is SlowConsumer.DISCONNECT:
                raise self.broken(f"{client} is told of a gap in {line.channel}, of which nothing may be dropped")

    # What servers say

    def _check_welcome(self, server: SimulatedServer, text: str, welcome: Message) -> None:
        gaps = welcome.get("gaps", [])
        assert isinstance(gaps, list), "as the protocol has it"
        if welcome["recovered"] is not (not gaps):
            raise self.broken(f"{welcome['connection_id']} is told {welcome['recovered']}, and of {len(gaps)} gaps")
        self.recovered += not gaps
        self.lost += bool(gaps)
        token = Token.parse(text)
        for gap in gaps:
            line = self._ledger.line(server, gap["channel"])
            if token is None:
                needed = gap["reason"] == "invalid_token"
            elif token.instance != server.life:
                needed = gap["reason"] == "foreign_token"
            elif not self._rights.recalls(server, str(welcome["connection_id"]), line.channel):
                # Whether something is held or not is not told either.
                said = any(each.seq > token.seq for each in line.publications)
                forgotten = self._has_forgotten(server, line, gap["epoch"], token.seq)
                needed = gap["reason"] == "history_denied" and (said or forgotten)
            else:
                needed = gap["reason"] == "history_lost" and (
                    self._is_scarce(server)
                    or self._has_lost(server, line, gap["epoch"], token.seq)
                    or self._has_forgotten(server, line, gap["epoch"], token.seq)
                )
            if not needed:
                raise self.broken(f"{gap} is told to {welcome['connection_id']}, who came with {text}")

    def _check_join(
        self, server: SimulatedServer, connection_id: str, channel: str, since: Message, answer: Message
    ) -> None:
        if answer["recovered"]:
            self.recovered += 1
            return
        self.lost += 1
        if self._is_scarce(server):
            return
        line = self._ledger.line(server, channel)
        epoch, offset = since["epoch"], since["offset"]
        said = [each for each in line.publications if each.epoch == epoch]
        held = line.held(str(epoch), now=server.now())
        missed = [each for each in said if isinstance(offset, int) and each.offset > offset]
        if answer["epoch"] != epoch:
            # It is another life's, or was forgotten, as it may be some time after it has spoken last.
            idle = server.config.node.router.idle_timeout
            needed = not said or (not held and said[-1].clock + idle <= server.now())
        elif isinstance(offset, int) and offset > int(str(answer["offset"])):
            # Nobody has heard so much of it.
            needed = True
        else:
            recalls = self._rights.recalls(server, connection_id, channel)
            needed = any(not recalls or each not in held for each in missed)
        if not needed:
            raise self.broken(f"who has heard {channel} up to {since} is told that something is lost: {answer}")

    # What is lost

    def _is_scarce(self, server: SimulatedServer) -> bool:
        """Tell whether so much was said that not all of it need be held, or told again."""
        router = server.config.node.router
        return min(router.max_history_bytes, router.max_replay_bytes) < self._ledger.bytes.get(server.life, 0)

    def _has_lost(self, server: SimulatedServer, line: Line, epoch: str, seq: int) -> bool:
        """Tell whether a line no longer holds all that it has said after `seq`."""
        held = line.held(epoch, now=server.now())
        return any(each.seq > seq and each not in held for each in line.publications)

    def _has_forgotten(self, server: SimulatedServer, line: Line, epoch: str, seq: int) -> bool:
        """Tell whether a line is new, and may be one that was forgotten and has said something after `seq`."""
        if any(each.epoch == epoch and each.seq <= seq for each in line.publications):
            return False
        now, idle = server.now(), server.config.node.router.idle_timeout
        for other in self._ledger.lines(server.life):
            if not other.publications or other.publications[-1].seq <= seq:
                continue
            last = other.publications[-1]
            if last.clock + idle <= now and not other.held(last.epoch, now=now):
                return True
            if any(each.seq > seq and each.epoch != last.epoch for each in other.publications):
                return True
        return False
