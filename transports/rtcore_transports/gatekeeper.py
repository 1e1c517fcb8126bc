"""Who may come in, whatever the host: origins, addresses, credentials, and the hooks of the application."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import anyio
import attrs

from rtcore import Action, CommandError, Identity, LocalProtocolError, Message, Refusal, Transport
from rtcore.handshake import Headers
from rtcore.permissions import EVERYTHING, OPEN, Credential, Grant

from .admission import Admission
from .client_address import address_key, client_address, forwarded_scheme, is_loopback
from .gate_config import Authenticator, GateConfig, Hooks
from .handlers import refusal_of
from .origins import allows_origin, is_loopback_host
from .presented import credentials_in, read_introduction
from .visitors import Credentials, Visitor

__all__ = ["Gatekeeper", "Pending"]

_log = logging.getLogger("rtcore.gatekeeper")

_UNAUTHORIZED: Final = Refusal(
    "unauthorized",
    "this needs a credential: a token in the header 'Authorization: Bearer', or an API key in a header of its own",
    status=401,
)
_TOO_LATE: Final = Refusal(
    "authentication_timeout", "no credential has come in time: send 'authenticate' first, at once", status=401
)
_NOT_VERIFIED: Final = Refusal(
    "authentication_unavailable", "credentials cannot be verified at the moment: try again", status=503, retry_after=5
)
_TOO_MANY_PENDING: Final = Refusal(
    "too_many_pending",
    "too many clients have yet to say who they are: send the credential along, or try again",
    status=503,
    retry_after=5,
)
_STOPPING: Final = Refusal("draining", "the server is about to stop: connect again", status=503, retry_after=5)

_DENIED: Final = {
    None: Refusal("connect_denied", "the application does not let you connect", status=403),
    Action.SUBSCRIBE: Refusal("subscribe_denied", "the application does not let you join this channel", status=403),
    Action.PUBLISH: Refusal("publish_denied", "the application does not let you publish this here", status=403),
}

# How many channels of one visitor the application is asked about at once.
_QUESTIONS: Final = 16


@attrs.frozen
class Pending:
    """A visitor on a WebSocket who has yet to say who they are, with `Gatekeeper.introduce`.

    Attributes:
        visitor: Who it is, as far as is known.
        wanted: What they have come for.
    """

    visitor: Visitor
    wanted: Admission


class Gatekeeper:
    """Lets visitors in, or tells why not.

    Args:
        config: Who may come.
        authenticator: Who knows credentials; ``None`` where nobody does, and none is asked for.
        hooks: What the application is asked.
        refuses: Tells why somebody may not come in although their credential is genuine: it was revoked, say.

    Raises:
        LocalProtocolError: Credentials are required that nobody knows.
    """

    def __init__(
        self,
        config: GateConfig | None = None,
        authenticator: Authenticator | None = None,
        hooks: Hooks | None = None,
        *,
        refuses: Callable[[Identity], Refusal | None] = lambda identity: None,
    ) -> None:
        self.config = config or GateConfig()
        self.authenticator = authenticator
        self.hooks = hooks or Hooks()
        self._refuses = refuses
        self._pending: dict[anyio.CancelScope, None] = {}
        self._draining = False
        if authenticator is None and (self.config.websocket_auth_required or self.config.sse_auth_required):
            raise LocalProtocolError("credentials are required, but there is no authenticator that knows any")

    # Who it is

    def visitor(self, headers: Headers, query: bytes, peer: str | None, scheme: str) -> Visitor:
        """Return who comes with a request.

        Args:
            headers: Of the request, names in lower case.
            query: As it stands in the URL, without the question mark.
            peer: The address at the other end of the connection, or ``None``.
            scheme: ``http``, ``https``, ``ws`` or ``wss``.
        """
        config = self.config
        client = client_address(peer, headers, config.proxies)
        told = forwarded_scheme(headers) if client.is_proxied else None
        host = _header(headers, b"host")
        visitor = Visitor(
            address=None if client.address is None else str(client.address),
            local=client.is_known and is_loopback(client.address) and is_loopback_host(host),
            scheme=told or ("https" if scheme in ("https", "wss") else "http"),
            host=host,
            origin=_header(headers, b"origin"),
            credentials=Credentials(),
            counts_as=address_key(client.address),
        )
        cookie = config.cookie if self._may_bring_a_cookie(visitor, headers) else None
        found = credentials_in(headers, query, api_key_header=config.api_key_header, cookie=cookie)
        return attrs.evolve(visitor, credentials=found)

    def check_origin(self, visitor: Visitor) -> Refusal | None:
        """Tell why a page may not use this server, or ``None`` if it may, or there is no page."""
        if visitor.origin is None or allows_origin(
            visitor.origin, host=visitor.host, scheme=visitor.scheme, allowed=self.config.origins
        ):
            return None
        message = "pages of this origin may not use this server: see REALTIME_ALLOWED_ORIGINS"
        return Refusal("origin_not_allowed", message, status=403)

    def cors_headers(self, visitor: Visitor) -> list[tuple[bytes, bytes]]:
        """Return the headers by which a browser lets a page, whose origin is allowed, read the answer."""
        if visitor.origin is None:
            return []
        headers = [(b"access-control-allow-origin", visitor.origin.encode("latin-1"))]
        if self.config.cookie is not None:
            headers.append((b"access-control-allow-credentials", b"true"))
        return headers

    async def identify(self, visitor: Visitor) -> Identity | Refusal:
        """Return who asks for something over HTTP, or why they may not.

        The application is asked whether a user may come, as it is about connections; not about programs. On a server
        that knows no credentials, whoever is on its machine is its operator.
        """
        if isinstance(visitor.credentials, Refusal):
            return visitor.credentials
        if self.authenticator is None:
            return Identity(None, EVERYTHING if visitor.local else Grant())
        if visitor.credentials:
            identity = await self.authenticate(visitor.credentials)
            if isinstance(identity, Refusal) or _is_program(identity):
                return identity
            return await self._refused_by_hook(visitor, identity) or identity
        if self.config.websocket_auth_required or self.config.sse_auth_required:
            return _UNAUTHORIZED
        return Identity(None, Grant())

    async def authenticate(self, credentials: Credentials) -> Identity | Refusal:
        """Return who comes with a credential, or why it is no good."""
        if self.authenticator is None:
            return _UNAUTHORIZED
        return await self._checked(self.authenticator.authenticate(credentials))

    async def verify(self, token: str) -> Identity | Refusal:
        """Return who comes with a token, or why it is no good."""
        if self.authenticator is None:
            return _UNAUTHORIZED
        return await self._checked(self.authenticator.verify(token))

    # Letting in

    async def admit(self, visitor: Visitor, wanted: Admission, transport: Transport) -> Admission | Pending | Refusal:
        """Let somebody in who wants to connect.

        Args:
            visitor: Who comes; that their origin is allowed the caller has checked.
            wanted: What they have asked for.
            transport: By what they are to be connected.

        Returns:
            What they get; that they have yet to say who they are, on a WebSocket; or why they may not come in.
        """
        if isinstance(visitor.credentials, Refusal):
            return visitor.credentials
        is_websocket = transport is Transport.WEBSOCKET
        if self.authenticator is not None and visitor.credentials:
            return await self._let_in(visitor, await self.authenticate(visitor.credentials), wanted)
        if self.config.websocket_auth_required if is_websocket else self.config.sse_auth_required:
            return Pending(visitor, wanted) if is_websocket else _UNAUTHORIZED
        grant = OPEN if self.authenticator is None and visitor.local else Grant()
        return await self._let_in(visitor, Identity(wanted.user_id, grant), wanted)

    async def introduce(
        self, pending: Pending, receive: Callable[[], Awaitable[str | None]]
    ) -> Admission | Refusal | None:
        """Wait until somebody says who they are, and let them in.

        Args:
            pending: Who it is.
            receive: Returns their first message, which is no text if it is empty, or ``None`` if they are gone.

        Returns:
            What they get, or why they may not come in; ``None`` if they are gone.
        """
        if self._draining:
            return _STOPPING
        if len(self._pending) >= self.config.max_pending:
            return _TOO_MANY_PENDING
        text = None
        with anyio.CancelScope() as waiting:
            self._pending[waiting] = None
            try:
                waiting.deadline = anyio.current_time() + self.config.authentication_timeout
                text = await receive()
            finally:
                del self._pending[waiting]
        if waiting.cancelled_caught:
            return _STOPPING if self._draining else _TOO_LATE
        if text is None:
            return None
        introduction = read_introduction(text)
        if isinstance(introduction, Refusal):
            return introduction
        wanted = attrs.evolve(pending.wanted, answers=introduction.id)
        return await self._let_in(pending.visitor, await self.authenticate(introduction.credentials), wanted)

    def drain(self) -> None:
        """Send away all who have yet to say who they are, now and from now on."""
        self._draining = True
        for waiting in self._pending:
            waiting.cancel()

    async def consult(
        self, action: Action, identity: Identity, channel: str, message: Message | None = None
    ) -> Refusal | None:
        """Ask the application whether somebody may join a channel or publish to it; returns why not, if not.

        Args:
            action: `Action.SUBSCRIBE`, which is also asked before somebody is told of a channel, or `Action.PUBLISH`.
            identity: Who wants to.
            channel: Where.
            message: What is to be published.
        """
        match action:
            case Action.SUBSCRIBE if (subscribe := self.hooks.subscribe) is not None:
                return await self._ask(action, lambda: subscribe(identity, channel))
            case Action.PUBLISH if (publish := self.hooks.publish) is not None:
                assert message is not None, "a publication has a message"
                return await self._ask(action, lambda: publish(identity, channel, message))
            case _:
                return None

    async def consult_all(self, identity: Identity, channels: Sequence[str]) -> dict[str, Refusal]:
        """Ask whether somebody may join each of many channels, within the time for one; returns what is denied."""
        if Action.SUBSCRIBE not in self.hooks:
            return {}
        answers: dict[str, Refusal | None] = dict.fromkeys(channels, _DENIED[Action.SUBSCRIBE])
        questions = iter(channels)

        async def ask() -> None:
            for channel in questions:
                answers[channel] = await self.consult(Action.SUBSCRIBE, identity, channel)

        with anyio.move_on_after(self.config.hook_timeout):
            async with anyio.create_task_group() as tasks:
                for _ in range(min(_QUESTIONS, len(channels))):
                    tasks.start_soon(ask)
        return {channel: refusal for channel, refusal in answers.items() if refusal is not None}

    # Inside

    def _may_bring_a_cookie(self, visitor: Visitor, headers: Headers) -> bool:
        # A browser sends cookies along whoever makes it send a request, and no Origin with a GET of the page's own
        # origin: there Sec-Fetch-Site says so, which no page can set.
        if visitor.origin is None:
            return _header(headers, b"sec-fetch-site") == "same-origin"
        return self.check_origin(visitor) is None

    async def _let_in(self, visitor: Visitor, identity: Identity | Refusal, wanted: Admission) -> Admission | Refusal:
        if isinstance(identity, Refusal):
            return identity
        if refusal := await self._refused_by_hook(visitor, identity):
            return refusal
        refusals = await self.consult_all(identity, wanted.channels)
        return attrs.evolve(
            wanted,
            user_id=identity.user_id,
            grant=identity.grant,
            address=visitor.counts_as,
            channels=tuple(channel for channel in wanted.channels if channel not in refusals),
            denied=tuple(refusals.values()),
        )

    async def _refused_by_hook(self, visitor: Visitor, identity: Identity) -> Refusal | None:
        connect = self.hooks.connect
        return None if connect is None else await self._ask(None, lambda: connect(visitor, identity))

    async def _ask(self, action: Action | None, hook: Callable[[], Awaitable[bool | None]]) -> Refusal | None:
        name = "connect" if action is None else action.value
        allowed: object = None
        try:
            with anyio.move_on_after(self.config.hook_timeout) as waiting:
                allowed = await hook()
        except CommandError as error:
            return refusal_of(error, status=403)
        except Exception:
            _log.exception("the hook %r failed, which denies", name)
            return _DENIED[action]
        if waiting.cancelled_caught:
            _log.error("the hook %r gave no answer in %g s, which denies", name, self.config.hook_timeout)
        return None if allowed is True else _DENIED[action]

    async def _checked(self, verification: Awaitable[Identity | Refusal]) -> Identity | Refusal:
        identity: Identity | Refusal = _NOT_VERIFIED
        try:
            with anyio.move_on_after(self.config.authentication_timeout) as waiting:
                identity = await verification
        except Exception as error:
            # Without its text, in which there may be the secret.
            _log.error("a credential could not be verified: %s", type(error).__name__)
            return _NOT_VERIFIED
        if waiting.cancelled_caught:
            _log.error("a credential could not be verified in %g s", self.config.authentication_timeout)
        return identity if isinstance(identity, Refusal) else self._refuses(identity) or identity


def _is_program(identity: Identity) -> bool:
    return identity.user_id is None and identity.grant.credential is Credential.KEY


def _header(headers: Headers, wanted: bytes) -> str | None:
    """Return what a header says; of several lines all, which then is no origin and no host."""
    values = [value.decode("latin-1").strip() for name, value in headers if name == wanted]
    return ", ".join(values) if values else None
