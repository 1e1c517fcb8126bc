"""What the tests of a file that a client sends in chunks say to its machine, and bring it to."""

from __future__ import annotations

from hashlib import sha256

from rtcore.binary import encode_payload
from rtcore.client import Ask, SendChunk, Upload, UploadEffect

HEAD = {"channel": "a", "filename": "a.bin", "content_type": "image/png"}
CONTENT = bytes(range(10))
FORGOTTEN = "the server has forgotten the file, of which all was sent: it may have been published or not"


def begin(number: int, size: int = 10, **fields: object) -> Ask:
    return Ask(number, "begin_upload", {**HEAD, "upload_id": "u", "size": size, **fields})


def cancel(number: int) -> Ask:
    return Ask(number, "cancel_upload", {"upload_id": "u"})


def new(size: int = 10) -> Upload:
    return Upload("u", HEAD, size)


def answer(upload: Upload, number: int, offset: int = 0, **fields: object) -> list[UploadEffect]:
    """Let the server say from where to go on: by chunks of 4 bytes, 8 of which may be under way."""
    data = {"upload_id": "u", "offset": offset, "window": 8, "chunk_size": 4, **fields}
    return upload.answered(number, data, now=0.0)


def begun(content: bytes = CONTENT) -> Upload:
    upload = new(len(content))
    assert upload.connected(now=0.0) == [begin(1, len(content))]
    answer(upload, 1)
    return upload


def chunk(offset: int, content: bytes = CONTENT, size: int = 4) -> SendChunk:
    head: dict[str, object] = {"type": "chunk", "upload_id": "u", "offset": offset}
    data = content[offset : offset + size]
    if offset + len(data) == len(content):
        head["sha256"] = sha256(content).hexdigest()
    return SendChunk(encode_payload(head, data))


def read(upload: Upload, offset: int, content: bytes = CONTENT, size: int = 4) -> list[UploadEffect]:
    return upload.read(content[offset : offset + size], now=0.0)


def stored(upload: Upload, offset: int) -> list[UploadEffect]:
    return upload.received({"type": "upload", "upload_id": "u", "offset": offset}, now=0.0)


def failure(upload: Upload, code: str, message: str = "no", now: float = 0.0) -> list[UploadEffect]:
    error = {"code": code, "message": message}
    return upload.received({"type": "upload", "upload_id": "u", "error": error}, now=now)


def kept(content: bytes = CONTENT, **fields: object) -> dict[str, object]:
    digest = sha256(content).hexdigest()
    file = {"file_id": "f", "url": "/realtime/binary/f", "size": len(content), "sha256": digest, "id": "m", **fields}
    return {"type": "upload", "upload_id": "u", "offset": len(content), "file": file}


def sent() -> Upload:
    """Return an upload of which all was sent."""
    upload = begun()
    read(upload, 0)
    read(upload, 4)
    stored(upload, 8)
    assert read(upload, 8) == [chunk(8)]
    return upload


def fault(reason: str) -> str:
    return f"the server does not keep to the protocol: {reason}"
