"""One peer's half of perfect negotiation: losses, failures, and connections that are built anew."""

from __future__ import annotations

from typing import Any

import pytest

from rtcore.signaling.negotiation import Negotiation
from rtcore.signaling.negotiation_config import NegotiationConfig, Phase
from rtcore.signaling.peer_connection import (
    IceState,
    LocalDescriptionSet,
    NegotiationNeeded,
    OperationFailed,
    RemoteDescriptionSet,
    RolledBack,
)

from .negotiation_talk import (
    MAKE,
    RESTART,
    ROLL_BACK,
    answer,
    built,
    negotiation,
    offer,
    report,
    said,
    sdp,
    sent,
    set_offer,
)


def rebuilt(build: int) -> list[Any]:
    return [sent("bye", build=build), built(build)]


# Losses


def test_resync_leaves_alone_what_is_connected() -> None:
    pair = negotiation()
    answer(pair)
    report(pair, IceState.COMPLETED)
    assert pair.resync(polite=True) == []


def test_resync_leaves_alone_what_has_not_begun() -> None:
    assert negotiation().resync(polite=True) == []


def test_resync_says_again_that_a_connection_is_another() -> None:
    pair = negotiation(build=2)
    assert pair.start() == rebuilt(2)
    assert pair.resync(polite=True) == [sent("bye", build=2)]


def test_resync_restarts_ice_that_is_not_connected() -> None:
    pair = negotiation()
    answer(pair)
    assert pair.resync(polite=True) == [RESTART, MAKE]


def test_resync_offers_anew_under_another_name() -> None:
    pair = negotiation()
    offer(pair)
    assert pair.resync(polite=True) == [ROLL_BACK]
    assert pair.phase is Phase.ROLLING_BACK
    assert pair.handle(RolledBack(0), now=0.0) == [RESTART, MAKE]
    made = pair.handle(LocalDescriptionSet(0, "offer", sdp("c")), now=0.0)
    assert made == [sent("offer", sdp=sdp("c"), negotiation="e.2")]


def test_resync_offers_anew_without_a_restart_if_it_is_connected() -> None:
    pair = negotiation()
    answer(pair)
    report(pair, IceState.CONNECTED)
    offer(pair)
    assert pair.resync(polite=True) == [ROLL_BACK]
    assert pair.handle(RolledBack(0), now=0.0) == [MAKE]


def test_resync_lets_an_operation_end_first() -> None:
    pair = negotiation()
    pair.handle(NegotiationNeeded(0), now=0.0)
    assert pair.resync(polite=True) == []
    assert pair.handle(LocalDescriptionSet(0, "offer", sdp("a")), now=0.0) != []


@pytest.mark.parametrize("polite", [False, True])
def test_offer_that_meets_one_that_is_rolled_back(polite: bool) -> None:
    pair = negotiation()
    offer(pair)
    # Who gives way may have changed: the server says so with what is missing.
    pair.resync(polite=polite)
    assert pair.receive(said("offer", negotiation="n", sdp=sdp("b"))) == []
    follows = [set_offer("b")] if polite else [RESTART, MAKE]
    assert pair.handle(RolledBack(0), now=0.0) == follows


@pytest.mark.parametrize(("fragment", "follows"), [("b", [RESTART, MAKE]), ("c", [])])
def test_restart_that_has_given_way_is_made_up_for(fragment: str, follows: list[Any]) -> None:
    pair = negotiation()
    answer(pair, fragment="b")
    pair.resync(polite=True)
    pair.handle(LocalDescriptionSet(0, "offer", sdp("d")), now=0.0)
    pair.receive(said("offer", negotiation="m", sdp=sdp(fragment)))
    pair.handle(RemoteDescriptionSet(0), now=0.0)
    done = pair.handle(LocalDescriptionSet(0, "answer", sdp("a")), now=0.0)
    assert done == [sent("answer", sdp=sdp("a"), negotiation="m"), *follows]


def test_restart_by_the_other_side_is_not_connected_until_it_is_reported() -> None:
    pair = negotiation()
    answer(pair, "n", "b")
    report(pair, IceState.CONNECTED)
    answer(pair, "m", "b")
    assert pair.connected
    answer(pair, "o", "c")
    assert not pair.connected


# Failures


