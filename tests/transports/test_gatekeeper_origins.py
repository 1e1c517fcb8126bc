"""Which web pages may use a server."""

from __future__ import annotations

import pytest

from rtcore import Refusal
from rtcore_transports import GateConfig, Gatekeeper, Visitor

REFUSED = Refusal(
    "origin_not_allowed", "pages of this origin may not use this server: see REALTIME_ALLOWED_ORIGINS", status=403
)


def check(origin: str | None, host: str | None, *allowed: str, scheme: str = "http") -> Refusal | None:
    gatekeeper = Gatekeeper(GateConfig(allowed_origins=allowed))
    headers = [(name, value.encode()) for name, value in ((b"origin", origin), (b"host", host)) if value is not None]
    return gatekeeper.check_origin(gatekeeper.visitor(tuple(headers), b"", "203.0.113.9", scheme))


@pytest.mark.parametrize("allowed", [(), ("https://other.example",)])
@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "example.com"),
        (None, None),
        ("http://example.com", "example.com"),
        ("http://example.com", "example.com:80"),
        ("http://example.com:8000", "example.com:8000"),
        ("http://example.com:8000", "EXAMPLE.com:8000"),
        ("http://example.com", "example.com."),
        ("http://example.com.", "example.com"),
        ("https://example.com", "example.com"),
        ("https://example.com", "example.com:443"),
        ("http://[2001:db8::1]:8000", "[2001:DB8:0::1]:8000"),
        ("http://under_score.example", "under_score.example"),
    ],
)
def test_pages_of_its_own_and_what_is_no_page(origin: str | None, host: str | None, allowed: tuple[str, ...]) -> None:
    assert check(origin, host, *allowed) is None


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://evil.example", "example.com"),
        ("http://example.com", None),
        ("http://example.com", ""),
        ("http://example.com:8000", "example.com"),
        ("http://example.com", "example.com:8000"),
        ("https://example.com", "example.com:80"),
        ("http://example.com.evil.example", "example.com"),
        ("http://evil-example.com", "example.com"),
        ("http://sub.example.com", "example.com"),
        ("http://example.com@evil.example", "example.com"),
        ("http://evil.example#example.com", "example.com"),
        ("http://evil.example/example.com", "example.com"),
        ("ftp://example.com", "example.com"),
        ("example.com", "example.com"),
        ("//example.com", "example.com"),
        ("", ""),
        ("null", "null"),
        ("http://*", "*"),
        ("http://[::1", "[::1"),
        ("http://[1.2.3.4]", "[1.2.3.4]"),
        ("http://example.com:", "example.com:"),
        ("http://example.com:123456", "example.com:123456"),
        ("http://exämple.com", "exämple.com"),
        ("http://example.com, http://evil.example", "example.com"),
        # A page of this machine uses only what it knows as this machine.
        ("http://localhost:3000", "example.com"),
        ("http://evil.example", "localhost:8000"),
        ("http://localhost.evil.example", "localhost:8000"),
        ("http://127.0.0.1.evil.example", "localhost:8000"),
        ("http://128.0.0.1", "127.0.0.1"),
    ],
)
def test_pages_of_others(origin: str, host: str | None) -> None:
    assert check(origin, host) == REFUSED


def test_a_page_that_came_in_the_clear_is_not_of_the_same_origin() -> None:
    assert check("http://example.com", "example.com", scheme="https") == REFUSED
    assert check("http://example.com", "example.com:80", scheme="wss") == REFUSED
    assert check("https://example.com", "example.com", scheme="wss") is None


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:3000",
        "https://localhost",
        "http://LOCALHOST.:1",
        "http://app.localhost:3000",
        "http://127.0.0.1:3000",
        "http://127.8.9.10",
        "http://[::1]:3000",
        "http://[::ffff:127.0.0.1]:3000",
        "http://[::ffff:7f00:1]",
    ],
)
@pytest.mark.parametrize("host", ["localhost:8000", "LocalHost.:8000", "127.0.0.1:8000", "[::1]:8000"])
def test_pages_of_this_machine(origin: str, host: str) -> None:
    assert check(origin, host) is None
    assert check(origin, host, "https://example.com") == REFUSED  # somebody has said who may


@pytest.mark.parametrize(
    ("pattern", "origin"),
    [
        ("https://example.com", "https://example.com"),
        ("https://example.com", "https://example.com:443"),
        ("https://example.com", "https://EXAMPLE.com."),
        ("https://example.com/", "https://example.com"),
        ("HTTPS://Example.com:443", "https://example.com"),
        ("http://example.com:8080", "http://example.com:8080"),
        ("http://localhost:*", "http://localhost:3000"),
        ("http://[::1]:3000", "http://[0:0::1]:3000"),
        ("https://*.example.com", "https://a.example.com"),
        ("https://*.example.com", "https://a.b.example.com"),
        ("https://*.example.com:8443", "https://a.example.com:8443"),
        ("*", "https://anything.example:1"),
        ("*", "chrome-extension://abcdefghijklmnop"),
        ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
        ("null", "null"),
    ],
)
def test_pages_that_may(pattern: str, origin: str) -> None:
    assert check(origin, "server.example", "https://first.example", pattern) is None


@pytest.mark.parametrize(
    ("pattern", "origin"),
    [
        ("https://example.com", "http://example.com"),
        ("https://example.com", "https://example.com:8443"),
        ("https://example.com", "https://example.com.evil.example"),
        ("https://*.example.com", "https://example.com"),
        ("https://*.example.com", "https://.example.com"),
        ("https://*.example.com", "https://evil-example.com"),
        ("https://*.example.com", "https://a.example.com.evil.example"),
        ("https://*.example.com", "http://a.example.com"),
        ("https://*.example.com", "https://a.example.com:8443"),
        ("https://*.example.com", "https://*.example.com"),
        ("*", "null"),
        ("*", "garbage"),
        ("null", "https://example.com"),
        ("null", "http://null"),
    ],
)
def test_pages_that_may_not(pattern: str, origin: str) -> None:
    assert check(origin, "server.example", pattern) == REFUSED


@pytest.mark.parametrize(
    "pattern", ["", "example.com", "https://", "https://a.*.com", "https://*", "https://exa*.com", "https://a/b", "**"]
)
def test_what_is_no_origin(pattern: str) -> None:
    with pytest.raises(ValueError, match="is not an origin"):
        GateConfig(allowed_origins=(pattern,))


def test_a_text_is_no_list_of_them() -> None:
    with pytest.raises(TypeError, match="in a list or a tuple"):
        GateConfig(allowed_origins="*")  # type: ignore[arg-type]


def test_two_headers_are_no_origin() -> None:
    gatekeeper = Gatekeeper(GateConfig(allowed_origins=("*",)))
    headers = ((b"origin", b"https://a.example"), (b"origin", b"https://b.example"))
    assert gatekeeper.check_origin(gatekeeper.visitor(headers, b"", None, "http")) == REFUSED


def test_what_a_browser_is_told() -> None:
    def told(config: GateConfig, *headers: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        gatekeeper = Gatekeeper(config)
        visitor: Visitor = gatekeeper.visitor(headers, b"", None, "https")
        return gatekeeper.cors_headers(visitor)

    origin = (b"origin", b"https://a.example")
    allowed = (b"access-control-allow-origin", b"https://a.example")
    assert told(GateConfig()) == []
    assert told(GateConfig(allowed_origins=("*",)), origin) == [allowed]
    assert told(GateConfig(allowed_origins=("https://a.example",), cookie="session"), origin) == [
        allowed,
        (b"access-control-allow-credentials", b"true"),
    ]
