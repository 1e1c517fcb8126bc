"""Pictures, sounds and films, made here, and how they get into a page."""

from __future__ import annotations

import base64
import io
import random
import struct
import wave
import zlib
from collections.abc import Sequence

from playwright.sync_api import Locator, Page, expect

__all__ = ["HOSTILE_SVG", "drop", "film", "picture", "received", "sound"]

#: A picture that is a document too, and tells if its script runs.
HOSTILE_SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30" onload="top.owned = 1">'
    b'<script>top.owned = 1; top.document.title = "owned"</script><rect width="40" height="30" fill="red"/></svg>'
)

# By a drop: files from a script are what files from a folder are.
_DROP = """([selector, files]) => {
  const dataTransfer = new DataTransfer();
  for (const { name, type, data } of files) {
    const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
    dataTransfer.items.add(new File([bytes], name, { type }));
  }
  const target = document.querySelector(selector);
  for (const name of ["dragenter", "dragover", "drop"]) {
    target.dispatchEvent(new DragEvent(name, { dataTransfer, bubbles: true, cancelable: true }));
  }
}"""

# Each picture stands alone, so that any may be gone to.
_FILM = """async ({ width, height, count, interval }) => {
  const chunks = [];
  const encoder = new VideoEncoder({
    output: (chunk) => {
      const data = new Uint8Array(chunk.byteLength);
      chunk.copyTo(data);
      let text = "";
      for (let at = 0; at < data.length; at += 4096) text += String.fromCharCode(...data.subarray(at, at + 4096));
      chunks.push(btoa(text));
    },
    error: (error) => { throw error; },
  });
  encoder.configure({ codec: "vp8", width, height, framerate: 1000 / interval });
  for (let number = 0; number < count; number += 1) {
    const pixels = new Uint8Array(width * height * 4).fill(number * 10);
    const format = { format: "RGBX", codedWidth: width, codedHeight: height, timestamp: number * interval * 1000 };
    const frame = new VideoFrame(pixels, format);
    encoder.encode(frame, { keyFrame: true });
    frame.close();
  }
  await encoder.flush();
  return chunks;
}"""


def picture(width: int = 40, height: int = 30, *, noise: bool = False) -> bytes:
    """Return a PNG (RFC 2083); with noise in it, it has about three bytes for each pixel."""
    lots = random.Random(width)
    colour = bytes(range(0, 240, 80))
    rows = ((lots.randbytes(3 * width) if noise else colour * width) for _ in range(height))
    data = zlib.compress(b"".join(b"\0" + row for row in rows), 1)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def sound(seconds: float = 0.5, rate: int = 8000) -> bytes:
    """Return a WAV of a hum, with two bytes for each sample."""
    output = io.BytesIO()
    with wave.open(output, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(b"".join(struct.pack("<h", (number % 80) * 100) for number in range(int(seconds * rate))))
    return output.getvalue()


def _element(identity: int, *content: bytes) -> bytes:
    data = b"".join(content)
    # RFC 8794, section 4: the length has a one in front, here always behind seven zeros.
    return identity.to_bytes((identity.bit_length() + 7) // 8, "big") + (len(data) | 1 << 56).to_bytes(8, "big") + data


def _number(identity: int, value: int) -> bytes:
    return _element(identity, value.to_bytes(8, "big"))


def film(page: Page, *, width: int = 320, height: int = 240, count: int = 16, interval: int = 500) -> bytes:
    """Return a WebM (RFC 9559) of so many pictures, one each `interval` milliseconds, whose index is at its end.

    There are 8 MiB of nothing before the second half.
    """
    asked = {"width": width, "height": height, "count": count, "interval": interval}
    pictures = [base64.b64decode(text) for text in page.evaluate(_FILM, asked)]
    head = _element(
        0x1A45DFA3,
        *(_number(identity, value) for identity, value in ((0x4286, 1), (0x42F7, 1), (0x42F2, 4), (0x42F3, 8))),
        _element(0x4282, b"webm"),
        _number(0x4287, 4),
        _number(0x4285, 2),
    )
    info = _element(
        0x1549A966,
        _number(0x2AD7B1, 1_000_000),
        _element(0x4489, struct.pack(">d", count * interval)),
        _element(0x4D80, b"rtcore"),
        _element(0x5741, b"rtcore"),
    )
    video = _element(0xE0, _number(0xB0, width), _number(0xBA, height))
    track = _element(0xAE, _number(0xD7, 1), _number(0x73C5, 1), _number(0x83, 1), _element(0x86, b"V_VP8"), video)
    tracks = _element(0x1654AE6B, track)
    void = _element(0xEC, bytes(8 * 2**20))
    clusters = [
        _element(0x1F43B675, _number(0xE7, number * interval), _element(0xA3, b"\x81\0\0\x80", data))
        for number, data in enumerate(pictures)
    ]

    def seek_head(cues_at: int) -> bytes:
        return _element(0x114D9B74, _element(0x4DBB, _element(0x53AB, b"\x1c\x53\xbb\x6b"), _number(0x53AC, cues_at)))

    position = len(seek_head(0)) + len(info) + len(tracks)
    points = []
    for number, cluster in enumerate(clusters):
        if number == count // 2:
            position += len(void)
        place = _element(0xB7, _number(0xF7, 1), _number(0xF1, position))
        points.append(_element(0xBB, _number(0xB3, number * interval), place))
        position += len(cluster)
    cues = _element(0x1C53BB6B, *points)
    clusters.insert(count // 2, void)
    return head + _element(0x18538067, seek_head(position), info, tracks, *clusters, cues)


def drop(page: Page, *files: tuple[str, str, bytes], onto: str = "#messages") -> None:
    """Drop files onto a page: the name, the media type and the content of each."""
    described = [{"name": name, "type": kind, "data": base64.b64encode(data).decode()} for name, kind, data in files]
    page.evaluate(_DROP, [onto, described])


def received(page: Page, names: Sequence[str]) -> Locator:
    """Wait until a page shows files called so, in that order, and return them."""
    files = page.locator("[data-testid=file]")
    expect(files.locator(".file-name")).to_have_text(list(names))
    return files