def test_failed_ice_is_restarted_and_then_built_anew() -> None:
    config = NegotiationConfig(restart_interval=2.0, max_interval=3.0, max_restarts=2)
    pair = negotiation(config=config)
    answer(pair)
    assert report(pair, IceState.FAILED, now=10.0) == [RESTART, MAKE]
    assert pair.next_timeout() == 12.0
    pair.handle(LocalDescriptionSet(0, "offer", sdp("c")), now=10.0)
    assert report(pair, IceState.FAILED, now=11.0) == []
    assert pair.handle_timeout(now=11.9) == []
    # The offer was not answered yet: the next one follows when it was.
    assert pair.handle_timeout(now=12.0) == []
    assert pair.next_timeout() == 15.0
    assert pair.handle_timeout(now=15.0) == rebuilt(1)
    assert pair.next_timeout() is None
    assert pair.handle(OperationFailed(0), now=15.0) == []
    assert report(pair, IceState.FAILED, now=16.0) == []
    assert pair.next_timeout() == 19.0


@pytest.mark.parametrize("offering", [False, True])
def test_ice_that_does_not_get_anywhere_is_restarted(offering: bool) -> None:
    pair = negotiation(config=NegotiationConfig(connect_timeout=5.0))
    if offering:
        offer(pair)
        pair.receive(said("answer", negotiation="e.1", sdp=sdp("b")))
        pair.handle(RemoteDescriptionSet(0), now=0.0)
    else:
        answer(pair)
    assert pair.next_timeout() == 5.0
    assert pair.handle_timeout(now=5.0) == [RESTART, MAKE]
    assert pair.next_timeout() == 13.0


def test_ice_may_take_for_ever() -> None:
    pair = negotiation(config=NegotiationConfig(connect_timeout=None))
    answer(pair)
    assert pair.next_timeout() is None
    offer(pair)
    assert pair.next_timeout() is None


def offered_until(pair: Negotiation, now: float) -> float | None:
    pair.handle(LocalDescriptionSet(0, "offer", sdp("a")), now=now)
    return pair.next_timeout()


def test_offer_without_an_answer_is_made_anew_and_waits_longer_each_time() -> None:
    pair = negotiation(config=NegotiationConfig(connect_timeout=5.0))
    pair.handle(NegotiationNeeded(0), now=0.0)
    assert offered_until(pair, 0.0) == 5.0
    assert pair.handle_timeout(now=4.9) == []
    for now, until in ((5.0, 15.0), (15.0, 35.0), (35.0, 75.0), (75.0, 115.0)):
        assert pair.handle_timeout(now=now) == [ROLL_BACK]
        assert pair.next_timeout() is None
        assert pair.handle(RolledBack(0), now=now) == [MAKE]
        assert offered_until(pair, now) == until
    pair.receive(said("answer", negotiation="e.5", sdp=sdp("b")))
    pair.handle(RemoteDescriptionSet(0), now=80.0)
    report(pair, IceState.CONNECTED)
    assert pair.next_timeout() is None
    pair.handle(NegotiationNeeded(0), now=90.0)
    assert offered_until(pair, 90.0) == 95.0


def test_offer_of_a_side_that_cannot_roll_back_is_replaced() -> None:
    pair = negotiation(polite=False, rollback=False, config=NegotiationConfig(connect_timeout=5.0))
    offer(pair)
    assert pair.handle_timeout(now=5.0) == [MAKE]


def test_restart_that_was_not_answered_is_made_anew() -> None:
    pair = negotiation(config=NegotiationConfig(connect_timeout=5.0))
    answer(pair)
    assert report(pair, IceState.FAILED, now=10.0) == [RESTART, MAKE]
    pair.handle(LocalDescriptionSet(0, "offer", sdp("c")), now=10.0)
    assert pair.handle_timeout(now=15.0) == [ROLL_BACK]
    assert pair.handle(RolledBack(0), now=15.0) == [RESTART, MAKE]


def test_connected_ice_has_not_failed() -> None:
    pair = negotiation()
    answer(pair)
    report(pair, IceState.CONNECTED)
    answer(pair, "m", "b")
    assert pair.next_timeout() is None
    report(pair, IceState.FAILED)
    report(pair, IceState.CONNECTED)
    assert pair.next_timeout() is None
    assert pair.handle_timeout(now=99.0) == []
    report(pair, IceState.DISCONNECTED)
    assert pair.next_timeout() is None


