"""Signals: which ones there are, and what each must look like."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.errors import Refusal
from rtcore.messages import Message
from rtcore.signaling import Signal, SignalingConfig, WebRTCSignalType, parse_signal

CONFIG = SignalingConfig(max_sdp_size=20, max_candidate_size=30)
SDP = "v=0\r\n"
CANDIDATE: Message = {"candidate": "x"}

BAD_TYPE = Refusal("invalid_signal", "'signal_type' must be 'offer', 'answer', 'ice-candidate' or 'bye'")
NO_TARGET = Refusal("invalid_signal", "'target_peer_id' must name the peer that the signal is for")
NO_CANDIDATE = Refusal(
    "invalid_signal", "an ice-candidate has an 'ice_candidate': an object with a string 'candidate', or null"
)
LARGE_SDP = Refusal("signal_too_large", "an 'sdp' has at most 20 bytes", status=413)
LARGE_CANDIDATE = Refusal("signal_too_large", "an 'ice_candidate' has at most 30 bytes", status=413)


def parsed(kind: object, **fields: object) -> Signal | Refusal:
    return parse_signal({"signal_type": kind, "target_peer_id": "bob", **fields}, CONFIG)


def no_sdp(kind: str) -> Refusal:
    text = f"an {kind} has an 'sdp', a session description: a string that begins with 'v=0'"
    return Refusal("invalid_signal", text)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        *(("offer", {"sdp": SDP}), ("answer", {"sdp": SDP, "ice_candidate": None}), ("bye", {})),
        *(("ice-candidate", {"ice_candidate": CANDIDATE}), ("ice-candidate", {"ice_candidate": None, "sdp": None})),
    ],
)
def test_every_kind_of_signal(kind: str, content: Message) -> None:
    bare: Message = {"signal_type": kind, "target_peer_id": "bob", "more": [1], **content}
    of_kind = WebRTCSignalType(kind)
    assert parse_signal(bare, CONFIG) == Signal(of_kind, "bob", None, None, None, None, None, bare)
    named: Message = {**bare, "room_id": "r", "peer_id": "ann", "instance": "a1", "target_instance": "b1"}
    named["negotiation"] = "n" * 64
    assert parse_signal(named, CONFIG) == Signal(of_kind, "bob", "b1", "r", "ann", "a1", "n" * 64, named)
    nothing = dict.fromkeys(("room_id", "peer_id", "instance", "target_instance", "negotiation"))
    assert parse_signal({**bare, **nothing}, CONFIG) == Signal(
        of_kind, "bob", None, None, None, None, None, {**bare, **nothing}
    )


@pytest.mark.parametrize("kind", [None, "", "Offer", "ice", "ice_candidate", 5, True, [], {}, ["offer"]])
def test_signals_that_there_are_not(kind: object) -> None:
    assert parsed(kind) == BAD_TYPE
    assert parse_signal({}, CONFIG) == BAD_TYPE


@pytest.mark.parametrize("name", ["target_peer_id", "target_instance", "room_id", "peer_id", "instance", "negotiation"])
@pytest.mark.parametrize("value", ["", 5, True, [], {}, "a\n", "\ud800", "too long"])
def test_names_are_short_and_printable(name: str, value: object) -> None:
    most = 64 if name == "negotiation" else 255
    if value == "too long":
        assert isinstance(parsed("bye", **{name: "é" * most}), Signal)
        value = "é" * (most + 1)
    assert parsed("bye", **{name: value}) == Refusal(
        "invalid_signal", f"'{name}' must be 1 to {most} printable characters"
    )


def test_a_signal_is_for_somebody() -> None:
    assert parse_signal({"signal_type": "bye"}, CONFIG) == NO_TARGET
    assert parsed("bye", target_peer_id=None) == NO_TARGET


@pytest.mark.parametrize("kind", ["offer", "answer"])
def test_descriptions(kind: str) -> None:
    for sdp in (None, "", "v=", "v=1", "V=0", " v=0", 5, {"type": kind, "sdp": SDP}):
        assert parsed(kind, sdp=sdp) == no_sdp(kind)
    assert parsed(kind) == no_sdp(kind)
    assert isinstance(parsed(kind, sdp="v=0" + "é" * 8), Signal)
    assert parsed(kind, sdp="v=0" + "é" * 9) == LARGE_SDP
    assert parsed(kind, sdp="v=0" + "\ud800" * 6) == LARGE_SDP
    assert parsed(kind, sdp=SDP, ice_candidate=CANDIDATE) == Refusal(
        "invalid_signal", f"an {kind} has no 'ice_candidate': send those as signals of their own"
    )


@pytest.mark.parametrize("kind", ["ice-candidate", "bye"])
def test_only_offers_and_answers_have_descriptions(kind: str) -> None:
    refusal = Refusal("invalid_signal", f"a signal of type '{kind}' has no 'sdp'")
    assert parsed(kind, sdp=SDP, ice_candidate=CANDIDATE) == refusal
    assert parsed(kind, sdp="") == refusal


def test_candidates() -> None:
    assert parsed("ice-candidate") == NO_CANDIDATE
    for candidate in ("candidate:1", {}, {"candidate": None}, [], 0, False):
        assert parsed("ice-candidate", ice_candidate=candidate) == NO_CANDIDATE
    # {"candidate":"…"} is 16 bytes and what is in it; that it is empty is the end of the candidates of one generation.
    assert isinstance(parsed("ice-candidate", ice_candidate={"candidate": ""}), Signal)
    assert isinstance(parsed("ice-candidate", ice_candidate={"candidate": "é" * 7}), Signal)
    assert parsed("ice-candidate", ice_candidate={"candidate": "é" * 7 + "x"}) == LARGE_CANDIDATE
    assert parsed("ice-candidate", ice_candidate={"candidate": "", "sdpMid": "1234"}) == LARGE_CANDIDATE


def test_the_sizes_that_there_are() -> None:
    config = SignalingConfig()
    offer: Message = {"signal_type": "offer", "target_peer_id": "bob", "sdp": "v=0" + "x" * 65533}
    assert isinstance(parse_signal(offer, config), Signal)
    assert isinstance(parse_signal({**offer, "sdp": "v=0" + "x" * 65534}, config), Refusal)


# Whatever it is, it is checked: the names that matter, and JSON of all kinds.
NAMES = ["signal_type", "target_peer_id", "target_instance", "room_id", "peer_id", "instance", "negotiation"]
WORDS = st.sampled_from(["offer", "answer", "ice-candidate", "bye", SDP, "bob", "candidate"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from([*NAMES, "sdp", "ice_candidate", "meta"]), VALUES | WORDS),
    st.sampled_from([*WebRTCSignalType, None]),
)
def test_whatever_passes_is_fit_to_be_passed_on(message: Message, kind: WebRTCSignalType | None) -> None:
    if kind is not None:
        message = {"target_peer_id": "bob", **message, "signal_type": kind.value}
    before = json.dumps(message)
    outcome = parse_signal(message, CONFIG)
    assert json.dumps(message) == before
    if isinstance(outcome, Refusal):
        assert outcome.code in ("invalid_signal", "signal_too_large")
        return
    assert outcome.message == message
    assert outcome.target == message["target_peer_id"]
    has_description = outcome.type in (WebRTCSignalType.OFFER, WebRTCSignalType.ANSWER)
    assert isinstance(message.get("sdp"), str) is has_description
