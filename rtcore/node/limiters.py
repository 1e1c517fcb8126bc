"""What holds the connections of a server to their rates."""

from __future__ import annotations

from rtcore.binary import Bytes
from rtcore.deadlines import Deadlines
from rtcore.errors import Refusal
from rtcore.messages import Message, encode
from rtcore.permissions import Credential, Identity
from rtcore.rate_limit import RateLimit, RateLimitConfig, RateLimiter, too_fast

__all__ = ["Limiters"]


class Limiters:
    """A limiter for each connection, and one for each user, which all connections of the user share.

    That of a user is kept until it is as good as new: coming back is no way around it.

    Args:
        config: The limits.
    """

    def __init__(self, config: RateLimitConfig) -> None:
        self._config = config
        self._users: dict[str, RateLimiter] = {}
        self._until: Deadlines[str] = Deadlines()

    def __len__(self) -> int:
        return len(self._users)

    def of(self, user_id: str | None, *, now: float) -> tuple[RateLimiter, ...]:
        """Return what holds a new connection of a user, or of somebody anonymous, the shared one last."""
        limiters: list[RateLimiter] = []
        if self._config.connection is not None:
            limiters.append(RateLimiter(self._config.connection, now=now))
        if user_id is not None and self._config.user is not None:
            self._until.set(user_id, None)
            limiters.append(self._shared(user_id, self._config.user, now=now))
        return tuple(limiters)

    def admit(
        self, identity: Identity, message: Message, data: Bytes | None = None, *, is_connected: bool, now: float
    ) -> Refusal | None:
        """Admit a message that has not come by a connection, or tell why not; API keys may say anything.

        Args:
            identity: Whose it is.
            message: What is said; its size is that of its JSON, and of the file in it.
            data: That file.
            is_connected: Whether the user has a connection as well.
            now: Monotonic seconds.

        Raises:
            LocalProtocolError: If `message` is no JSON; nothing has changed.
        """
        user_id = identity.user_id
        if self._config.user is None or user_id is None or identity.grant.credential is Credential.KEY:
            return None
        size = encode(message, data=data).size
        wait = self._shared(user_id, self._config.user, now=now).admit(size, now=now)
        if not is_connected:
            self.release(user_id, now=now)
        return too_fast(wait) if wait else None

    def release(self, user_id: str, *, now: float) -> None:
        """Take note that the last connection of a user is gone."""
        shared = self._users.get(user_id)
        if shared is not None:
            self._until.set(user_id, max(now, shared.full_at))

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` has something to forget, in monotonic seconds, or ``None``."""
        return self._until.next_timeout()

    def handle_timeout(self, *, now: float) -> None:
        """Forget what is as good as new."""
        for user_id in self._until.pop_due(now=now):
            del self._users[user_id]

    def _shared(self, user_id: str, config: RateLimit, *, now: float) -> RateLimiter:
        shared = self._users.get(user_id)
        if shared is None:
            shared = self._users[user_id] = RateLimiter(config, now=now)
        return shared
