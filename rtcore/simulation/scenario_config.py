"""The limits and times of a scenario: short ones, so that everything that they stand for happens in it."""

from __future__ import annotations

from typing import Final

import attrs

from rtcore.client import ClientConfig
from rtcore.event_source import EventSourceConfig
from rtcore.namespaces import Namespace, Namespaces, SlowConsumer
from rtcore.node import NodeConfig
from rtcore.rate_limit import RateLimit, RateLimitConfig
from rtcore.router import RouterConfig
from rtcore.websocket import WebSocketConfig

from .choices import Choices
from .server import ServerConfig

__all__ = ["CLIENT", "EVENT_SOURCE", "REFRESHING", "WEBSOCKET", "draw_server"]

#: Those of clients on WebSockets.
CLIENT: Final = ClientConfig(backoff_base=0.2, backoff_cap=2.0, connect_timeout=5.0, command_timeout=8.0, queue_size=50)
#: Those of such clients that have another token whenever they need one.
REFRESHING: Final = attrs.evolve(CLIENT, refreshes=True, refresh_margin=3.0)
#: Those of WebSockets, on both sides.
WEBSOCKET: Final = WebSocketConfig(ping_interval=4.0, pong_timeout=4.0, close_timeout=2.0, handshake_timeout=5.0)
#: Those of clients on event streams.
EVENT_SOURCE: Final = EventSourceConfig(retry=0.3, backoff=0.3, max_backoff=2.0, connect_timeout=5.0, idle_timeout=12.0)

_SLOWLY: Final = RateLimit(messages=4.0, message_burst=20)
_RATE_LIMITS: Final = (
    (4, RateLimitConfig()),
    (1, RateLimitConfig(connection=_SLOWLY, warnings=2)),
    (1, RateLimitConfig(connection=_SLOWLY, user=RateLimit(messages=5.0, message_burst=25), warnings=1)),
    (1, RateLimitConfig(user=RateLimit(bytes=600.0, byte_burst=4000), warnings=2)),
)


def draw_server(choices: Choices) -> ServerConfig:
    """Return the limits and times of all servers."""
    size = choices.pick((8, 2, 4, 0))
    ttl = choices.pick((20.0, 4.0))
    common = Namespace(pattern="*", history_size=size, history_ttl=ttl, presence_grace=1.0)
    namespaces = Namespaces(
        (
            attrs.evolve(common, pattern="feed:*", slow_consumer=SlowConsumer.DROP_OLDEST, persistent_size=2),
            attrs.evolve(common, pattern="price:*", slow_consumer=SlowConsumer.LATEST, persistent_size=0),
            attrs.evolve(common, pattern="state:*", last_value=True),
        ),
        attrs.evolve(common, persistent_size=choices.pick((2, 0, 4))),
    )
    return ServerConfig(
        node=NodeConfig(
            websocket_heartbeat=5.0,
            sse_heartbeat=5.0,
            retry_after=1,
            max_message_size=4096,
            rate_limits=choices.weighted(_RATE_LIMITS),
            router=RouterConfig(namespaces=namespaces, idle_timeout=10.0, idempotency_window=15.0),
        ),
        websocket=WEBSOCKET,
        retry=300,
        max_backlog=choices.pick((8000, 1500)),
        max_waiting=choices.pick((40, 6)),
    )
