"""Settings of calls: lists of servers, and secrets that no message shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore_adapters.settings import SettingsError, WebRtcSettings, load_settings


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, so that no file of the developer's has a say."""
    monkeypatch.chdir(tmp_path)


def load(env: Mapping[str, str] | None = None, *, toml: str = "") -> WebRtcSettings:
    if toml:
        Path("rtcore.toml").write_text(f"[webrtc]\n{toml}")
    return load_settings(env=env or {}).webrtc


def fault(env: Mapping[str, str] | None = None, *, toml: str = "") -> str:
    with pytest.raises(SettingsError) as caught:
        load(env, toml=toml)
    line = str(caught.value)
    assert line.isprintable()
    return line


STUN = "URLs such as stun:stun.example.org:3478, with commas between them, or nothing for none"
TURN = "URLs such as turn:turn.example.org:3478?transport=udp, with commas between them, or nothing for none"
SECRET = "1 to 255 letters, digits and other printable characters of ASCII, or nothing for none"
CREDENTIALS = "URLs with USER:PASSWORD@ before the host, or any where WEBRTC_TURN_SECRET says what they share with us"


@pytest.mark.parametrize(
    "written",
    [
        "stun:a,stuns:b:1",
        " stun:a ,\n stuns:b:1, ",
        "stun:a stuns:b:1",
        '["stun:a", "stuns:b:1"]',
        ' [ "stun:a",\n"stuns:b:1" ] ',
    ],
)
def test_ways_to_write_a_list(written: str) -> None:
    assert load({"WEBRTC_STUN_SERVERS": written}).stun_servers == ("stun:a", "stuns:b:1")
    assert load(toml=f"stun_servers = {json.dumps(written)}").stun_servers == ("stun:a", "stuns:b:1")
    assert load(toml="stun_servers = ['stun:a', 'stuns:b:1']").stun_servers == ("stun:a", "stuns:b:1")


@pytest.mark.parametrize("written", ["", " ", ",", "[]"])
def test_an_empty_list_takes_away(written: str) -> None:
    assert load({"WEBRTC_STUN_SERVERS": written}, toml="stun_servers = ['stun:a']").stun_servers == ()


@pytest.mark.parametrize(
    "written",
    [
        "stun.example.org",
        "stun:",
        "stun:a,turn:b",
        "stun:a?transport=udp",
        "http://a",
        "[",
        '["stun:a"',
        '["stun:a", 1]',
    ],
)
def test_what_are_no_stun_servers(written: str) -> None:
    assert fault({"WEBRTC_STUN_SERVERS": written}) == f"WEBRTC_STUN_SERVERS is {written!r}; allowed: {STUN}"


@pytest.mark.parametrize(("written", "shown"), [("5", "5"), ("{}", "{}"), ("['stun:a', 5]", "['stun:a', 5]")])
def test_what_is_no_list_in_toml(written: str, shown: str) -> None:
    line = f"rtcore.toml: [webrtc] stun_servers is {shown}; allowed: {STUN}"
    assert fault(toml=f"stun_servers = {written}") == line


def test_turn_servers_with_users_or_with_a_secret() -> None:
    own = "turn:joe:pa%2Css@a,turns:joe:x@b:5349?transport=tcp"
    assert load({"WEBRTC_TURN_SERVERS": own}).turn_servers == tuple(own.split(","))
    env = {"WEBRTC_TURN_SERVERS": f"turn:c,{own}", "WEBRTC_TURN_SECRET": "north"}
    assert load(env).turn_servers == ("turn:c", *own.split(","))


def test_turn_servers_that_no_browser_takes() -> None:
    written = "turn:joe:hush@a,turn:b"
    line = f"WEBRTC_TURN_SERVERS is 'turn:…@a,turn:b'; allowed: {CREDENTIALS}"
    assert fault({"WEBRTC_TURN_SERVERS": written}) == line
    assert fault({"WEBRTC_TURN_SERVERS": written, "WEBRTC_TURN_SECRET": ""}, toml="turn_secret = 'x'") == line
    assert fault(toml="turn_servers = ['turn:b']") == (
        f"rtcore.toml: [webrtc] turn_servers is ['turn:b']; allowed: {CREDENTIALS}"
    )
    with pytest.raises(ValueError, match="turn_servers"):
        WebRtcSettings(turn_servers=("turn:b",))


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("turn:joe:hu,sh@a", "turn:…@a"),
        ("turn:joe:hu sh@a", "turn:…@a"),
        ("turn:joe:hu@sh@a,turn:joe:hush@b?x", "turn:…@b?x"),
        ("https://joe:hush@a", "https:…@a"),
        ("turn:joe:hu\nsh@a", "turn:…@a"),
        ('["turn:joe:hush@a"', '["turn:…@a"'),
    ],
)
def test_no_password_is_shown(written: str, shown: str) -> None:
    assert fault({"WEBRTC_TURN_SERVERS": written}) == f"WEBRTC_TURN_SERVERS is '{shown}'; allowed: {TURN}"


@pytest.mark.parametrize("written", ["hush hush", "hush\n", " hush", "тихо", "x" * 256])
def test_no_secret_is_shown(written: str) -> None:
    assert fault({"WEBRTC_TURN_SECRET": written}) == f"WEBRTC_TURN_SECRET is …; allowed: {SECRET}"
    toml = f"turn_secret = {json.dumps(written)}"
    assert fault(toml=toml) == f"rtcore.toml: [webrtc] turn_secret is …; allowed: {SECRET}"


def test_what_is_secret_is_in_no_representation() -> None:
    settings = load_settings(env={"WEBRTC_TURN_SERVERS": "turn:joe:hush1@a,turn:b", "WEBRTC_TURN_SECRET": "hush2"})
    assert settings.webrtc.turn_secret == "hush2"
    assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("stun_servers", "stun_servers"),
        ("turn_servers", "turn_servers"),
    ],
)
def test_made_by_hand(key: str, allowed: str) -> None:
    for value in (["stun:a"], ("http:a",), (5,), "stun:a"):
        with pytest.raises((TypeError, ValueError), match=allowed):
            WebRtcSettings(**{key: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("WEBRTC_TURN_TTL", "0.5", "a number from 1 to 86400 (seconds)"),
        ("WEBRTC_MAX_ROOMS", "0", "a whole number from 1 to 2147483647"),
        ("WEBRTC_MAX_PARTICIPANTS_PER_ROOM", "many", "a whole number from 1 to 2147483647"),
        ("WEBRTC_PEER_TTL", "-1", "a number from 0 to 86400 (seconds)"),
        ("WEBRTC_ROOM_TTL", "", "a number from 0 to 86400 (seconds)"),
        ("WEBRTC_ENABLED", "maybe", "true or false (also 1 or 0, yes or no, on or off)"),
    ],
)
def test_a_wrong_value(name: str, value: str, allowed: str) -> None:
    assert fault({name: value}) == f"{name} is {value!r}; allowed: {allowed}"


@given(
    st.sampled_from(["WEBRTC_STUN_SERVERS", "WEBRTC_TURN_SERVERS", "WEBRTC_TURN_SECRET"]),
    st.text() | st.lists(st.text() | st.integers()).map(json.dumps),
)
def test_any_text_is_a_value_or_one_line(name: str, text: str) -> None:
    try:
        load_settings(env={name: text})
    except SettingsError as error:
        line = str(error)
        assert line.startswith(f"{name} is ")
        assert line.isprintable()