def test_operation_that_fails_costs_the_connection() -> None:
    pair = negotiation(config=NegotiationConfig(restart_interval=2.0))
    pair.handle(NegotiationNeeded(0), now=5.0)
    assert pair.handle(OperationFailed(0), now=5.0) == rebuilt(1)
    pair.handle(NegotiationNeeded(1), now=5.0)
    assert pair.handle(OperationFailed(1), now=5.0) == []
    assert pair.phase is Phase.BROKEN
    assert pair.handle(NegotiationNeeded(1), now=5.0) == []
    assert pair.receive(said("offer", build=1, sdp=sdp("b"))) == []
    assert pair.receive(said("ice-candidate", build=1, ice_candidate=None)) == []
    assert pair.resync(polite=True) == []
    assert pair.handle_timeout(now=7.0) == rebuilt(2)


def test_connection_that_closes_by_itself_is_built_anew() -> None:
    assert report(negotiation(), IceState.CLOSED) == rebuilt(1)


# Connections that are built anew


@pytest.mark.parametrize("build", [1, None, 7])
def test_bye_is_followed_by_another_connection(build: int | None) -> None:
    pair = negotiation()
    offer(pair)
    number = 1 if build is None else build
    assert pair.receive(said("bye", build=build)) == [built(number)]
    assert pair.build == number
    assert pair.handle(LocalDescriptionSet(0, "offer", sdp("late")), now=0.0) == []


def test_byes_that_cross_are_one() -> None:
    pair = negotiation()
    report(pair, IceState.CLOSED)
    assert pair.receive(said("bye", build=1)) == []


def test_what_is_said_of_a_former_connection_is_dropped() -> None:
    pair = negotiation(build=2)
    assert pair.receive(said("offer", build=1, sdp=sdp("b"))) == []
    assert pair.receive(said("bye", build=1)) == []


def test_what_is_said_of_a_later_connection_is_taken_by_it() -> None:
    pair = negotiation()
    offer(pair)
    assert pair.receive(said("offer", build=1, sdp=sdp("b"))) == [built(1), set_offer("b")]
    assert pair.receive(said("answer", build=2, sdp=sdp("b"))) == [built(2)]


# A side that cannot roll back


def test_polite_one_builds_anew_and_waits_for_the_other_offer() -> None:
    pair = negotiation(polite=True, rollback=False)
    offer(pair)
    assert pair.receive(said("offer", negotiation="n", sdp=sdp("b"))) == rebuilt(1)
    assert pair.handle(NegotiationNeeded(1), now=0.0) == []
    pair.receive(said("offer", build=1, negotiation="m", sdp=sdp("b")))
    pair.handle(RemoteDescriptionSet(1), now=0.0)
    done = pair.handle(LocalDescriptionSet(1, "answer", sdp("a")), now=0.0)
    assert done == [sent("answer", build=1, sdp=sdp("a"), negotiation="m"), MAKE]


def test_impolite_one_makes_the_offer_that_is_waited_for() -> None:
    pair = negotiation(polite=False, rollback=False)
    assert pair.handle(NegotiationNeeded(0), now=0.0) == [MAKE]
    assert pair.receive(said("bye", build=1)) == [built(1), MAKE]


def test_restart_by_the_other_side_needs_another_connection() -> None:
    pair = negotiation(polite=False, rollback=False)
    answer(pair, "n", "b")
    assert pair.receive(said("offer", negotiation="m", sdp=sdp("b"))) == [set_offer("b")]
    pair.handle(RemoteDescriptionSet(0), now=0.0)
    pair.handle(LocalDescriptionSet(0, "answer", sdp("a")), now=0.0)
    assert pair.receive(said("offer", negotiation="o", sdp=sdp("c"))) == [*rebuilt(1), MAKE]


def test_resync_builds_anew_what_cannot_be_restarted() -> None:
    pair = negotiation(polite=True, rollback=False)
    answer(pair)
    assert pair.resync(polite=True) == rebuilt(1)


def test_resync_offers_over_the_offer_that_cannot_be_rolled_back() -> None:
    pair = negotiation(polite=True, rollback=False)
    answer(pair)
    report(pair, IceState.CONNECTED)
    offer(pair)
    assert pair.resync(polite=True) == [MAKE]


def test_failed_ice_that_cannot_be_restarted_is_built_anew() -> None:
    pair = negotiation(polite=True, rollback=False)
    answer(pair)
    assert report(pair, IceState.FAILED) == rebuilt(1)
