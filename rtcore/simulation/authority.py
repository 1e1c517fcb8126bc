"""Who says who somebody is and what they are allowed: it issues tokens, and tells what they are worth, in its time."""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import partial
from typing import Final, TypeAlias

import attrs

from rtcore.errors import Refusal
from rtcore.permissions import Action, Credential, Grant, Identity

from .machine import BEGINNING, Machine
from .world import World

__all__ = ["Authority", "HOOK_DENIED", "Wallet"]

#: What becomes of a question: it is answered some time later, by a call.
_Tell: TypeAlias = Callable[[Identity | Refusal], None]

#: What the application says, where it does not let somebody do something.
HOOK_DENIED: Final = "the application says no"

_INVALID: Final = Refusal("invalid_token", "nobody has issued this token", status=401)
# For how long tokens are good where nothing may go wrong.
_LASTING: Final = 10_000.0
# How long a server waits for its application's word.
_HOOK_TIMEOUT: Final = 1.5
_DELAYS: Final = ((5, (0.0, 0.05)), (3, (0.05, 0.5)), (1, (0.5, 4.0)))


class Authority:
    """Issues tokens and knows them again. Its clock is right.

    Servers ask it for each token, and their applications before some of what clients do. The answer takes a time that
    chance decides: it may come when the token was revoked, or nobody is there any more who has asked.

    Args:
        world: Where it is.
        anonymous: What those are allowed who come without a token.
        consulted: What the applications of servers are asked before.
        lifetime: Seconds for which tokens are good, at least and at most.

    Attributes:
        anonymous: As given.
        consulted: As given.
        ambush: What happens while the next token is verified with which somebody wants to go on; gets its id.
    """

    def __init__(
        self,
        world: World,
        *,
        anonymous: Grant | None = None,
        consulted: Container[Action] = (),
        lifetime: tuple[float, float] = (5.0, 25.0),
    ) -> None:
        self.anonymous = Grant() if anonymous is None else anonymous
        self.consulted = consulted
        self.ambush: Callable[[str], None] | None = None
        self._world = world
        self._lifetime = lifetime
        self._issued: dict[str, Identity] = {}

    @property
    def time(self) -> float:
        """The seconds since 1970."""
        return BEGINNING / 1000 + self._world.scheduler.now

    def issue(self, user_id: str | None, grant: Grant) -> str:
        """Return a new token.

        Args:
            user_id: Its user.
            grant: What it allows; with what and for how long is up to the authority.
        """
        least, most = self._lifetime
        lifetime = most - self._world.choices.seconds(0.0, most - least) if self._world.faulty else _LASTING
        number = len(self._issued) + 1
        token = f"token-{number}"
        now = self.time
        self._issued[token] = Identity(
            user_id,
            attrs.evolve(
                grant, credential=Credential.TOKEN, token_id=f"t{number}", issued_at=now, expires_at=now + lifetime
            ),
        )
        return token

    def identity(self, token: str) -> Identity | Refusal:
        """Return whose a token is and what it allows, were it good yet; or that nobody has issued it."""
        return self._issued.get(token, _INVALID)

    def verify(self, machine: Machine, token: str, tell: _Tell, *, renews: bool = False) -> None:
        """Tell a machine, some time later, what `identity` returns; `renews` if somebody is to go on with the token."""
        delay, identity = self._delay(), self.identity(token)
        if renews and self.ambush is not None and isinstance(identity, Identity):
            self._world.scheduler.after(delay / 2, partial(self.ambush, str(identity.grant.token_id)))
            self.ambush = None
        self._world.scheduler.after(delay, partial(machine.attend, partial(tell, identity)))

    def consult(self, machine: Machine, action: Action, tell: Callable[[Refusal | None], None]) -> None:
        """Tell a machine, some time later, what its application says; or that it has said nothing in time."""
        choices = self._world.choices
        delay, refusal = self._delay(), None
        fate = choices.below(10) if self._world.faulty else 0
        if fate == 9:
            delay = _HOOK_TIMEOUT
        if fate >= 7:
            refusal = Refusal(f"{action.value}_denied", HOOK_DENIED, status=403)
        self._world.scheduler.after(delay, partial(machine.attend, partial(tell, refusal)))

    def _delay(self) -> float:
        choices = self._world.choices
        return choices.seconds(*choices.weighted(_DELAYS)) if self._world.faulty else 0.01


class Wallet:
    """The tokens of one client.

    Args:
        authority: Who issues them.
        user_id: Whose they are; ``None`` for those of nobody in particular.
        grant: What the next of them allows, or ``None`` for a client that never has one.
        refreshes: Whether there is another one whenever one is asked for, rather than the first for ever.

    Attributes:
        grant: As given; may change.
        refreshes: As given.
    """

    def __init__(self, authority: Authority, user_id: str | None, grant: Grant | None, *, refreshes: bool) -> None:
        self.grant = grant
        self.refreshes = refreshes
        self._authority = authority
        self._user_id = user_id
        self._token: str | None = None

    def token(self) -> str | None:
        """Return with what to connect."""
        if self.grant is not None and (self._token is None or self.refreshes):
            self._token = self._authority.issue(self._user_id, self.grant)
        return self._token

    def fresh(self, world: World) -> str | None:
        """Return with what to go on, or ``None`` where there is nothing; chance may have it be another's, or false."""
        fate = world.choices.below(20) if world.faulty else 0
        if fate == 19:
            return None
        if fate == 18:
            return "token-of-nobody"
        if fate == 17 and self.grant is not None:
            return self._authority.issue("somebody else", self.grant)
        return self.token()
