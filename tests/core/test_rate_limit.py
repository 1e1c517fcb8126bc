"""Token buckets: how much passes in which time."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.rate_limit import RateLimit, RateLimitConfig, RateLimiter, TokenBucket

RATES = st.floats(0.01, 1e9)
BURSTS = st.floats(1, 1e9)
STARTS = st.floats(0, 1e9)
PAUSES = st.just(0.0) | st.floats(0, 100)


def test_it_begins_full_and_fills_again() -> None:
    bucket = TokenBucket(2.0, 3.0, now=10.0)
    assert [bucket.take(1, now=10.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert bucket.take(1, now=10.25) == 0.25
    assert bucket.take(1, now=10.4999) == pytest.approx(0.0001)
    assert bucket.take(1, now=10.5) == 0.0
    assert bucket.take(1, now=10.5) == 0.5
    # However long the silence, not more than the burst is there.
    assert [bucket.take(1, now=1e6) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_what_is_refused_changes_nothing() -> None:
    bucket = TokenBucket(1.0, 10.0, now=0.0)
    assert bucket.take(8, now=0.0) == 0.0
    assert [bucket.take(5, now=0.0) for _ in range(3)] == [3.0, 3.0, 3.0]
    assert bucket.take(2, now=0.0) == 0.0
    assert bucket.take(5, now=4.0) == 1.0
    assert bucket.take(5, now=5.0) == 0.0


def test_asking_changes_nothing() -> None:
    bucket = TokenBucket(1.0, 2.0, now=0.0)
    assert [bucket.wait(2, now=0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert bucket.take(2, now=0.0) == 0.0
    assert bucket.wait(2, now=9.0) == 0.0
    assert bucket.wait(2, now=0.5) == 1.5


def test_more_than_the_burst_passes_when_it_is_full_and_leaves_a_debt() -> None:
    bucket = TokenBucket(10.0, 100.0, now=0.0)
    assert bucket.take(300, now=0.0) == 0.0
    assert bucket.take(1, now=0.0) == 20.1
    assert bucket.take(300, now=0.0) == 30.0
    assert bucket.take(0, now=0.0) == 20.0
    assert bucket.take(300, now=29.0) == 1.0
    assert bucket.take(300, now=30.0) == 0.0


def test_time_that_goes_back_is_time_that_stands_still() -> None:
    bucket = TokenBucket(1.0, 2.0, now=10.0)
    assert bucket.take(2, now=10.0) == 0.0
    assert bucket.take(1, now=3.0) == 1.0
    assert bucket.take(1, now=11.0) == 0.0
    assert bucket.take(0, now=3.0) == 0.0
    # Nor does it count twice when it comes back.
    assert bucket.take(1, now=11.0) == 1.0
    assert bucket.take(1, now=12.0) == 0.0


def test_when_it_is_as_good_as_new() -> None:
    bucket = TokenBucket(2.0, 10.0, now=5.0)
    assert bucket.full_at == 5.0
    assert bucket.take(4, now=6.0) == 0.0
    assert bucket.full_at == 8.0
    assert bucket.take(14, now=8.0) == 0.0
    assert bucket.full_at == 15.0


@given(RATES, BURSTS, STARTS, st.lists(st.tuples(PAUSES, st.floats(0, 2e9)), max_size=30))
def test_no_interval_has_more_than_it_may(
    rate: float, burst: float, start: float, asked: list[tuple[float, float]]
) -> None:
    bucket = TokenBucket(rate, burst, now=start)
    taken: list[tuple[float, float]] = []
    now = start
    for pause, amount in asked:
        now += pause
        if bucket.take(amount, now=now) == 0.0:
            taken.append((now, amount))
    for first in range(len(taken)):
        total, largest = 0.0, 0.0
        for now, amount in taken[first:]:
            total += amount
            largest = max(largest, amount)
            allowed = max(burst, largest) + rate * (now - taken[first][0])
            assert total <= allowed * (1 + 1e-8) + rate * 2e-6


@given(RATES, BURSTS, STARTS, st.lists(st.tuples(PAUSES, st.floats(0, 2e9)), min_size=1, max_size=10))
def test_who_waits_for_as_long_as_told_is_let_through(
    rate: float, burst: float, start: float, asked: list[tuple[float, float]]
) -> None:
    bucket = TokenBucket(rate, burst, now=start)
    now = start
    for pause, amount in asked:
        now += pause
        wait = bucket.take(amount, now=now)
        assert 0 <= wait < inf
        if now + wait > 2**33:  # in some 270 years, where the next float is more than a microsecond away
            return
        if wait:
            if wait > 1e-3 and wait * rate > 1:  # and not sooner
                assert bucket.wait(amount, now=now + wait / 2) > 0
            now += wait
            assert bucket.take(amount, now=now) == 0.0


@given(RATES, BURSTS, st.lists(st.tuples(PAUSES, st.floats(0, 1e9)), max_size=10))
def test_what_is_as_good_as_new_behaves_so(rate: float, burst: float, asked: list[tuple[float, float]]) -> None:
    bucket = TokenBucket(rate, burst, now=0.0)
    now = 0.0
    for pause, amount in asked:
        now += pause
        bucket.take(amount, now=now)
    later = max(now, bucket.full_at)
    assert bucket.take(burst, now=later) == 0.0
    assert bucket.wait(burst, now=later) == pytest.approx(burst / rate, rel=1e-5, abs=1e-5)


def test_no_limit() -> None:
    limiter = RateLimiter(RateLimit(), now=0.0)
    assert [limiter.admit(2**30, now=0.0) for _ in range(100)] == [0.0] * 100
    assert limiter.full_at == -inf


def test_a_limit_of_messages() -> None:
    limiter = RateLimiter(RateLimit(messages=0.5, message_burst=2), now=0.0)
    assert [limiter.admit(2**30, now=0.0) for _ in range(3)] == [0.0, 0.0, 2.0]
    assert limiter.full_at == 4.0
    assert limiter.admit(0, now=2.0) == 0.0


def test_a_limit_of_bytes() -> None:
    limiter = RateLimiter(RateLimit(bytes=100.0, byte_burst=300), now=0.0)
    assert [limiter.admit(200, now=0.0), limiter.admit(200, now=0.0)] == [0.0, 1.0]
    assert [limiter.admit(0, now=0.0) for _ in range(1000)] == [0.0] * 1000
    assert limiter.full_at == 2.0
    # The largest message passes in the end.
    assert limiter.admit(2**20, now=1.0) == 1.0
    assert limiter.admit(2**20, now=2.0) == 0.0


def test_both_or_neither() -> None:
    limiter = RateLimiter(RateLimit(messages=1.0, message_burst=2, bytes=10.0, byte_burst=100), now=0.0)
    assert limiter.admit(60, now=0.0) == 0.0
    # The bytes are missing: no message is counted ...
    assert [limiter.admit(60, now=0.0) for _ in range(5)] == [2.0] * 5
    assert [limiter.wait(40, now=0.0) for _ in range(5)] == [0.0] * 5
    assert limiter.admit(40, now=0.0) == 0.0
    # ... then the message is missing, and the bytes wait less long: none are counted.
    assert [limiter.admit(5, now=0.0) for _ in range(5)] == [1.0] * 5
    assert limiter.full_at == 10.0
    assert limiter.admit(10, now=1.0) == 0.0
    assert limiter.full_at == 11.0


def test_a_burst_is_two_seconds_unless_said_otherwise() -> None:
    limiter = RateLimiter(RateLimit(messages=1.2, bytes=10.0), now=0.0)
    assert [limiter.admit(1, now=0.0) for _ in range(4)] == [0.0] * 3 + [pytest.approx(1 / 1.2)]
    limiter = RateLimiter(RateLimit(messages=0.1), now=0.0)
    assert [limiter.admit(1, now=0.0) for _ in range(2)] == [0.0, pytest.approx(10)]
    limiter = RateLimiter(RateLimit(bytes=10.0), now=0.0)
    assert [limiter.admit(20, now=0.0), limiter.admit(1, now=0.0)] == [0.0, pytest.approx(0.1)]


def test_configs() -> None:
    config = RateLimitConfig()
    assert (config.connection, config.user, config.warnings) == (None, None, 5)
    assert RateLimit() == RateLimit(messages=None, message_burst=None, bytes=None, byte_burst=None)
    assert RateLimitConfig(warnings=0).warnings == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("messages", 0),
        ("messages", -1.0),
        ("messages", nan),
        ("messages", inf),
        ("bytes", 0.0),
        ("bytes", inf),
        ("message_burst", 0),
        ("byte_burst", 0),
    ],
)
def test_a_value_out_of_its_range(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^'{field}' must be"):
        RateLimit(**{field: value})  # type: ignore[arg-type]


def test_warnings_are_not_negative() -> None:
    with pytest.raises(ValueError, match="'warnings'"):
        RateLimitConfig(warnings=-1)
