"""``/metrics`` as Prometheus reads it, on every host."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rtcore_adapters import RealtimeApp, Settings
from rtcore_adapters.metrics import _FAMILIES, Exposition
from rtcore_adapters.settings import WebRtcSettings

from .hosting import Host

# What says what other counts say.
DERIVED = {"total_connections"}


def scrape(host: Host) -> dict[str, float]:
    response = host.http.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return values_of(response.text)


def values_of(text: str) -> dict[str, float]:
    return {
        sample.name + "".join(f":{value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_goes_on_is_counted(host: Host) -> None:
    before = scrape(host)
    with host.client("user_id=ann&channel=c") as ann, host.client("user_id=ann"), host.stream():
        host.post("/send", {"channel": "c", "data": 1})
        ann.hear_type("channel_message")
        ann.say({"type": "broadcast"})
        assert ann.hear()["code"] == "reserved_type"
        during = scrape(host)
    assert (during["rtcore_connections:websocket"], during["rtcore_connections:sse"]) == (2, 1)
    assert (during["rtcore_users"], during["rtcore_channels"]) == (1, 1)
    assert during["rtcore_history_bytes"] > 0

    def grown(name: str) -> float:
        return during[name] - before[name]

    assert grown("rtcore_connections_accepted_total") == 3
    assert grown("rtcore_messages_published_total") == 1
    assert grown("rtcore_messages_delivered_total") >= 1
    assert grown("rtcore_messages_refused_total") == 1


def test_rooms_are_counted(host: Host, room: str) -> None:
    with host.client(f"room_id={room}&peer_id=a", path="/webrtc/signaling"):
        during = scrape(host)
        assert (during["rtcore_webrtc_rooms"], during["rtcore_webrtc_peers"]) == (1, 1)
        assert "rtcore_webrtc_signals_total" in during
    host.http.delete(f"/webrtc/rooms/{room.replace('/', '%2F')}")


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2",
        "application/openmetrics-text;version=9.9.9-injected",
        "text/plain;version=x",
    ],
)
def test_nothing_of_the_request_is_in_the_header(host: Host, accept: str) -> None:
    response = host.http.get("/metrics", headers={"Accept": accept})
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_types_and_names() -> None:
    text = Exposition(RealtimeApp(Settings()).driver.stats).text().decode()
    families = list(text_string_to_metric_families(text))
    assert len(families) == len(_FAMILIES)
    for family in families:
        assert family.name.startswith("rtcore_")
        assert family.documentation.endswith(".")
        counts = family.type == "counter"
        assert [sample.name.endswith("_total") for sample in family.samples] == [counts] * len(family.samples)


@pytest.mark.parametrize("rooms", [True, False])
def test_every_count_is_a_metric(rooms: bool) -> None:
    """A new one of `Driver.stats` fails here until it is told, or is said to be derived."""
    stats = RealtimeApp(Settings(webrtc=WebRtcSettings(enabled=rooms))).driver.stats()
    known = {key for family in _FAMILIES for key in family.counts.values()}
    assert set(stats) - DERIVED <= known
    assert ("rtcore_webrtc_rooms" in values_of(Exposition(lambda: stats).text().decode())) == rooms


def test_each_count_goes_to_its_own_metric() -> None:
    keys = [key for family in _FAMILIES for key in family.counts.values()]
    stats: Mapping[str, object] = {key: number for number, key in enumerate(keys, 1)}
    values = values_of(Exposition(lambda: dict(stats)).text().decode())
    assert sorted(values.values()) == sorted(range(1, len(keys) + 1))
    assert values["rtcore_connections:websocket"] == stats["websocket_count"]
    assert values["rtcore_connections:sse"] == stats["sse_count"]
    assert values["rtcore_gaps_total"] == stats["gaps"]
    assert values["rtcore_backlog_bytes"] == stats["backlog_bytes"]
    assert values["rtcore_webrtc_signals_refused_total"] == stats["webrtc_refused_signals"]
