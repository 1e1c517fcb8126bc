"""Logging: silent until asked for, structured when it is, and never with a token in it.

Everything of ours logs through the standard library, below the logger ``rtcore``, with details in ``extra``.
An application that configures `logging` itself gets those records as it gets all others. The commands call
`configure_logging`, which writes them to stderr through structlog.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Final, Literal, TextIO

import structlog
from structlog.typing import Processor

__all__ = ["RedactingFilter", "configure_logging", "redact"]

_ROOT: Final = logging.getLogger("rtcore")

# Without a handler of ours, records of WARNING and above would reach the handler of last resort and so the
# stderr of an application that never asked for them.
_ROOT.addHandler(logging.NullHandler())

_REDACTED: Final = "[redacted]"

# The names under which a secret is passed: in a query, in JSON (quotes may be escaped where JSON is inside
# a string of JSON) or a tuple of bytes, and in a header.
_SECRET_NAME: Final = r"(?:token|api[_-]?keys?|authorization|password|secret(?:[_-]?key)?|session)"
_HEADER_NAME: Final = r"(?:(?:proxy-)?authorization|(?:x-)?api-?key|(?:set-)?cookie)"
_SECRETS: Final = re.compile(
    rf"""
    (?P<query> {_SECRET_NAME} (?:=|%3d) ) [^&\s"'\\#<>]+
    | (?P<json> {_SECRET_NAME} \\*["'] \s*[:,]\s* b?\\*["'] ) [^"'\\]+
    | (?P<line> \b {_HEADER_NAME} : [ \t]* ) [^\s"'\\] [^\r\n"'\\]*
    | (?P<header> \b bearer \s+ ) [A-Za-z0-9._~+/=-]+
    | (?P<url> :// [^\s/:@"'\\?#]* : ) [^\s/@"'\\]+ (?=@)
    | \b eyJ[A-Za-z0-9_-]+ \. [A-Za-z0-9_-]+ \. [A-Za-z0-9_-]*  # a JWT, wherever it stands
    """,
    re.IGNORECASE | re.VERBOSE,
)
_SECRET_FIELD: Final = re.compile(rf"{_SECRET_NAME}$|^{_HEADER_NAME}$", re.IGNORECASE)

# Hosts write lines about requests by loggers of their own, which may have handlers of their own.
_HOSTS: Final = (
    *("uvicorn", "uvicorn.access", "uvicorn.error", "uvicorn.asgi"),
    *("hypercorn.access", "hypercorn.error"),
)


def redact(text: str) -> str:
    """Return `text` with the tokens, API keys and passwords in it replaced by ``[redacted]``."""
    return _SECRETS.sub(_keep_the_name, text)


def _keep_the_name(found: re.Match[str]) -> str:
    return f"{found[found.lastgroup] if found.lastgroup else ''}{_REDACTED}"


class RedactingFilter(logging.Filter):
    """Takes the secrets out of records, for loggers and handlers that are not ours.

    What a record says is redacted when it is made, so that any formatter shows it so: message, arguments and traceback.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact `record`; all of them pass."""
        # Formatters of access lines read single arguments, so as many as possible stay as they are.
        if isinstance(record.args, tuple):
            record.args = tuple(redact(arg) if isinstance(arg, str) else arg for arg in record.args)
        try:
            said = record.getMessage()
        except Exception:
            # The arguments do not fit. `logging` would say so, and print them.
            said, record.msg, record.args = "", redact(str(record.msg)), None
        if (safe := redact(said)) != said:
            record.msg, record.args = safe, None
        if record.exc_info and not record.exc_text:
            record.exc_text = _TRACEBACKS.formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redact(record.exc_text)
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        return True


def _tidy(logger: object, method: str, event: MutableMapping[str, object]) -> MutableMapping[str, object]:
    # Formatter.format() leaves these two on the record for the next handler, where they look like `extra`.
    # Nobody's own are lost: `logging` refuses them in `extra`.
    return {name: _redacted(name, value) for name, value in event.items() if name not in ("message", "asctime")}


def _redacted(name: str, value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _redacted(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(name, item) for item in value]
    return _REDACTED if value is not None and _SECRET_FIELD.search(name) else value


class _Formatter(structlog.stdlib.ProcessorFormatter):
    def format(self, record: logging.LogRecord) -> str:
        # The last word, after everything has become text: tracebacks, messages of other libraries and the
        # repr of whatever was logged hold secrets that no field is named after.
        return redact(super().format(record))


_TRACEBACKS: Final = logging.Formatter()
_FILTER: Final = RedactingFilter()


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that configuring again replaces it and leaves the application's handlers alone."""


def configure_logging(
    level: int | str = "INFO", format: Literal["console", "json"] = "console", *, stream: TextIO | None = None
) -> None:
    """Write log records to stderr: ours from `level` on, those of other libraries from WARNING on.

    What uvicorn and hypercorn log, lines about requests included, is redacted whoever writes it. Calling it again
    replaces what the last call set up.

    Args:
        level: A level of `logging`, by number or by name in either case.
        format: ``"console"`` for people (in colour on a terminal), or ``"json"``: one object a line with
            ``timestamp`` (UTC, ISO 8601), ``level``, ``logger``, ``event``, the ``extra`` fields and, where
            there is one, ``exception``.
        stream: Where to write instead of stderr.

    Raises:
        ValueError: There is no such level; nothing has changed.
    """
    _ROOT.setLevel(level.upper() if isinstance(level, str) else level)
    handler = _Handler(sys.stderr if stream is None else stream)
    renderer: list[Processor]
    if format == "json":
        renderer = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str, ensure_ascii=False),
        ]
    else:
        renderer = [
            structlog.dev.ConsoleRenderer(
                colors=handler.stream.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    handler.setFormatter(
        _Formatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.stdlib.ExtraAdder(),
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _tidy,
                *renderer,
            ],
        )
    )
    everything = logging.getLogger()
    for old in [old for old in everything.handlers if isinstance(old, _Handler)]:
        everything.removeHandler(old)
    everything.addHandler(handler)
    for name in _HOSTS:
        # Once and for all: what has been added is not added again.
        logging.getLogger(name).addFilter(_FILTER)
