"""From where a client comes, and who is on this machine."""

from __future__ import annotations

from typing import Final

import pytest

from rtcore_transports import GateConfig, Gatekeeper, Visitor

PROXIES: Final = ("10.0.0.0/8", "127.0.0.0/8", "2001:db8:1::/48")


def visit(peer: str | None, *headers: tuple[str, str], host: str = "localhost", trusted: bool = True) -> Visitor:
    gatekeeper = Gatekeeper(GateConfig(trusted_proxies=PROXIES if trusted else ()))
    fields = [(b"host", host.encode())] + [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    return gatekeeper.visitor(tuple(fields), b"", peer, "ws")


def forwarded(value: str) -> tuple[str, str]:
    return ("Forwarded", value)


def xff(value: str) -> tuple[str, str]:
    return ("X-Forwarded-For", value)


@pytest.mark.parametrize(
    ("peer", "address", "counts_as"),
    [
        ("203.0.113.9", "203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9", "203.0.113.9"),
        ("2001:db8:2:3:4:5:6:7", "2001:db8:2:3:4:5:6:7", "2001:db8:2:3::/64"),
        ("fe80::1%eth0", "fe80::1", "fe80::/64"),
        ("::1", "::1", "::/64"),
        (None, None, None),
        ("", None, None),
        ("testclient", None, None),
        ("/run/rtcore.sock", None, None),
    ],
)
def test_the_peer(peer: str | None, address: str | None, counts_as: str | None) -> None:
    visitor = visit(peer)
    assert (visitor.address, visitor.counts_as) == (address, counts_as)


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ([xff("198.51.100.7")], "198.51.100.7"),
        ([xff("198.51.100.7:4711")], "198.51.100.7"),
        ([xff("2001:db8:9::1")], "2001:db8:9::1"),
        ([xff("[2001:db8:9::1]:4711")], "2001:db8:9::1"),
        ([xff("::ffff:198.51.100.7")], "198.51.100.7"),
        # What the client has written itself stands before.
        ([xff("127.0.0.1, 198.51.100.7")], "198.51.100.7"),
        ([xff("127.0.0.1"), xff("198.51.100.7")], "198.51.100.7"),
        ([xff("garbage, 198.51.100.7")], "198.51.100.7"),
        ([xff(",,198.51.100.7,")], "198.51.100.7"),
        # Several proxies.
        ([xff("127.0.0.1, 198.51.100.7, 10.1.2.3")], "198.51.100.7"),
        ([xff("198.51.100.7, 10.1.2.3, 127.0.0.9")], "198.51.100.7"),
        ([xff("198.51.100.7, 192.0.2.1, 10.1.2.3")], "192.0.2.1"),
        ([xff("198.51.100.7, ::ffff:10.1.2.3")], "198.51.100.7"),
        ([xff("10.9.9.9, 10.1.2.3")], "10.9.9.9"),
        ([forwarded("for=198.51.100.7")], "198.51.100.7"),
        ([forwarded("For=198.51.100.7;proto=https;by=10.0.0.1")], "198.51.100.7"),
        ([forwarded('proto=https;for="198.51.100.7:4711"')], "198.51.100.7"),
        ([forwarded('for="[2001:db8:9::1]:4711"')], "2001:db8:9::1"),
        ([forwarded('for="[2001:db8:9::1]"')], "2001:db8:9::1"),
        ([forwarded("for=127.0.0.1, for=198.51.100.7")], "198.51.100.7"),
        ([forwarded("for=127.0.0.1"), forwarded("for=198.51.100.7;by=x, for=10.1.2.3")], "198.51.100.7"),
        ([forwarded('for="127.0.0.1, for=1.2.3.4", for=198.51.100.7')], "198.51.100.7"),
        ([forwarded('for=unknown, for="_hidden", for=198.51.100.7')], "198.51.100.7"),
        ([forwarded("for=198.51.100.7"), xff("198.51.100.7")], "198.51.100.7"),
        ([("X-Real-IP", "1.2.3.4"), xff("198.51.100.7")], "198.51.100.7"),
    ],
)
@pytest.mark.parametrize("peer", ["127.0.0.1", "10.0.0.1", "::ffff:10.0.0.1", "2001:db8:1::1"])
def test_what_a_trusted_proxy_says(peer: str, headers: list[tuple[str, str]], address: str) -> None:
    visitor = visit(peer, *headers)
    assert visitor.address == address
    assert not visitor.local


