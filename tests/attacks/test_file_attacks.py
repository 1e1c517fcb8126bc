"""Hostile clients that send and fetch files, beside an ordinary one that notices nothing.

Whatever they do ends as the server says, memory stays within bounds, and nothing of what was not taken is left on the
disk. A file that somebody else sends meanwhile, or afterwards, is taken and read back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from typing import Final
from urllib.parse import quote

import pytest

from rtcore.binary import encode_payload

from .attacker import Attacker, get
from .file_attacks import FILE_ATTACKS, FORM, begin_part
from .keeper import Keeper, keeping, talking

_BACKENDS: Final = ("asyncio", "trio")

#: What becomes of the connections of each attack.
_ENDS: Final[dict[str, dict[str, int]]] = {
    "a preamble without end": {"400": 10},
    "line ends without end": {"413": 10},
    "a header of a part without end": {"400": 10},
    "headers of a part without end": {"400": 10},
    "100,000 parts": {"413": 10},
    "100,000 files": {"413": 10},
    "a field without end": {"413": 10},
    "a file without end": {"413": 10},
    "boundaries that are nearly right": {"413": 10},
    "an epilogue without end": {"413": 10},
    "files of 10 GB": {"413": 20},
    "a file in chunks of HTTP without end": {"413": 10},
    "bodies that stop": {"408": 20},
    "bodies that break off": {},
    "compressed files": {"415": 20},
    # Several ranges are the whole file once, and that no byte of it is at such a place is told.
    "thousands of ranges": {"200": 16, "416": 4},
    "who does not read a download": {"open": 10},
}


@pytest.fixture(params=_BACKENDS, scope="module")
def keeper(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keeper]:
    with keeping(tmp_path_factory.mktemp("server"), "--backend", request.param) as running:
        yield running


# Over HTTP


@pytest.mark.parametrize("name", _ENDS)
def test_an_attack(keeper: Keeper, name: str) -> None:
    before = keeper.stats["files"]
    with keeper.attacked():
        ends = FILE_ATTACKS[name](keeper.server.port).ends
        kept = keeper.stats["files"] - before
        # Those of the attacks on reading are there: the file, and what is known of it.
        assert kept == (name in ("thousands of ranges", "who does not read a download"))
        keeper.wait_until_left([each for each in keeper.left if not each.endswith(".part")])
        assert len(keeper.left) == 2 * (before + kept)
    assert ends == _ENDS[name]


def test_bodies_that_drip(keeper: Keeper) -> None:
    """Who goes on is served, however slowly: it takes up a socket, and nothing on the disk, nor in anybody's way."""
    before = keeper.left
    head = get("/realtime/binary/send?channel=drips", "Content-Length: 10000", method="POST")
    with keeper.attacked(), Attacker.on(keeper.server.port) as attacker:
        attacker.open_many(50, head + b"x" * 5000)
        assert attacker.wait(say=lambda: b"x", timeout=3.0).ends == {"open": 50}
        assert keeper.left == before
    keeper.wait_until_left(keeper.left)


@pytest.mark.parametrize(
    "path",
    [
        "../../etc/passwd",
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/etc/passwd",
        "....//....//etc/passwd",
        "/etc/passwd",
        "%00",
        "0" * 31 + "%0a",
        "F" * 32,
        "0" * 32,
        "0" * 32 + ".json",
        "0" * 10_000,
    ],
)
def test_ids_that_are_paths(keeper: Keeper, path: str) -> None:
    with keeper.attacked(), Attacker.on(keeper.server.port) as attacker:
        attacker.open_many(1, get(f"/realtime/binary/{path}", "Connection: close"))
        assert attacker.wait().ends == {"404": 1}


@pytest.mark.parametrize(
    "name", ["../../a.txt", "..\\..\\a.txt", "/a.txt", "C:\\a.txt", "a/../../a.txt", "\\\\host\\a.txt"]
)
def test_names_that_are_paths(keeper: Keeper, name: str) -> None:
    """The last part is all that is left of it, in a query and in a form; and the disk knows no names."""
    with keeper.attacked(), keeper.http() as http:
        before = set(keeper.left)
        told = keeper.send(b"x", filename=name).json()
        assert told["filename"] == "a.txt"
        escaped = name.replace("\\", "\\\\").encode()
        form = (
            b'--edge\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n\r\nx\r\n--edge--\r\n' % escaped
        )
        headers = dict([FORM.split(": ")])
        [file] = http.post("/binary/upload?channel=room", content=form, headers=headers).json()["files"]
        assert file["filename"] == "a.txt"
        ids = (told["file_id"], file["file_id"])
        assert set(keeper.left) - before == {f"{each[:2]}/{each}{end}" for each in ids for end in ("", ".json")}


@pytest.mark.parametrize("name", ["..", ".", "a/..", "a\0b", "a\r\nSet-Cookie: b", "x" * 256])
def test_names_that_are_none(keeper: Keeper, name: str) -> None:
    before = keeper.left
    answer = keeper.send(b"x", filename=name)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_filename")
    assert keeper.left == before


