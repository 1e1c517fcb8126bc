"""Who may come in: what of it is configured, and what is asked of others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Protocol, TypeAlias

import attrs

from rtcore import Action, Identity, Message, Refusal

from .origins import OriginPattern
from .visitors import Credentials, Visitor

__all__ = ["Authenticator", "ConnectHook", "GateConfig", "Hooks", "PublishHook", "SubscribeHook"]

#: Asked whether a visitor may connect, as whom it says.
ConnectHook: TypeAlias = Callable[[Visitor, Identity], Awaitable[bool | None]]
#: Asked whether somebody may join a channel.
SubscribeHook: TypeAlias = Callable[[Identity, str], Awaitable[bool | None]]
#: Asked whether somebody may publish this message to a channel.
PublishHook: TypeAlias = Callable[[Identity, str, Message], Awaitable[bool | None]]


def _as_tuple(texts: Sequence[str]) -> tuple[str, ...]:
    if isinstance(texts, str):
        raise TypeError(f"they come in a list or a tuple: {texts!r}")
    return tuple(texts)


@attrs.frozen
class GateConfig:
    """Who may come in.

    Attributes:
        websocket_auth_required: Whether a WebSocket needs a credential.
        sse_auth_required: Whether an event stream does.
        allow_anonymous: Whether the query's ``user_id`` names the user of whoever comes without a credential.
        allowed_origins: The origins whose pages may come beside the server's own: ``https://example.com``,
            ``https://*.example.com`` for any below, ``*`` for any, ``null`` for pages without one. Where there are
            none, pages of this machine may use a server that they know by a loopback name.
        trusted_proxies: The networks of the proxies whose word on a client's address counts.
        cookie: The name of the cookie that may hold a token, or ``None``: a cookie that is not meant for us proves
            nothing.
        api_key_header: The name of the header that holds an API key.
        authentication_timeout: Seconds in which a client that came without its credential must send it, and in which a
            credential must be verified.
        hook_timeout: Seconds in which a hook must answer.
        max_pending: How many WebSockets may be without their credential at once.
    """

    websocket_auth_required: bool = False
    sse_auth_required: bool = False
    allow_anonymous: bool = False
    allowed_origins: tuple[str, ...] = attrs.field(default=(), converter=_as_tuple)
    trusted_proxies: tuple[str, ...] = attrs.field(default=(), converter=_as_tuple)
    cookie: str | None = None
    api_key_header: str = "X-API-Key"
    authentication_timeout: float = 5.0
    hook_timeout: float = 5.0
    max_pending: int = 1000
    _origins: tuple[OriginPattern, ...] = attrs.field(init=False, repr=False, eq=False)
    _proxies: tuple[IPv4Network | IPv6Network, ...] = attrs.field(init=False, repr=False, eq=False)

    @_origins.default
    def _read_origins(self) -> tuple[OriginPattern, ...]:
        return tuple(OriginPattern.read(text) for text in self.allowed_origins)

    @_proxies.default
    def _read_proxies(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(ip_network(text, strict=False) for text in self.trusted_proxies)

    @property
    def origins(self) -> tuple[OriginPattern, ...]:
        """`allowed_origins`, read."""
        return self._origins

    @property
    def proxies(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """`trusted_proxies`, read."""
        return self._proxies


class Authenticator(Protocol):
    """Tells who comes with a credential."""

    async def authenticate(self, credentials: Credentials) -> Identity | Refusal:
        """Return who comes with `credentials`, of which there is one, or why it is no good."""
        ...

    async def verify(self, token: str) -> Identity | Refusal:
        """Return who comes with a token, or why it is no good."""
        ...


@attrs.define
class Hooks:
    """Functions of the application that are asked, beside what a credential allows; they may change at any time.

    Only ``True`` allows. Raising `rtcore.CommandError` denies with its code and message; anything else that comes of a
    hook, or nothing in time, denies with ``connect_denied``, ``subscribe_denied`` or ``publish_denied``. What the
    application itself publishes or joins is its own business, of which no hook is asked.

    Attributes:
        connect: Asked before somebody is connected, and before each request over HTTP that comes with a token, or with
            an API key that acts as a user.
        subscribe: Asked before somebody joins a channel, and before they are told what was said there, who is there, or
            that it is there.
        publish: Asked before somebody publishes to a channel, unless it is a repetition.
    """

    connect: ConnectHook | None = None
    subscribe: SubscribeHook | None = None
    publish: PublishHook | None = None

    def __contains__(self, action: object) -> bool:
        """Tell whether there is a hook for an action."""
        match action:
            case Action.SUBSCRIBE:
                return self.subscribe is not None
            case Action.PUBLISH:
                return self.publish is not None
            case _:
                return False