@pytest.mark.parametrize(
    "headers",
    [
        [xff("garbage")],
        [xff("198.51.100.7, unknown")],
        [xff("198.51.100.7, 10.1.2.3.4")],
        [xff("198.51.100.7 10.1.2.3")],
        [xff("198.51.100.7:123456")],
        [xff("[198.51.100.7")],
        [xff("unknown, 10.1.2.3")],
        [forwarded("for=unknown")],
        [forwarded("for=_secret")],
        [forwarded("proto=https")],
        [forwarded("")],
        [forwarded('for="127.0.0.1, for=198.51.100.7')],
        [forwarded('for=127.0.0.1;x", for=198.51.100.7')],
        [forwarded("for=198.51.100.7;garbage")],
        [forwarded("for=127.0.0.1 for=198.51.100.7")],
        [forwarded('for="198.51.100.7"x')],
        # One of the two the proxy has passed on as it came.
        [forwarded("for=127.0.0.1"), xff("198.51.100.7")],
        [forwarded("for=198.51.100.7"), xff("127.0.0.1")],
        [forwarded("for=198.51.100.7"), xff("garbage")],
        [forwarded("garbage"), xff("198.51.100.7")],
    ],
)
def test_a_proxy_that_does_not_tell(headers: list[tuple[str, str]]) -> None:
    visitor = visit("127.0.0.1", *headers)
    assert visitor.address == "127.0.0.1"
    assert not visitor.local


@pytest.mark.parametrize("headers", [[], [xff("127.0.0.1")], [forwarded("for=127.0.0.1")], [xff("198.51.100.7")]])
def test_nobody_else_is_believed(headers: list[tuple[str, str]]) -> None:
    visitor = visit("203.0.113.9", *headers)
    assert visitor.address == "203.0.113.9"
    assert not visitor.local


def test_a_long_chain_is_read_from_its_end() -> None:
    assert visit("10.0.0.1", xff("198.51.100.7," + "10.0.0.1," * 60 + "10.0.0.2")).address == "10.0.0.1"


# Who is on this machine


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.:80", "127.0.0.1:8000", "[::1]:8000", "x.localhost"])
@pytest.mark.parametrize("peer", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("trusted", [True, False])
def test_who_is_on_this_machine(peer: str, host: str, trusted: bool) -> None:
    assert visit(peer, host=host, trusted=trusted).local


@pytest.mark.parametrize(
    "host", ["example.com", "127.0.0.1.example.com", "localhost.example.com", "128.0.0.1", "", ":"]
)
def test_a_page_whose_name_leads_here_is_not_of_this_machine(host: str) -> None:
    """A page of ``example.com``, whose owner says that this is 127.0.0.1, sends no foreign ``Origin``."""
    assert not visit("127.0.0.1", host=host).local


@pytest.mark.parametrize(
    "header",
    [
        xff("127.0.0.1"),
        forwarded("for=127.0.0.1"),
        ("X-Real-IP", "127.0.0.1"),
        ("Via", "1.1 proxy"),
        ("X-Forwarded-Host", "x"),
    ],
)
def test_who_comes_through_a_proxy_may_be_anywhere(header: tuple[str, str]) -> None:
    assert not visit("127.0.0.1", header, trusted=False).local


def test_who_comes_through_a_trusted_proxy_from_this_machine() -> None:
    assert visit("127.0.0.1", xff("127.0.0.1")).local
    assert visit("10.0.0.1", xff("127.0.0.1")).local
    assert not visit("127.0.0.1", ("Via", "1.1 proxy")).local  # it does not say for whom


# By what scheme


@pytest.mark.parametrize(
    ("headers", "peer", "scheme", "seen"),
    [
        ([], "203.0.113.9", "ws", "http"),
        ([], "203.0.113.9", "wss", "https"),
        ([], "203.0.113.9", "https", "https"),
        ([("X-Forwarded-Proto", "https")], "203.0.113.9", "http", "http"),
        ([("X-Forwarded-Proto", "https")], "10.0.0.1", "http", "https"),
        ([("X-Forwarded-Proto", "http, HTTPS")], "10.0.0.1", "http", "https"),
        ([("X-Forwarded-Proto", "http")], "10.0.0.1", "https", "http"),
        ([("X-Forwarded-Proto", "gopher")], "10.0.0.1", "https", "https"),
        ([("Forwarded", "for=1.2.3.4;proto=https")], "10.0.0.1", "http", "https"),
    ],
)
def test_the_scheme(headers: list[tuple[str, str]], peer: str, scheme: str, seen: str) -> None:
    gatekeeper = Gatekeeper(GateConfig(trusted_proxies=PROXIES))
    fields = tuple((name.lower().encode(), value.encode()) for name, value in headers)
    assert gatekeeper.visitor(fields, b"", peer, scheme).scheme == seen


def test_what_is_no_network() -> None:
    with pytest.raises(ValueError, match="proxy"):
        GateConfig(trusted_proxies=("proxy",))