def test_a_form_within_a_form(keeper: Keeper) -> None:
    """What looks like a part inside of a file is in that file."""
    inner = begin_part("channel").replace(b"--edge", b"--edges") + b"secret\r\n"
    form = begin_part("file", "a") + inner + b"\r\n--edge--\r\n"
    with keeper.attacked(), keeper.http() as http:
        answer = http.post("/binary/upload?channel=room", content=form, headers=dict([FORM.split(": ")]))
        # A delimiter with more behind it is none, and is refused rather than guessed at.
        if answer.status_code == 200:
            [file] = answer.json()["files"]
            assert file["channel"] == "room"
            assert http.get(f"/binary/{file['file_id']}").content == inner
        else:
            assert answer.json()["error"]["code"] == "malformed_form"


# In chunks


def test_uploads_that_are_begun_and_left(keeper: Keeper) -> None:
    """A connection has few, all together some: those whose senders are away make room for who comes."""
    before = keeper.left
    with keeper.attacked():
        for number in range(40):
            with talking(keeper) as talk:
                answers = [talk.begin(f"left-{number}-{each}") for each in range(20)]
                assert Counter(answer.get("code", "ok") for answer in answers) == {"ok": 8, "too_many_uploads": 12}
        assert keeper.stats["uploads"] == 128
        assert keeper.left == before
        with talking(keeper) as talk:
            talk.begin("mine", 3)
            talk.chunk("mine", 0, b"abc", sha256(b"abc").hexdigest())
            assert talk.hear_end("mine")["file"]["size"] == 3


def test_uploads_in_tiny_chunks(keeper: Keeper) -> None:
    """A file a byte at a time arrives, and costs what is in it."""
    data = bytes(range(256)) * 20
    with keeper.attacked(), talking(keeper) as talk:
        talk.begin("tiny", len(data))
        for offset in range(len(data)):
            talk.chunk("tiny", offset, data[offset : offset + 1])
        talk.chunk("tiny", len(data), b"", sha256(data).hexdigest())
        assert talk.hear_end("tiny")["file"]["sha256"] == sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("chunks", "code"),
    [
        ([(0, b"x" * 65537, None)], "chunk_too_large"),
        ([(1, b"x", None)], "wrong_offset"),
        ([(2**50, b"x", None)], "wrong_offset"),
        ([(0, b"x" * 60_000, None), (60_000, b"x" * 60_000, None)], "too_long"),
        ([(0, b"x" * 60_000, "0" * 64)], "incomplete"),
        ([(0, b"x" * 60_000, None), (60_000, b"x" * 40_000, "0" * 64)], "checksum_mismatch"),
    ],
)
def test_chunks_that_lie(keeper: Keeper, chunks: list[tuple[int, bytes, str | None]], code: str) -> None:
    """An upload that breaks the rules ends, and nothing of it is left; the connection goes on."""
    before = keeper.left
    with keeper.attacked(), talking(keeper) as talk:
        for number in range(20):
            upload_id = f"lie-{code}-{number}"
            talk.begin(upload_id, 100_000)
            for offset, data, digest in chunks:
                talk.chunk(upload_id, offset, data, digest)
            if code != "checksum_mismatch":
                # What comes behind was under way, and is answered no more. (Where all has come, it is more than all.)
                talk.chunk(upload_id, 0, b"late")
            assert talk.hear_end(upload_id)["error"]["code"] == code
        keeper.wait_until_left(before)
        talk.chunk("nobody's", 0, b"x")
        assert talk.hear()["code"] == "invalid_upload"
        talk.chunk("nobodys", 0, b"x")
        assert talk.hear_end("nobodys")["error"]["code"] == "unknown_upload"


def test_chunks_without_waiting(keeper: Keeper) -> None:
    """Who sends on without a look at what is stored is stopped at the window, or served where that is fast enough."""
    with keeper.attacked(), talking(keeper) as talk:
        outcomes = set()
        for number in range(10):
            upload_id = f"fast-{number}"
            talk.begin(upload_id, 2**20)
            for offset in range(0, 2**20, 2**16):
                last = sha256(bytes(2**20)).hexdigest() if offset == 2**20 - 2**16 else None
                talk.chunk(upload_id, offset, bytes(2**16), last)
            outcomes.add(talk.hear_end(upload_id).get("error", {}).get("code"))
        assert outcomes <= {None, "window_exceeded"}
        keeper.wait_until_left([each for each in keeper.left if not each.endswith(".part")])


def test_frames_that_are_no_messages(keeper: Keeper) -> None:
    """Each is refused by itself, and the connection goes on."""
    payloads = {
        b"": "malformed_binary",
        b"\xff\xff\xff\xff": "malformed_binary",
        b"\0\0\0\0": "malformed_binary",
        (2**16).to_bytes(4, "big") + b"[" * 2**16: "malformed_binary",
        encode_payload(b'{"type":"binary","x":' + b"[" * 200 + b"]" * 200 + b"}", b""): "malformed_binary",
        encode_payload({"type": "text"}, b"x"): "reserved_type",
        encode_payload({"type": "upload"}, b"x"): "reserved_type",
        encode_payload({"type": "binary", "file_id": "x"}, b"x"): "reserved_field",
        encode_payload({"type": "binary", "filename": ".."}, b"x"): "invalid_filename",
        encode_payload({"type": "binary", "content_type": "a\r\nb: c"}, b"x"): "invalid_content_type",
        encode_payload({"type": "binary", "content_type": "image/png"}, b"<script>"): "content_mismatch",
    }
    with keeper.attacked(), talking(keeper) as talk:
        for payload, code in payloads.items():
            for _ in range(20):
                talk.websocket.send(payload)
                assert talk.hear()["code"] == code, quote(payload[:100])
