"""Who may use which path of the HTTP API: one table, without an entry in which nothing is served."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rtcore import Refusal
from rtcore.permissions import Action, Credential, Grant, Identity, decide
from rtcore_transports import Driver

from .asgi_endpoints import visitor_of
from .errors import RefusalError

__all__ = ["RULES", "Guard", "Handler", "Rule"]

#: Answers a request of somebody who has been let in, on whose behalf it asks the node for what concerns a channel.
Handler: TypeAlias = Callable[[Request, Identity], Awaitable[Response]]


@attrs.frozen
class Rule:
    """Who may ask for something.

    Attributes:
        action: What they must be allowed to do; ``None`` for whoever may connect.
        room: The parameter of the path that names the room which that concerns. Where an action concerns a channel, or
            a room that the body names, it is the node that decides: there it is known what holds for the channel, and
            who is in it.
        public: Whether it is for everybody, whatever they come with.
        hides: Whether what they may not see is to them as what is not there: ``not_found``. Whoever has come without a
            credential is told of either that it may take one.
    """

    action: Action | None = None
    room: str | None = None
    public: bool = False
    hides: bool = False


_EVERYBODY: Final = Rule(public=True)
_VISITORS: Final = Rule()
_PUBLISHERS: Final = Rule(Action.PUBLISH)
# Who sends a file publishes it too.
_UPLOADERS: Final = Rule(Action.UPLOAD)
_OPERATORS: Final = Rule(Action.ADMINISTER)

#: Of each method and path below the prefix.
RULES: Final[Mapping[tuple[str, str], Rule]] = {
    ("POST", "/send"): _PUBLISHERS,
    ("POST", "/broadcast"): _PUBLISHERS,
    ("POST", "/notifications/send"): _PUBLISHERS,
    ("POST", "/notifications/channel"): _PUBLISHERS,
    ("POST", "/notifications/broadcast"): _PUBLISHERS,
    ("POST", "/binary/upload"): _UPLOADERS,
    ("POST", "/binary/send"): _UPLOADERS,
    ("POST", "/binary/text"): _UPLOADERS,
    # What comes with something said in a channel is for those who may hear that.
    ("GET", "/binary/{file_id}"): Rule(Action.SUBSCRIBE, hides=True),
    ("GET", "/channels"): Rule(Action.SUBSCRIBE),
    ("GET", "/channels/{channel:path}/history"): Rule(Action.HISTORY),
    ("GET", "/channels/{channel:path}/presence"): Rule(Action.PRESENCE),
    ("GET", "/connections"): _OPERATORS,
    ("DELETE", "/connections/{connection_id}"): _OPERATORS,
    ("GET", "/stats"): _OPERATORS,
    ("GET", "/metrics"): _OPERATORS,
    ("POST", "/tokens/revoke"): _OPERATORS,
    # It lets in for itself, as the WebSockets do, which need more than a plain request.
    ("GET", "/events"): _EVERYBODY,
    ("GET", "/ws"): _EVERYBODY,
    ("GET", "/webrtc/signaling"): _EVERYBODY,
    ("GET", "/health"): _EVERYBODY,
    ("GET", "/test"): _EVERYBODY,
    ("GET", "/sse-test"): _EVERYBODY,
    ("GET", "/assets/{name}"): _EVERYBODY,
    ("GET", "/webrtc/rooms"): Rule(Action.SIGNAL),
    ("POST", "/webrtc/rooms"): Rule(Action.SIGNAL),
    ("GET", "/webrtc/rooms/{room_id:path}"): Rule(Action.SIGNAL, room="room_id"),
    ("PUT", "/webrtc/rooms/{room_id:path}"): _OPERATORS,
    ("DELETE", "/webrtc/rooms/{room_id:path}"): _OPERATORS,
    ("DELETE", "/webrtc/rooms/{room_id:path}/peers/{peer_id:path}"): _OPERATORS,
    ("POST", "/webrtc/signal"): Rule(Action.SIGNAL),
    ("GET", "/webrtc/connections"): _OPERATORS,
    ("GET", "/webrtc/health"): _EVERYBODY,
    ("GET", "/webrtc/ice-servers"): _VISITORS,
}

_NOBODY: Final = Identity(None, Grant())

_UNAUTHORIZED: Final = Refusal(
    "unauthorized",
    "this needs a credential that allows it: a token in the header 'Authorization: Bearer', or an API key",
    status=401,
)
# What `decide` says.
_DENIALS: Final = frozenset({"admin_required", *(f"{action.value}_denied" for action in Action)})


class Guard:
    """Lets requests of the HTTP API in.

    Args:
        driver: Whose gatekeeper knows who comes.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def route(self, path: str, handlers: Mapping[str, Handler]) -> Route:
        """Return the route of a path below the prefix.

        One for all of its methods: of several routes Starlette asks the first alone what to say in ``Allow``, which
        must list "the target resource's currently supported methods" (RFC 9110, section 15.5.6).

        Args:
            path: As in `RULES`.
            handlers: By method; ``HEAD`` is answered as ``GET``.

        Raises:
            KeyError: There is no rule for it.
        """
        rules = {method: RULES[method, path] for method in handlers}

        async def handle(request: Request) -> Response:
            method = "GET" if request.method == "HEAD" else request.method
            return await self._serve(request, rules[method], handlers[method])

        return Route(path, handle, methods=list(handlers))

    async def _serve(self, request: Request, rule: Rule, handler: Handler) -> Response:
        if rule.public:
            return await handler(request, _NOBODY)
        identity = await self._driver.gatekeeper.identify(visitor_of(request.scope, self._driver))
        if isinstance(identity, Refusal):
            raise RefusalError(identity, unread=True)
        if refusal := _decide(rule, request, identity):
            raise RefusalError(self._worded(refusal, identity, rule), unread=True)
        try:
            return await handler(request, identity)
        except RefusalError as error:
            raise RefusalError(self._worded(error.refusal, identity, rule), unread=error.unread) from None

    def _worded(self, refusal: Refusal, identity: Identity, rule: Rule) -> Refusal:
        """Return a refusal as somebody is told it: whoever has come without a credential may come with one.

        "The 401 (Unauthorized) status code indicates that the request has not been applied because it lacks valid
        authentication credentials for the target resource." (RFC 9110, section 15.5.2)
        """
        is_anonymous = identity.user_id is None and identity.grant.credential is Credential.NONE
        might = is_anonymous and self._driver.authenticator is not None
        is_denial = refusal.code in _DENIALS or (rule.hides and refusal.code == "not_found")
        return _UNAUTHORIZED if might and is_denial else refusal


def _decide(rule: Rule, request: Request, identity: Identity) -> Refusal | None:
    """Tell why a request is refused whatever its body says, or ``None``."""
    if rule.action is Action.ADMINISTER:
        return decide(rule.action, user_id=identity.user_id, grant=identity.grant)
    if rule.action is not None and rule.room is not None:
        return decide(rule.action, request.path_params[rule.room], user_id=identity.user_id, grant=identity.grant)
    return None
