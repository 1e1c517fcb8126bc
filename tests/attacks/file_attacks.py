"""Attacks with files: forms, bodies, ranges and downloads; each returns what has come of its connections."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable, Iterator
from typing import Final

import httpx2

from .attacker import Attacker, Outcome, get

__all__ = ["FILE_ATTACKS", "FORM", "begin_part", "endless", "form_head"]

#: The longest file that the server is to take is 1 MiB: who is not stopped there or before has failed.
_ENOUGH: Final = 2**24
FORM: Final = "Content-Type: multipart/form-data; boundary=edge"
_CHUNKED: Final = "Transfer-Encoding: chunked"
_UPLOAD: Final = "/realtime/binary/upload?channel=room"
_SEND: Final = "/realtime/binary/send?channel=room"
_COUNT: Final = 10

#: By name; the last word of each is what the server does about it.
FILE_ATTACKS: Final[dict[str, Callable[[int], Outcome]]] = {}


def _attack(name: str) -> Callable[[Callable[[int], Outcome]], Callable[[int], Outcome]]:
    def register(run: Callable[[int], Outcome]) -> Callable[[int], Outcome]:
        FILE_ATTACKS[name] = run
        return run

    return register


def begin_part(name: str, filename: str | None = None, *headers: str) -> bytes:
    """Return the beginning of a part of a form, up to what is in it."""
    known = f'Content-Disposition: form-data; name="{name}"' + ("" if filename is None else f'; filename="{filename}"')
    return "\r\n".join(["--edge", known, *headers, "", ""]).encode()


def form_head(*headers: str, path: str = _UPLOAD) -> bytes:
    """Return the head of a request with a form."""
    return get(path, FORM, *headers, method="POST")


def endless(piece: bytes) -> Iterator[bytes]:
    """Return a piece again and again, but not for ever: who would take so much has failed."""
    many = piece * max(1, 65536 // len(piece))
    return itertools.repeat(many, _ENOUGH // len(many))


def _push_chunked(port: int, head: bytes, pieces: Callable[[], Iterator[bytes]]) -> Outcome:
    """Send bodies that do not say how long they are, until the server has enough."""
    with Attacker.on(port) as attacker:
        for _ in range(_COUNT):
            chunks = (b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces())
            attacker.push(attacker.open(), itertools.chain([head], chunks))
        return attacker.wait()


def _form(port: int, pieces: Callable[[], Iterator[bytes]]) -> Outcome:
    return _push_chunked(port, form_head(_CHUNKED), pieces)


# Forms


@_attack("a preamble without end")
def preamble(port: int) -> Outcome:
    """Send what comes before the first boundary, and never that."""
    return _form(port, lambda: endless(b"x"))


@_attack("line ends without end")
def line_ends(port: int) -> Outcome:
    """Send what a parser may skip before the first boundary."""
    return _form(port, lambda: endless(b"\r\n"))


@_attack("a header of a part without end")
def part_header(port: int) -> Outcome:
    """Begin a part whose header does not end."""
    return _form(port, lambda: itertools.chain([b"--edge\r\nX: "], endless(b"x")))


@_attack("headers of a part without end")
def part_headers(port: int) -> Outcome:
    """Begin a part that has ever more headers."""
    return _form(port, lambda: itertools.chain([b"--edge\r\n"], endless(b"X: y\r\n")))


@_attack("100,000 parts")
def parts(port: int) -> Outcome:
    """Send fields, one after the other."""
    return _form(port, lambda: itertools.repeat((begin_part("x") + b"\r\n") * 500, 200))


@_attack("100,000 files")
def files(port: int) -> Outcome:
    """Send files with nothing in them, to nobody, one after the other."""
    many = (begin_part("file", "a") + b"\r\n") * 500
    return _push_chunked(port, form_head(_CHUNKED, path="/realtime/binary/upload"), lambda: itertools.repeat(many, 200))


@_attack("a field without end")
def field(port: int) -> Outcome:
    """Send a field that does not end."""
    return _form(port, lambda: itertools.chain([begin_part("x")], endless(b"x")))


@_attack("a file without end")
def file(port: int) -> Outcome:
    """Send a file that does not end."""
    return _form(port, lambda: itertools.chain([begin_part("file", "a")], endless(b"x")))


@_attack("boundaries that are nearly right")
def boundaries(port: int) -> Outcome:
    """Send a file of what nearly ends it, so that a parser looks back again and again."""
    return _form(port, lambda: itertools.chain([begin_part("file", "a")], endless(b"\r\n--edg\r\n--\r\n-\r\r\n")))


@_attack("an epilogue without end")
def epilogue(port: int) -> Outcome:
    """End a form, and send more."""
    return _form(port, lambda: itertools.chain([begin_part("file", "a") + b"x\r\n--edge--\r\n"], endless(b"x")))


# Bodies


@_attack("files of 10 GB")
def huge(port: int) -> Outcome:
    """Announce 10 GB, and begin to send them: as a body, and in a form."""
    length = f"Content-Length: {10 * 2**30}"
    with Attacker.on(port) as attacker:
        for _ in range(_COUNT):
            attacker.push(attacker.open(), itertools.chain([get(_SEND, length, method="POST")], endless(b"x")))
            form = form_head(length) + begin_part("file", "a")
            attacker.push(attacker.open(), itertools.chain([form], endless(b"x")))
        return attacker.wait()


@_attack("a file in chunks of HTTP without end")
def endless_body(port: int) -> Outcome:
    """Send a body that does not say how long it is."""
    return _push_chunked(port, get(_SEND, _CHUNKED, method="POST"), lambda: endless(b"x"))


@_attack("bodies that stop")
def stopping(port: int) -> Outcome:
    """Send the most of a file, so that it is stored so far, and no more."""
    length = "Content-Length: 300000"
    with Attacker.on(port) as attacker:
        for _ in range(_COUNT):
            attacker.push(attacker.open(), [get(_SEND, length, method="POST") + b"x" * 200_000])
            attacker.push(attacker.open(), [form_head(length) + begin_part("file", "a") + b"x" * 200_000])
        return attacker.wait()


@_attack("bodies that break off")
def broken(port: int) -> Outcome:
    """Send the most of a file, and go; some without the courtesy of an end."""
    length = "Content-Length: 300000"
    with Attacker.on(port) as attacker:
        for number in range(2 * _COUNT):
            sock = attacker.open()
            attacker.push(sock, [get(_SEND, length, method="POST") + b"x" * 200_000])
            attacker.drop(sock, reset=number % 2 == 0)
        return attacker.outcome


@_attack("compressed files")
def compressed(port: int) -> Outcome:
    """Send 10 MB in 10 KB: as a body, and in a form."""
    body = gzip.compress(b"x" * 10_000_000)
    headers = ("Content-Encoding: gzip", f"Content-Length: {len(body)}", "Connection: close")
    with Attacker.on(port) as attacker:
        for _ in range(_COUNT):
            attacker.push(attacker.open(), [get(_SEND, *headers, method="POST") + body])
            attacker.push(attacker.open(), [form_head(*headers) + body])
        return attacker.wait()


# Reading


def keep(port: int, data: bytes, path: str = "/realtime/binary/send?channel=room") -> str:
    """Send a file as anybody does; returns where it is."""
    response = httpx2.post(f"http://127.0.0.1:{port}{path}", content=data, timeout=30.0, trust_env=False)
    assert response.status_code == 200, response.text
    return str(response.json()["url"])


@_attack("thousands of ranges")
def ranges(port: int) -> Outcome:
    """Ask for very many parts at once: disjoint ones, the same again and again, and huge numbers."""
    url = keep(port, b"x" * 10_000)
    shapes = [
        ",".join(f"{number}-{number}" for number in range(0, 2600, 2)),
        ",".join(["0-"] * 4000),
        ",".join(["-1"] * 4000),
        "9" * 12_000 + "-",
        "," * 12_000,
    ]
    with Attacker.on(port) as attacker:
        for shape in shapes * 4:
            attacker.push(attacker.open(), [get(url, f"Range: bytes={shape}", "Connection: close")])
        return attacker.wait()


@_attack("who does not read a download")
def unread(port: int) -> Outcome:
    """Ask for files, and take nothing; the head alone fits into what the system holds."""
    url = keep(port, b"x" * 2**20)
    with Attacker.on(port) as attacker:
        for _ in range(_COUNT):
            attacker.send(attacker.open(receive_buffer=4096), get(url) * 20)
        attacker.wait_unread()
        return attacker.outcome
