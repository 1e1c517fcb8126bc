"""The counts of a server as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import attrs
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from rtcore import Message

__all__ = ["CONTENT_TYPE", "Exposition"]

#: Of the text format that every Prometheus reads. What a client prefers is not asked: the library would repeat the
#: version that it names in our header.
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_TRANSPORT: Final = "transport"


@attrs.frozen
class _Family:
    """One metric: its name, what it is, and from which of the counts it comes, by label or without one."""

    name: str
    help: str
    counts: dict[str, str]
    label: str | None = None
    is_counter: bool = False

    def collect(self, stats: Message) -> Metric | None:
        """Return it as it is now, or ``None`` where the server has nothing of the kind."""
        present = {value: number for value, key in self.counts.items() if isinstance(number := stats.get(key), int)}
        if not present:
            return None
        labels = [] if self.label is None else [self.label]
        kind = CounterMetricFamily if self.is_counter else GaugeMetricFamily
        metric: CounterMetricFamily | GaugeMetricFamily = kind(self.name, self.help, labels=labels)
        for value, number in present.items():
            metric.add_metric([value] if labels else [], number)
        return metric


def _gauge(name: str, key: str, help: str) -> _Family:
    return _Family(name, help, {"": key})


def _counter(name: str, key: str, help: str) -> _Family:
    return _Family(name, help, {"": key}, is_counter=True)


# Prometheus adds ``_total`` to the names of counters.
_FAMILIES: Final = (
    _Family(
        "rtcore_connections",
        "Open connections, by transport.",
        {"websocket": "websocket_count", "sse": "sse_count"},
        label=_TRANSPORT,
    ),
    _gauge("rtcore_users", "unique_users", "Users who are connected."),
    _gauge("rtcore_channels", "active_channels", "Channels in use."),
    _gauge("rtcore_history_bytes", "history_bytes", "Bytes that the histories of all channels keep."),
    _gauge("rtcore_backlog_bytes", "backlog_bytes", "Bytes of JSON that wait for connections that read slowly."),
    _counter("rtcore_connections_accepted", "accepted_connections", "Connections taken so far."),
    _counter("rtcore_messages_published", "published_messages", "Publications so far."),
    _counter("rtcore_messages_refused", "refused_messages", "Messages of clients that were answered with an error."),
    _counter("rtcore_messages_delivered", "deliveries", "Deliveries so far: messages times receivers."),
    _counter("rtcore_messages_dropped", "dropped_messages", "Messages dropped for connections that read slowly."),
    _counter("rtcore_gaps", "gaps", "Gaps announced to connections that read slowly."),
    _counter("rtcore_slow_disconnects", "slow_disconnects", "Connections ended because they read too slowly."),
    _gauge("rtcore_uploads_open", "uploads", "Files that come in over WebSockets now."),
    _counter("rtcore_uploads", "uploads_total", "Files that have begun to come in over WebSockets so far."),
    _counter("rtcore_uploads_failed", "uploads_failed", "Files that failed to come in over WebSockets."),
    _counter("rtcore_upload_bytes", "upload_bytes", "Bytes of files received over WebSockets so far."),
    _gauge("rtcore_files", "files", "Files that are kept."),
    _gauge("rtcore_file_bytes", "file_bytes", "Bytes of the files that are kept."),
    _gauge("rtcore_webrtc_rooms", "webrtc_rooms", "Rooms that exist."),
    _gauge("rtcore_webrtc_peers", "webrtc_peers", "Peers in all rooms."),
    _counter("rtcore_webrtc_signals", "webrtc_signals", "Signals passed on between peers."),
    _counter("rtcore_webrtc_signals_refused", "webrtc_refused_signals", "Signals that were not passed on."),
)


class Exposition:
    """Reads the counts anew for each scrape; the registry of the process, where others have theirs, is left alone.

    Args:
        stats: Returns the counts, see `rtcore_transports.Driver.stats`.
    """

    def __init__(self, stats: Callable[[], Message]) -> None:
        self._stats = stats
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Return all metrics as they are now; the registry asks for them."""
        stats = self._stats()
        for family in _FAMILIES:
            if (metric := family.collect(stats)) is not None:
                yield metric

    def text(self) -> bytes:
        """Return them in the text format of `CONTENT_TYPE`."""
        return generate_latest(self._registry)
