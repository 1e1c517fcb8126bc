"""One peer's half of perfect negotiation: offers, answers, candidates, and what crosses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.errors import LocalProtocolError
from rtcore.signaling.negotiation_config import NegotiationConfig, Phase
from rtcore.signaling.peer_connection import (
    AddCandidate,
    CandidateGathered,
    Close,
    IceState,
    LocalDescriptionSet,
    NegotiationNeeded,
    OperationFailed,
    RemoteDescriptionSet,
    RolledBack,
)
from rtcore.signaling.remote_signal import username_fragments

from .negotiation_talk import MAKE, answer, built, negotiation, offer, report, said, sdp, sent, set_answer, set_offer

ICE = {"candidate": "c", "usernameFragment": "b"}


def add(candidate: Any) -> AddCandidate:
    return AddCandidate("other", candidate)


# Offers and answers


def test_offer_is_made_sent_and_answered() -> None:
    pair = negotiation()
    assert pair.start() == [built(0)]
    assert pair.handle(NegotiationNeeded(0), now=0.0) == [MAKE]
    assert pair.phase is Phase.OFFERING
    made = pair.handle(LocalDescriptionSet(0, "offer", sdp("a")), now=0.0)
    assert made == [sent("offer", sdp=sdp("a"), negotiation="e.1")]
    assert pair.receive(said("answer", negotiation="e.1", sdp=sdp("b"))) == [set_answer("b")]
    assert pair.phase is Phase.ACCEPTING
    assert pair.handle(RemoteDescriptionSet(0), now=0.0) == []
    assert pair.phase is Phase.STABLE
    assert not pair.connected
    report(pair, IceState.CONNECTED)
    assert pair.connected


def test_offer_is_answered() -> None:
    pair = negotiation()
    assert pair.receive(said("offer", negotiation="n", sdp=sdp("b"))) == [set_offer("b")]
    assert pair.phase is Phase.RECEIVING
    assert pair.handle(RemoteDescriptionSet(0), now=0.0) == [MAKE]
    assert pair.phase is Phase.ANSWERING
    made = pair.handle(LocalDescriptionSet(0, "answer", sdp("a")), now=0.0)
    assert made == [sent("answer", sdp=sdp("a"), negotiation="n")]
    assert pair.phase is Phase.STABLE


def test_what_is_needed_meanwhile_is_offered_afterwards() -> None:
    pair = negotiation()
    offer(pair)
    assert pair.handle(NegotiationNeeded(0), now=0.0) == []
    pair.receive(said("answer", negotiation="e.1", sdp=sdp("b")))
    assert pair.handle(RemoteDescriptionSet(0), now=0.0) == [MAKE]


@pytest.mark.parametrize("name", ["e.2", "n", "", 7])
def test_answer_to_another_offer_is_dropped(name: object) -> None:
    pair = negotiation()
    offer(pair)
    assert pair.receive(said("answer", negotiation=name, sdp=sdp("b"))) == []
    assert pair.phase is Phase.OFFERED


def test_answer_without_a_name_is_to_the_offer_that_there_is() -> None:
    pair = negotiation()
    assert pair.receive(said("answer", sdp=sdp("b"))) == []
    offer(pair)
    assert pair.receive(said("answer", sdp=sdp("b"))) == [set_answer("b")]
    assert pair.receive(said("answer", sdp=sdp("b"))) == []


def test_offer_that_comes_twice_is_answered_once() -> None:
    pair = negotiation()
    answer(pair)
    assert pair.receive(said("offer", negotiation="n", sdp=sdp("b"))) == []
    assert pair.receive(said("offer", sdp=sdp("b"))) == [set_offer("b")]


# Offers that cross


def test_polite_one_gives_way() -> None:
    pair = negotiation(polite=True)
    offer(pair)
    assert pair.receive(said("offer", negotiation="n", sdp=sdp("b"))) == [set_offer("b")]
    assert pair.receive(said("answer", negotiation="e.1", sdp=sdp("b"))) == []
    assert pair.handle(RemoteDescriptionSet(0), now=0.0) == [MAKE]


def test_polite_one_does_not_even_send_an_offer_that_has_crossed() -> None:
    pair = negotiation(polite=True)
    pair.handle(NegotiationNeeded(0), now=0.0)
    assert pair.receive(said("offer", negotiation="n", sdp=sdp("b"))) == []
    assert pair.handle(LocalDescriptionSet(0, "offer", sdp("a")), now=0.0) == [set_offer("b")]


def test_impolite_one_ignores_the_other_offer() -> None:
    pair = negotiation(polite=False)
    pair.handle(NegotiationNeeded(0), now=0.0)
    assert pair.receive(said("offer", negotiation="n", sdp=sdp("b"))) == []
    assert pair.receive(said("ice-candidate", negotiation="n", ice_candidate=ICE)) == []
    made = pair.handle(LocalDescriptionSet(0, "offer", sdp("a")), now=0.0)
    assert made == [sent("offer", sdp=sdp("a"), negotiation="e.1")]
    assert pair.receive(said("ice-candidate", negotiation="n", ice_candidate=ICE)) == []
    assert pair.receive(said("answer", negotiation="e.1", sdp=sdp("c"))) == [set_answer("c")]
    assert pair.handle(RemoteDescriptionSet(0), now=0.0) == []


def test_offer_waits_until_an_answer_is_set() -> None:
    pair = negotiation(polite=False)
    offer(pair)
    pair.receive(said("answer", negotiation="e.1", sdp=sdp("b")))
    assert pair.receive(said("offer", negotiation="n", sdp=sdp("b"))) == []
    assert pair.handle(RemoteDescriptionSet(0), now=0.0) == [set_offer("b")]


def test_offer_takes_the_place_of_one_that_is_being_set() -> None:
    pair = negotiation()
    pair.receive(said("offer", negotiation="n", sdp=sdp("b")))
    assert pair.receive(said("offer", negotiation="m", sdp=sdp("c"))) == []
    assert pair.handle(RemoteDescriptionSet(0), now=0.0) == [set_offer("c")]
    assert pair.handle(RemoteDescriptionSet(0), now=0.0) == [MAKE]


def test_offer_takes_the_place_of_one_that_is_being_answered() -> None:
    pair = negotiation()
    pair.receive(said("offer", negotiation="n", sdp=sdp("b")))
    pair.handle(RemoteDescriptionSet(0), now=0.0)
    assert pair.receive(said("offer", negotiation="m", sdp=sdp("c"))) == []
    assert pair.handle(LocalDescriptionSet(0, "answer", sdp("a")), now=0.0) == [set_offer("c")]


# Candidates


def test_own_candidates_are_sent_with_what_they_belong_to() -> None:
    pair = negotiation()
    assert pair.handle(CandidateGathered(0, None), now=0.0) == [sent("ice-candidate", ice_candidate=None)]
    pair.handle(NegotiationNeeded(0), now=0.0)
    told = pair.handle(CandidateGathered(0, {"candidate": "c"}), now=0.0)
    assert told == [sent("ice-candidate", ice_candidate={"candidate": "c"}, negotiation="e.1")]


def test_candidate_is_held_until_its_description_is_set() -> None:
    pair = negotiation()
    early = {"candidate": "d"}
    assert pair.receive(said("ice-candidate", negotiation="n", ice_candidate=early)) == []
    assert pair.receive(said("ice-candidate", negotiation="m", ice_candidate={"candidate": "never"})) == []
    pair.receive(said("offer", negotiation="n", sdp=sdp("b")))
    assert pair.receive(said("ice-candidate", negotiation="n", ice_candidate=ICE)) == []
    assert pair.handle(RemoteDescriptionSet(0), now=0.0) == [add(early), add(ICE), MAKE]
    assert pair.receive(said("ice-candidate", negotiation="n", ice_candidate=None)) == [add(None)]


def test_candidate_comes_by_its_generation_under_any_name() -> None:
    pair = negotiation()
    answer(pair, "n", "b")
    assert pair.receive(said("ice-candidate", negotiation="later", ice_candidate=ICE)) == [add(ICE)]
    assert pair.receive(said("ice-candidate", ice_candidate={"candidate": "d"})) == [add({"candidate": "d"})]


def test_candidate_of_a_former_generation_is_dropped() -> None:
    pair = negotiation()
    answer(pair, "n", "b")
    answer(pair, "m", "c")
    assert pair.receive(said("ice-candidate", negotiation="m", ice_candidate=ICE)) == []
    pair.receive(said("offer", negotiation="o", sdp=sdp("b")))
    assert pair.handle(RemoteDescriptionSet(0), now=0.0) == [MAKE]


def test_held_candidates_are_bounded() -> None:
    pair = negotiation(config=NegotiationConfig(max_held=2))
    for number in range(5):
        pair.receive(said("ice-candidate", negotiation="n", ice_candidate={"candidate": str(number)}))
    pair.receive(said("offer", negotiation="n", sdp="v=0"))
    held = [add({"candidate": "0"}), add({"candidate": "1"})]
    assert pair.handle(RemoteDescriptionSet(0), now=0.0) == [*held, MAKE]


# What makes no sense


@pytest.mark.parametrize(
    "signal",
    [
        said("offer"),
        said("offer", sdp=7),
        said("offer", sdp="v=0", negotiation=7),
        said("offer", sdp="v=0", build=-1),
        said("offer", sdp="v=0", build=True),
        said("offer", sdp="v=0", build=2**31),
        said("offer", sdp="v=0", build="0"),
        said("offer", sdp="v=0", instance="another"),
        said("answer"),
        said("ice-candidate"),
        said("ice-candidate", ice_candidate=[]),
        said("ice-candidate", ice_candidate={"candidate": None}),
        said("unknown"),
        said("bye", build=None, instance=None),
        {},
    ],
    ids=repr,
)
def test_signals_without_sense_are_ignored(signal: dict[str, object]) -> None:
    assert negotiation().receive(signal) == []


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
fields = st.fixed_dictionaries(
    {"signal_type": st.sampled_from(["offer", "answer", "ice-candidate", "bye"])},
    optional={
        "negotiation": json | st.just("e.1"),
        "build": json | st.integers(0, 3),
        "sdp": json | st.just(sdp("b")),
        "ice_candidate": json | st.just(ICE),
        "instance": json | st.just("i"),
    },
)


@given(st.lists(fields, max_size=8), st.booleans(), st.booleans())
def test_no_signal_raises(signals: list[dict[str, object]], polite: bool, rollback: bool) -> None:
    pair = negotiation(polite=polite, rollback=rollback)
    offer(pair)
    for signal in signals:
        pair.receive(signal)


@pytest.mark.parametrize(
    "event",
    [
        LocalDescriptionSet(0, "offer", sdp("a")),
        RemoteDescriptionSet(0),
        RolledBack(0),
        OperationFailed(0),
    ],
    ids=lambda event: type(event).__name__,
)
def test_end_of_nothing_is_the_drivers_fault(event: Any) -> None:
    pair = negotiation()
    with pytest.raises(LocalProtocolError, match="while stable"):
        pair.handle(event, now=0.0)
    assert pair.phase is Phase.STABLE


def test_description_of_the_wrong_type_is_the_drivers_fault() -> None:
    pair = negotiation()
    pair.handle(NegotiationNeeded(0), now=0.0)
    with pytest.raises(LocalProtocolError, match="while offering"):
        pair.handle(LocalDescriptionSet(0, "answer", sdp("a")), now=0.0)
    assert pair.phase is Phase.OFFERING


def test_closed_one_does_nothing() -> None:
    pair = negotiation()
    offer(pair)
    assert pair.close() == [Close("other")]
    assert pair.phase is Phase.CLOSED
    assert pair.close() == []
    assert pair.handle(NegotiationNeeded(0), now=0.0) == []
    assert pair.receive(said("offer", sdp=sdp("b"))) == []
    assert pair.resync(polite=True) == []
    assert pair.next_timeout() is None


def test_username_fragments_are_those_of_the_lines() -> None:
    assert username_fragments("v=0\r\na=ice-ufrag:x y\r\nm=\na=ice-ufrag:z\nb=a=ice-ufrag:n") == ["x y", "z"]
