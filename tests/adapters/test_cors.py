"""Pages of other origins on every host: which may use the HTTP API, and what browsers are told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from rtcore_adapters import Settings
from rtcore_adapters.settings import RealtimeSettings, WsSettings

from .clients import error_code, read_response
from .hosting import HOSTS, Host, HostKind, ask, run_host

OURS = "https://app.example.org"
SECRET = "a-secret-of-at-least-thirty-two-characters"


@pytest.fixture(scope="module", params=HOSTS, ids=str)
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """Run a host for the pages of one origin, and those below another."""
    kind: HostKind = request.param
    realtime = RealtimeSettings(allowed_origins=(OURS, "https://*.example.net"))
    with run_host(kind, Settings(realtime=realtime)) as running:
        yield running


def preflight(host: Host, path: str, origin: str, **headers: str) -> httpx2.Response:
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST", **headers}
    return host.http.request("OPTIONS", path, headers=asked)


@pytest.mark.parametrize("origin", [OURS, "https://one.example.net"])
@pytest.mark.parametrize("path", ["/send", "/nothing", "/webrtc/rooms/a", "/events"])
def test_a_preflight(host: Host, path: str, origin: str) -> None:
    response = preflight(host, path, origin, **{"Access-Control-Request-Headers": "authorization, x-api-key"})
    assert response.status_code == 204
    assert response.content == b""
    headers = response.headers
    assert headers["access-control-allow-origin"] == origin
    assert headers["access-control-allow-methods"] == "GET, HEAD, POST, PUT, DELETE"
    allowed = headers["access-control-allow-headers"].lower().split(", ")
    of_files = {"if-none-match", "if-range", "range"}
    assert set(allowed) == {"authorization", "content-type", "last-event-id", "x-api-key"} | of_files
    assert int(headers["access-control-max-age"]) > 0
    assert "origin" in vary(response)
    assert "access-control-allow-credentials" not in headers


REFUSED = [
    "https://app.example.org.evil.example",
    "http://app.example.org",
    "https://app.example.org:8443",
    "https://example.net",
    "https://evilexample.net",
    "https://app.example.org, https://evil.example",
    "https://evil.example/https://app.example.org",
    "null",
    "",
    "garbage",
    "https://app.example.org\t",
]


@pytest.mark.parametrize("origin", REFUSED[:-1])
def test_a_page_of_an_origin_that_is_not_allowed_does_nothing(host: Host, origin: str) -> None:
    before = host.http.get("/stats").json()["published_messages"]
    for response in (
        preflight(host, "/send", origin),
        host.http.post("/send", json={"channel": "a", "data": 1}, headers={"Origin": origin}),
        host.http.post("/broadcast", content=b"{}", headers={"Origin": origin, "Content-Type": "text/plain"}),
        host.http.post("/webrtc/rooms", headers={"Origin": origin}),
        host.http.get("/health", headers={"Origin": origin}),
        host.http.get("/nothing", headers={"Origin": origin}),
        host.http.get("/events", headers={"Origin": origin}),
    ):
        assert (response.status_code, response.json()["error"]["code"]) == (403, "origin_not_allowed")
        assert "access-control-allow-origin" not in response.headers
    assert host.http.get("/stats").json()["published_messages"] == before
    assert host.http.get("/webrtc/rooms").json() == {"rooms": []}


def test_two_origins_are_none(host: Host) -> None:
    request = f"GET {host.prefix}/stats HTTP/1.1\r\nHost: localhost\r\nOrigin: {OURS}\r\nOrigin: {OURS}\r\n\r\n"
    with host.connect() as sock:
        sock.sendall(request.encode())
        status, head, body = read_response(sock)
    assert (status, error_code(body)) == (403, "origin_not_allowed")
    assert b"access-control-allow-origin" not in head.lower()


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/send", {"channel": "a", "data": 1}, 200),
        ("POST", "/send", {"data": 1}, 422),
        ("GET", "/stats", None, 200),
        ("GET", "/nothing", None, 404),
        ("GET", "/send", None, 405),
        ("HEAD", "/health", None, 200),
    ],
)
def test_a_page_of_an_allowed_origin_reads_the_answer(
    host: Host, method: str, path: str, body: object, status: int
) -> None:
    response = host.http.request(method, path, json=body, headers={"Origin": OURS})
    assert response.status_code == status
    assert response.headers.get_list("access-control-allow-origin") == [OURS]
    assert "retry-after" in response.headers["access-control-expose-headers"].lower()
    assert "origin" in vary(response)


def test_an_event_stream_of_an_allowed_origin(host: Host) -> None:
    with host.http.stream("GET", "/events", headers={"Origin": OURS}) as response:
        assert response.status_code == 200
        assert response.headers.get_list("access-control-allow-origin") == [OURS]
        assert "origin" in vary(response)


@pytest.mark.parametrize("path", ["/health", "/nothing", "/send"])
def test_without_an_origin_a_cache_is_told_that_it_matters(host: Host, path: str) -> None:
    response = host.http.get(path)
    assert "origin" in vary(response)
    assert not [name for name in response.headers if name.startswith("access-control-")]


def test_a_page_of_the_server_itself(host: Host) -> None:
    own = f"http://127.0.0.1:{host.port}"
    response = host.http.post("/send", json={"channel": "a", "data": 1}, headers={"Origin": own})
    assert response.status_code == 200


def test_options_that_are_no_preflight(host: Host) -> None:
    for headers in ({}, {"Origin": OURS}, {"Access-Control-Request-Method": "POST"}):
        response = host.http.request("OPTIONS", "/send", headers=headers)
        assert response.status_code == 405
        assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("kind", HOSTS[:4:3], ids=str)
def test_a_name_that_leads_here_makes_nobody_an_operator(kind: HostKind) -> None:
    """DNS rebinding: to the browser the page and the server are of one origin, and so no Origin tells of it."""
    with run_host(kind, Settings()) as host:
        for path in ("/connections", "/stats", "/metrics"):
            request = f"GET {host.prefix}{path} HTTP/1.1\r\nHost: evil.example:{host.port}\r\nConnection: close\r\n\r\n"
            status, _, body = ask(host, request.encode())
            assert (status, error_code(body)) == (403, "admin_required")


@pytest.mark.parametrize("kind", HOSTS[:1] + HOSTS[3:], ids=str)
@pytest.mark.parametrize(
    ("settings", "credentials"),
    [
        ({"realtime": RealtimeSettings(allowed_origins=("*",))}, None),
        (
            {
                "realtime": RealtimeSettings(allowed_origins=(OURS,)),
                "ws": WsSettings(jwt_secret_key=SECRET, cookie="session"),
            },
            "true",
        ),
    ],
)
def test_cookies_go_with_named_origins_alone(kind: HostKind, settings: dict[str, Any], credentials: str | None) -> None:
    with run_host(kind, Settings(**settings)) as host:
        for response in (
            host.http.get("/health", headers={"Origin": OURS}),
            preflight(host, "/send", OURS),
        ):
            assert response.headers.get("access-control-allow-credentials") == credentials
            assert response.headers["access-control-allow-origin"] == OURS
        if credentials is None:
            assert host.http.get("/health", headers={"Origin": "https://anybody.example"}).status_code == 200


def vary(response: httpx2.Response) -> set[str]:
    """Return the headers that an answer depends on."""
    return {name.strip().lower() for line in response.headers.get_list("vary") for name in line.split(",")}


def test_the_answer_to_a_page_has_the_one_shape(host: Host) -> None:
    response = host.http.post("/send", json={}, headers={"Origin": "https://evil.example"})
    assert list(json.loads(response.content)) == ["error"]
