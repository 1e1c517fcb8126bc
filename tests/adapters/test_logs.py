"""Logging: silent by default, structured on demand, without secrets."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore_adapters.logs import RedactingFilter, configure_logging, redact

log = logging.getLogger("rtcore.test")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    everything, ours = logging.getLogger(), logging.getLogger("rtcore")
    handlers, level = everything.handlers[:], ours.level
    yield
    everything.handlers[:] = handlers
    ours.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == ""
    return done.stderr


def test_silent_until_configured() -> None:
    assert run("import logging, rtcore_adapters.logs\nlogging.getLogger('rtcore.server').critical('not a word')") == ""


def test_stderr_is_the_default() -> None:
    said = run(
        "import logging\n"
        "from rtcore_adapters.logs import configure_logging\n"
        "configure_logging()\n"
        "logging.getLogger('rtcore.server').info('listening', extra={'port': 8000})\n"
        "logging.getLogger('rtcore.server').debug('too much')"
    )
    assert "[info     ] listening" in said
    assert "[rtcore.server] port=8000\n" in said
    assert "too much" not in said
    assert "\x1b" not in said


def test_json() -> None:
    stream = io.StringIO()
    configure_logging(format="json", stream=stream)
    log.info("привет %s", "мир", extra={"connection_id": "c1", "where": {"a": [1, None]}, "raw": b"x"})

    (line,) = lines(stream)
    assert str(line.pop("timestamp")).endswith("Z")
    assert line == {
        "event": "привет мир",
        "level": "info",
        "logger": "rtcore.test",
        "connection_id": "c1",
        "where": {"a": [1, None]},
        "raw": "b'x'",
    }
    assert "привет" in stream.getvalue()


@pytest.mark.parametrize("level", ["warning", "WARNING", logging.WARNING])
def test_levels(level: int | str) -> None:
    stream = io.StringIO()
    configure_logging(level, "json", stream=stream)
    log.info("no")
    log.warning("yes")
    assert [line["event"] for line in lines(stream)] == ["yes"]


def test_other_libraries_speak_from_warning_on() -> None:
    stream = io.StringIO()
    configure_logging("debug", "json", stream=stream)
    log.debug("ours")
    logging.getLogger("somebody.else").info("theirs")
    logging.getLogger("somebody.else").warning("theirs, and it matters")
    assert [line["event"] for line in lines(stream)] == ["ours", "theirs, and it matters"]


def test_a_level_that_is_none_changes_nothing() -> None:
    stream = io.StringIO()
    configure_logging("info", "json", stream=stream)
    with pytest.raises(ValueError, match="LOUD"):
        configure_logging("loud")
    log.info("still here")
    assert [line["event"] for line in lines(stream)] == ["still here"]


def test_configuring_again_replaces() -> None:
    first, second, theirs = io.StringIO(), io.StringIO(), io.StringIO()
    logging.getLogger().addHandler(logging.StreamHandler(theirs))
    configure_logging(format="json", stream=first)
    configure_logging(format="json", stream=second)
    log.info("once")
    assert first.getvalue() == ""
    assert [line["event"] for line in lines(second)] == ["once"]
    assert theirs.getvalue() == "once\n"


@pytest.mark.parametrize("format", ["console", "json"])
def test_no_secret_is_written(format: str, error_log: list[logging.LogRecord]) -> None:
    stream = io.StringIO()
    configure_logging("debug", format, stream=stream)  # type: ignore[arg-type]
    log.info("GET %s", "/realtime/ws?token=s3cret.s3cret&channel=a&api_key=s3cret&user_id=ann")
    log.info("fields", extra={"token": "s3cret", "Authorization": "s3cret", "why": {"api_key": ["s3cret"]}})
    log.info("frame %s", '{"type": "command", "data": {"token": "s3cret"}}')
    log.info("field with a frame", extra={"frame": '{"token":"s3cret"}', "many": [{"x-api-key": "s3cret"}]})
    logging.getLogger("else").error("%s", {"authorization": "Bearer s3cret"})
    try:
        raise ValueError("wss://example.org/ws?access_token=s3cret")
    except ValueError:
        log.exception("failed")

    error_log.clear()  # that one was wanted
    said = stream.getvalue()
    assert "s3cret" not in said
    assert "channel=a" in said
    assert "user_id=ann" in said
    assert "Traceback" in said
    if format == "json":
        assert len(lines(stream)) == 6


JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl-_"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("?token=abc&a=1", "?token=[redacted]&a=1"),
        ("?a=1&api_key=abc#x", "?a=1&api_key=[redacted]#x"),
        ("?next=%2Fws%3Ftoken%3Dabc", "?next=%2Fws%3Ftoken%3D[redacted]"),
        ("refresh_token=abc then", "refresh_token=[redacted] then"),
        ('{"token":"abc","a":1}', '{"token":"[redacted]","a":1}'),
        (r'"{\"token\": \"abc\"}"', r'"{\"token\": \"[redacted]\"}"'),
        ("{'api_key': 'abc'}", "{'api_key': '[redacted]'}"),
        ("?session=abc&a=1", "?session=[redacted]&a=1"),
        ("session_epoch=5 sessions=2", "session_epoch=5 sessions=2"),
        ('{"session": "abc"}', '{"session": "[redacted]"}'),
        ("WS_JWT_SECRET_KEY=abc WS_API_KEYS=abc,def", "WS_JWT_SECRET_KEY=[redacted] WS_API_KEYS=[redacted]"),
        ("(b'x-api-key', b'abc')", "(b'x-api-key', b'[redacted]')"),
        ("Authorization: Bearer abc.d==", "Authorization: [redacted]"),
        ("authorization: Basic dXNlcjpwYXNz\r\nhost: a", "authorization: [redacted]\r\nhost: a"),
        ("X-API-Key: abc", "X-API-Key: [redacted]"),
        ("Cookie: a=b; token=c", "Cookie: [redacted]"),
        ("'Bearer abc.d=='", "'Bearer [redacted]'"),
        ("redis://ann:abc@localhost/0", "redis://ann:[redacted]@localhost/0"),
        ("http://localhost:8000/a@b", "http://localhost:8000/a@b"),
        (f"got {JWT}.", "got [redacted]."),
        ("a token is missing; tokens=2", "a token is missing; tokens=2"),
        ("channel=chat&user_id=ann", "channel=chat&user_id=ann"),
    ],
)
def test_redact(text: str, redacted: str) -> None:
    assert redact(text) == redacted
    assert redact(redacted) == redacted


@given(st.dictionaries(st.text(), st.text(st.sampled_from("token=\"'\\& :{}%3dBearer eyJ.a\n")), max_size=3))
def test_redacting_keeps_json_whole(document: dict[str, str]) -> None:
    once = json.dumps(document)
    assert json.loads(redact(once)).keys() == document.keys()
    assert isinstance(json.loads(redact(json.dumps({"event": once}))), dict)


HOSTS = ["uvicorn.access", "uvicorn.error", "hypercorn.access", "hypercorn.error"]


@pytest.fixture
def host_loggers() -> Iterator[dict[str, io.StringIO]]:
    """Loggers of hosts that write by handlers of their own, and what they write."""
    streams: dict[str, io.StringIO] = {}
    for name in HOSTS:
        logger, streams[name] = logging.getLogger(name), io.StringIO()
        logger.addHandler(logging.StreamHandler(streams[name]))
        logger.setLevel(logging.DEBUG)
    configure_logging(stream=io.StringIO())
    yield streams
    for name in HOSTS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.filters.clear()
        logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize("name", HOSTS)
def test_what_hosts_write_by_themselves_is_redacted(name: str, host_loggers: dict[str, io.StringIO]) -> None:
    logger, stream = logging.getLogger(name), host_loggers[name]
    logger.info("GET %s %d", "/ws?token=s3cret&a=1", 101)
    logger.info("%(line)s", {"line": "GET /ws?api_key=s3cret&a=2"})
    logger.info("token=%s a=3", "s3cret")
    logger.info("%r a=4", [(b"authorization", b"Bearer s3cret")])
    logger.info("token=s3cret %s %s a=5", "Bearer s3cret")
    try:
        raise ValueError("session=s3cret a=6")
    except ValueError:
        logger.exception("a=7", stack_info=True)
    said = stream.getvalue()
    assert "s3cret" not in said
    assert [f"a={number}" in said for number in range(1, 8)] == [True] * 7


def test_access_lines_of_uvicorn_keep_their_parts(host_loggers: dict[str, io.StringIO]) -> None:
    from uvicorn.logging import AccessFormatter

    logger = logging.getLogger("uvicorn.access")
    logger.handlers[0].setFormatter(
        AccessFormatter("%(client_addr)s %(request_line)s %(status_code)s", use_colors=False)
    )
    logger.info('%s - "%s %s HTTP/%s" %d', "127.0.0.1:5", "GET", "/ws?token=s3cret&a=1", "1.1", 200)
    assert host_loggers["uvicorn.access"].getvalue() == "127.0.0.1:5 GET /ws?token=[redacted]&a=1 HTTP/1.1 200 OK\n"


def test_the_filter_of_the_hosts_is_added_once(host_loggers: dict[str, io.StringIO]) -> None:
    configure_logging(stream=io.StringIO())
    assert [type(each) for each in logging.getLogger("uvicorn.access").filters] == [RedactingFilter]
