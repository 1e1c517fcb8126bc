"""The part of the HTTP API that is about WebRTC: rooms, the peers in them, signals, and the servers that calls need."""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import unquote

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rtcore import Message, Refusal
from rtcore.messages import normalize_user_id
from rtcore.permissions import Identity
from rtcore.router import Request as RouterRequest
from rtcore.signaling import CreateRoom, Room, Rooms
from rtcore.signaling.commands import parse_create_room, parse_room_changes
from rtcore.signaling.ice_servers import IceServer
from rtcore_transports import Driver

from .errors import RefusalError, json_response, refusal_response
from .guard import Guard
from .http_bodies import BodyLimits, answer, read_json, receipt, refused

__all__ = ["WebRTCApi"]

# A room is described by some hundred bytes; a signal by what the node allows, with room for its other fields.
_MAX_ROOM_BODY = 65536
_MAX_SIGNAL_BODY = 262144


class WebRTCApi:
    """The handlers of ``/webrtc/…``.

    Args:
        driver: Whose node has the rooms.
        limits: What the body of a request may be; here it may be no larger than need be.
        servers: Returns the STUN and TURN servers for a user, given the time in seconds since 1970.
        allow_anonymous: Whether whoever comes without a credential says who they are.
        wall_clock: Seconds since 1970.
    """

    def __init__(
        self,
        driver: Driver,
        *,
        limits: BodyLimits,
        servers: Callable[[str | None, float], list[IceServer]],
        allow_anonymous: bool = False,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._driver = driver
        self._room_limits = attrs.evolve(limits, max_size=min(limits.max_size, _MAX_ROOM_BODY))
        self._signal_limits = attrs.evolve(limits, max_size=min(limits.max_size, _MAX_SIGNAL_BODY))
        self._servers = servers
        self._allow_anonymous = allow_anonymous
        self._wall_clock = wall_clock

    def routes(self, guard: Guard) -> list[Route]:
        """Return all routes, below the prefix."""
        route = guard.route
        return [
            route("/webrtc/rooms", {"GET": self.rooms, "POST": self.create_room}),
            route("/webrtc/rooms/{room_id:path}/peers/{peer_id:path}", {"DELETE": self.remove_peer}),
            route(
                "/webrtc/rooms/{room_id:path}",
                {"GET": self.room, "PUT": self.update_room, "DELETE": self.close_room},
            ),
            route("/webrtc/signal", {"POST": self.signal}),
            route("/webrtc/connections", {"GET": self.connections}),
            route("/webrtc/health", {"GET": self.health}),
            route("/webrtc/ice-servers", {"GET": self.ice_servers}),
        ]

    async def rooms(self, request: Request, asker: Identity) -> Response:
        """GET /webrtc/rooms: the rooms that one may use, and who is in them."""
        return json_response({"rooms": self._driver.signaling.describe(asker=asker)})

    async def create_room(self, request: Request, asker: Identity) -> Response:
        """POST /webrtc/rooms: make a room; body ``{room_id?, name?, max_participants?}``, or none."""
        command = parse_create_room(await self._fields(request), RouterRequest(None))
        if not isinstance(command, CreateRoom):
            raise RefusalError(command)
        return answer(self._driver.create_room(command, asker=asker), status=201)

    async def room(self, request: Request, asker: Identity) -> Response:
        """GET /webrtc/rooms/{room_id}: one room."""
        return json_response(self._room(request.path_params["room_id"]).describe())

    async def update_room(self, request: Request, asker: Identity) -> Response:
        """PUT /webrtc/rooms/{room_id}: change ``name`` or ``max_participants``; those who are in it are told."""
        changes = parse_room_changes(await self._fields(request))
        if isinstance(changes, Refusal):
            raise RefusalError(changes)
        name, most = changes
        room_id = request.path_params["room_id"]
        if refusal := self._driver.update_room(room_id, name=name, max_participants=most):
            raise RefusalError(refusal)
        return json_response(self._room(room_id).describe())

    async def close_room(self, request: Request, asker: Identity) -> Response:
        """DELETE /webrtc/rooms/{room_id}: end a room; those who are in it are told."""
        return self._close_room(request.path_params["room_id"])

    async def remove_peer(self, request: Request, asker: Identity) -> Response:
        """DELETE /webrtc/rooms/{room_id}/peers/{peer_id}: send a peer away; it and the others are told."""
        room_id, peer_id = _peer_of(request)
        if peer_id is None:
            return self._close_room(room_id)
        if refusal := self._driver.remove_peer(room_id, peer_id):
            raise RefusalError(refusal)
        return json_response({"room_id": room_id, "peer_id": peer_id, "removed": True})

    async def signal(self, request: Request, sender: Identity) -> Response:
        """POST /webrtc/signal: one signal of the peer ``peer_id`` in ``room_id``, which is a member, to another."""
        body = await read_json(request, self._signal_limits)
        if not isinstance(body, dict):
            raise refused("invalid_signal", "a signal is an object with a 'signal_type'")
        return receipt(self._driver.signal(body, asker=sender))

    async def connections(self, request: Request, asker: Identity) -> Response:
        """GET /webrtc/connections: all peers, of all rooms."""
        peers: list[Message] = [
            {"room_id": room.room_id, **peer.describe(), "connection_id": peer.connection_id}
            for room in self._rooms
            for peer in room.peers.values()
        ]
        return json_response({"connections": peers})

    async def health(self, request: Request, asker: Identity) -> Response:
        """GET /webrtc/health: 200 while peers may come, 503 once the server is about to stop."""
        if self._driver.node.draining:
            return refusal_response(
                Refusal("draining", "the server is about to stop: ask another one", 503, retry_after=5)
            )
        if self._driver.authenticator is not None:
            # Whoever asks may not be allowed to know that there are any; operators have ``/stats``.
            return json_response({"status": "ok"})
        return json_response({"status": "ok", "rooms": len(self._rooms), "peers": self._rooms.peer_count})

    async def ice_servers(self, request: Request, asker: Identity) -> Response:
        """GET /webrtc/ice-servers: STUN and TURN servers, with credentials that expire and name the user.

        The query's ``user_id`` names another one where the asker administers, or where nobody need prove who they are.
        """
        user_id = asker.user_id
        if "user_id" in request.query_params:
            normalized = normalize_user_id(request.query_params["user_id"])
            if isinstance(normalized, Refusal):
                raise RefusalError(normalized)
            if asker.grant.admin or (user_id is None and self._allow_anonymous):
                user_id = normalized
        servers = self._servers(user_id, self._wall_clock())
        # Somebody else's would be as good, and expire sooner.
        return json_response({"ice_servers": servers}, headers={"cache-control": "no-store"})

    @property
    def _rooms(self) -> Rooms:
        return self._driver.signaling.rooms

    def _room(self, room_id: str) -> Room:
        room = self._rooms.get(room_id)
        if isinstance(room, Refusal):
            raise RefusalError(room)
        return room

    def _close_room(self, room_id: str) -> Response:
        if refusal := self._driver.close_room(room_id):
            raise RefusalError(refusal)
        return json_response({"room_id": room_id, "closed": True})

    async def _fields(self, request: Request) -> Message:
        body = await read_json(request, self._room_limits, empty={})
        if not isinstance(body, dict):
            raise refused("invalid_room", "a room is an object with 'room_id', 'name' and 'max_participants'")
        return body


def _peer_of(request: Request) -> tuple[str, str | None]:
    """Return the room and the peer that a path names, or the room alone, whose name has ``/peers/`` in it.

    A slash that belongs to a name is escaped. Only the path as it was sent tells; where a host does not pass it on, the
    last ``/peers/`` counts.
    """
    raw: bytes | None = request.scope.get("raw_path")
    names: tuple[str, str] = (request.path_params["room_id"], request.path_params["peer_id"])
    if raw is None:
        return names
    whole = raw.decode("ascii", "replace").partition("/webrtc/rooms/")[2]
    room_id, separator, peer_id = whole.rpartition("/peers/")
    if not separator:
        return unquote(whole), None
    return unquote(room_id), unquote(peer_id)
