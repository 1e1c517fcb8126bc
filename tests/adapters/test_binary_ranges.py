"""Which part of a file a request is for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore_adapters.ranges import Unsatisfiable, Validators, requested_range

UNSATISFIABLE = "unsatisfiable"
HUGE = "9" * 5000


@pytest.mark.parametrize(
    ("header", "part"),
    [
        # The examples of RFC 9110, section 14.1.2, of 10000 bytes.
        ("bytes=0-499", (0, 500)),
        ("bytes=500-999", (500, 1000)),
        ("bytes=-500", (9500, 10000)),
        ("bytes=9500-", (9500, 10000)),
        ("bytes=0-0", (0, 1)),
        ("bytes=0-", (0, 10000)),
        ("bytes=9999-", (9999, 10000)),
        ("bytes=9000-20000", (9000, 10000)),
        ("bytes=-20000", (0, 10000)),
        ("BYTES=0-1", (0, 2)),
        ("bytes= , 0-1 ,\t,", (0, 2)),
        ("bytes=0001-0002", (1, 3)),
        (f"bytes=0-{HUGE}", (0, 10000)),
        (f"bytes=-{HUGE}", (0, 10000)),
        (f"bytes={'0' * 5000}1-2", (1, 3)),
        # Behind the end.
        ("bytes=10000-", UNSATISFIABLE),
        ("bytes=10000-10001", UNSATISFIABLE),
        ("bytes=-0", UNSATISFIABLE),
        (f"bytes={HUGE}-", UNSATISFIABLE),
        # Several, malformed, or not of bytes: the whole.
        ("bytes=0-0,-1", None),
        ("bytes=0-0,20000-", None),
        ("bytes=2-1", None),
        ("bytes=-", None),
        ("bytes=", None),
        ("bytes", None),
        ("bytes 0-1", None),
        ("bytes=a-b", None),
        ("bytes=0-1-2", None),
        ("bytes=+0-1", None),
        ("bytes=٠-١", None),
        ("bytes=0 - 1", None),
        ("lines=0-1", None),
        ("", None),
    ],
)
def test_ranges(header: str, part: object) -> None:
    found = requested_range([header], 10_000)
    assert (UNSATISFIABLE if isinstance(found, Unsatisfiable) else found) == part


def test_none_and_several_headers() -> None:
    assert requested_range([], 10) is None
    assert requested_range(["bytes=0-1", "bytes=2-3"], 10) is None


@pytest.mark.parametrize("header", ["bytes=0-0", "bytes=-1", "bytes=0-"])
def test_of_nothing_there_is_no_part(header: str) -> None:
    assert requested_range([header], 0) is None


@given(st.integers(1, 50), st.integers(0, 60), st.one_of(st.none(), st.integers(0, 60)))
def test_a_part_is_never_outside(size: int, first: int, last: int | None) -> None:
    found = requested_range([f"bytes={first}-{'' if last is None else last}"], size)
    if isinstance(found, tuple):
        start, stop = found
        assert 0 <= start < stop <= size
        assert start == first
        assert stop == min(size, size if last is None else last + 1)
    else:
        assert (found is None) == (last is not None and last < first)


# What a client knows already

TAG = '"5f3a"'
# Sun, 06 Nov 1994 08:49:37 GMT, and half a second.
KNOWN = Validators(TAG, 784_111_777_500)


@pytest.mark.parametrize(
    ("header", "strongly", "weakly"),
    [
        (TAG, True, True),
        ("*", True, True),
        (' "other" ,"5f3a"', True, True),
        ('W/"5f3a"', False, True),
        ('"other"', False, False),
        ("5f3a", False, False),
        ("", False, False),
        ('"a,\\"', False, False),
    ],
)
def test_tags(header: str, strongly: bool, weakly: bool) -> None:
    assert KNOWN.is_among(header, weakly=False) is strongly
    assert KNOWN.is_among(header, weakly=True) is weakly


@pytest.mark.parametrize(
    ("date", "is_unchanged"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", True),
        ("Sunday, 06-Nov-94 08:49:37 GMT", True),
        ("Sun Nov  6 08:49:38 1994", True),
        ("Sun, 06 Nov 1994 08:49:36 GMT", False),
        ("yesterday", False),
        ("", False),
        ("Sun, 06 Nov 99999999999 08:49:37 GMT", False),
    ],
)
def test_dates(date: str, is_unchanged: bool) -> None:
    assert KNOWN.is_unchanged_since(date) is is_unchanged


@pytest.mark.parametrize(
    ("if_range", "is_allowed"),
    [
        (None, True),
        (TAG, True),
        ("Sun, 06 Nov 1994 08:49:37 GMT", True),
        ('W/"5f3a"', False),
        ('"other"', False),
        ("Sun, 06 Nov 1994 08:49:38 GMT", False),
        ("", False),
    ],
)
def test_another_part_of_what_one_has(if_range: str | None, is_allowed: bool) -> None:
    assert KNOWN.allow_range(if_range) is is_allowed
