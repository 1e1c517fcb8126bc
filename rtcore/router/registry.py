"""The channels that there are, and for how long those that nobody listens to are kept."""

from __future__ import annotations

from typing import Final

from rtcore.channels import Channel, is_builtin
from rtcore.deadlines import Deadlines
from rtcore.history import Memory
from rtcore.namespaces import Namespace

from .config import RouterConfig

__all__ = ["Registry"]

# Nobody comes back to the channel of a connection, so there is nothing to keep for them.
_DIRECT: Final = Namespace(pattern="$connection:*", history_size=0, persistent_size=0)


class Registry:
    """Channels by name.

    A channel that nobody subscribes to goes on counting for a while, so that those who come back find what they have
    missed. Once it is forgotten, its name begins a new epoch.

    Args:
        config: Limits.
        entropy: A text that differs between any two routers, past ones included; epochs are made from it.

    Attributes:
        memory: The bytes that the channels hold.
    """

    def __init__(self, config: RouterConfig, *, entropy: str) -> None:
        self._config = config
        self._entropy = entropy
        self._epochs = 0
        self.memory = Memory(config.max_history_bytes)
        self._channels: dict[str, Channel] = {}
        # Channels without subscribers, longest idle first, and when they may be forgotten.
        self._idle: dict[str, float] = {}
        self._deadlines: Deadlines[str] = Deadlines()
        # The newest publication, and the newest change, of any channel that was forgotten. A channel that is not known
        # may have been one of those: whoever has heard less than that may have missed something of it.
        self._forgotten = 0
        self._forgotten_changes = 0

    def __len__(self) -> int:
        return len(self._channels)

    def get(self, name: str) -> Channel | None:
        """Return a channel that there is, or ``None``."""
        return self._channels.get(name)

    def find(self, name: str) -> Channel:
        """Return a channel; one that there was not yet is new, and enters with `keep`."""
        channel = self._channels.get(name)
        if channel is not None:
            return channel
        self._epochs += 1
        epoch = f"{self._entropy}.{self._epochs}"
        namespace = self.namespace_of(name)
        channel = Channel(name, epoch, namespace, memory=self.memory, lost_seq=self._forgotten)
        channel.changes.lost_seq = self._forgotten_changes
        return channel

    def namespace_of(self, name: str) -> Namespace:
        """Return what holds for the channels of a name, whether there is one or not."""
        if name.startswith("$connection:"):
            return _DIRECT
        return self._config.rooms if name.startswith("$room:") else self._config.namespaces.get(name)

    def open(self, name: str) -> Channel:
        """Return a channel, which begins if there is none."""
        channel = self._channels[name] = self.find(name)
        return channel

    def used(self) -> list[Channel]:
        """Return the channels that somebody subscribes to, built-in ones left out."""
        return [channel for channel in self._channels.values() if len(channel) and not is_builtin(channel.name)]

    def keep(self, channel: Channel, *, now: float) -> None:
        """Take note of a channel that has changed: of one that is idle now, or no longer, and of its deadlines."""
        name = channel.name
        self._channels[name] = channel
        self._idle.pop(name, None)
        if not len(channel):
            self._idle[name] = now + self._config.idle_timeout
            if len(self._idle) > self._config.max_idle:
                self._forget(self._channels[next(iter(self._idle))])
                if name not in self._idle:
                    return
        self._rekey(channel)

    def published(self, channel: Channel, *, now: float) -> None:
        """Take note of one more publication of a channel; `keep`, for less where somebody subscribes to it."""
        if not len(channel) or channel.name not in self._channels:
            self.keep(channel, now=now)
            return
        at = self._deadlines.get(channel.name)
        # The oldest publication is the first to go, so the deadline that there is comes no later, unless it is that of
        # somebody who may come back.
        if at is None or now + channel.namespace.history_ttl < at:
            self._deadlines.set(channel.name, channel.next_timeout())

    def drop(self, name: str) -> None:
        """Forget a channel that nobody can come back to."""
        channel = self._channels.pop(name, None)
        if channel is not None:
            channel.clear()
            self._idle.pop(name, None)
            self._deadlines.set(name, None)

    def next_timeout(self) -> float | None:
        """Return when `take_due` has something to return, in monotonic seconds, or ``None``."""
        return self._deadlines.next_timeout()

    def take_due(self, *, now: float) -> list[Channel]:
        """Let go of what has been held for long enough; `settle` must follow for each.

        Returns:
            The channels concerned, some of whose members may be gone.
        """
        due = [self._channels[name] for name in self._deadlines.pop_due(now=now)]
        for channel in due:
            channel.expire(now=now)
        return due

    def settle(self, channel: Channel, *, now: float) -> None:
        """Forget a channel of `take_due` if its time has come, or set its next deadline."""
        idle_until = self._idle.get(channel.name)
        if idle_until is not None and idle_until <= now:
            if channel.next_timeout() is None and not channel.history.keeps:
                self._forget(channel)
                return
            # There is something to come back for: its time comes again.
            self._idle[channel.name] = now + self._config.idle_timeout
        self._rekey(channel)

    def _rekey(self, channel: Channel) -> None:
        due = (channel.next_timeout(), self._idle.get(channel.name))
        self._deadlines.set(channel.name, min((at for at in due if at is not None), default=None))

    def _forget(self, channel: Channel) -> None:
        self._forgotten = max(self._forgotten, channel.history.last_seq)
        self._forgotten_changes = max(self._forgotten_changes, channel.changes.last_seq)
        self.drop(channel.name)
