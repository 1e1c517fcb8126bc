"""What is in a file, told by its first bytes: what goes by which media type, and what does not."""

from __future__ import annotations

import gzip
import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore import Refusal
from rtcore.uploads import FileConfig
from rtcore_adapters.content import inspect

HEAD_SIZE = FileConfig().head_size


def zipped(**files: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return data.getvalue()


REST = bytes(range(256)) * 2

#: How files begin, and by which types they go.
BEGINNINGS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "png": (b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR", ("image/png", "image/apng", "image/x-mine", "application/x-mine")),
    "jpeg": (b"\xff\xd8\xff\xe0\0\x10JFIF\0", ("image/jpeg", "image/jpg", "image/pjpeg")),
    "exif": (b"\xff\xd8\xff\xe1\0\x10Exif\0", ("image/jpeg",)),
    "gif": (b"GIF89a\1\0\1\0", ("image/gif",)),
    "webp": (b"RIFF\x10\0\0\0WEBPVP8 ", ("image/webp",)),
    "bmp": (b"BM\x36\0\0\0\0\0\0\0\x36\0\0\0", ("image/bmp", "image/x-ms-bmp", "image/x-bmp")),
    "tiff": (b"II*\0\x08\0\0\0", ("image/tiff", "image/x-adobe-dng")),
    "jxl": (b"\0\0\0\x0cJXL \r\n\x87\n", ("image/jxl",)),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", ("image/heic", "image/heif")),
    "avif": (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", ("image/avif",)),
    "mp4": (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2", ("video/mp4", "audio/mp4", "video/quicktime", "application/mp4")),
    "m4a": (b"\0\0\0\x20ftypM4A \0\0\2\0", ("audio/mp4", "audio/x-m4a", "audio/m4a", "video/mp4")),
    "3gp": (b"\0\0\0\x18ftyp3gp5\0\0\0\0", ("video/3gpp", "audio/3gpp", "video/mp4")),
    "mov": (b"\0\0\0\x14ftypqt  \0\0\2\0qt  ", ("video/quicktime", "video/mp4")),
    "old mov": (b"\0\0\x10\x14moov\0\0\0\x6cmvhd", ("video/quicktime",)),
    "webm": (b"\x1aE\xdf\xa3\x9fB\x86\x81\1B\xf7\x81\1B\x82\x84webm", ("video/webm", "audio/webm", "video/x-matroska")),
    "mkv": (b"\x1aE\xdf\xa3\xa3B\x86\x81\1B\xf7\x81\1B\x82\x88matroska", ("video/x-matroska", "audio/x-matroska")),
    "ogg": (b"OggS\0\2" + bytes(20) + b"\1\x1e\1vorbis", ("audio/ogg", "video/ogg", "application/ogg", "audio/vorbis")),
    "avi": (b"RIFF\0\0\0\0AVI LIST", ("video/avi", "video/x-msvideo", "video/vnd.avi")),
    "mpeg": (b"\0\0\1\xba\x44\0\4\0\4\1", ("video/mpeg",)),
    "ts": ((b"G@\0\x10" + b"\xff" * 184) * 4, ("video/mp2t",)),
    "wav": (b"RIFF\x24\0\0\0WAVEfmt ", ("audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave")),
    "flac": (b"fLaC\0\0\0\x22", ("audio/flac", "audio/x-flac")),
    "mp3": (b"\xff\xfb\x90\x64\0\0", ("audio/mpeg", "audio/mp3", "audio/x-mpeg")),
    "tagged mp3": (b"ID3\3\0\0\0\0\0\x21TSS", ("audio/mpeg", "audio/mp3")),
    "aac": (b"\xff\xf1\x50\x80\0\x1f\xfc", ("audio/aac", "audio/x-aac", "audio/aacp")),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3", ("application/pdf", "application/x-pdf", "application/illustrator")),
    "zip": (zipped(a="b"), ("application/zip", "application/x-zip-compressed", "application/x-mine", "model/3mf")),
    "docx": (
        zipped(**{"[Content_Types].xml": "<Types/>", "word/document.xml": "<w/>"}),
        (
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            "application/zip",
            "application/java-archive",
        ),
    ),
    "odt": (
        zipped(mimetype="application/vnd.oasis.opendocument.text"),
        ("application/vnd.oasis.opendocument.text", "application/epub+zip", "application/zip"),
    ),
    "gzip": (gzip.compress(b"hello"), ("application/gzip", "application/x-gzip", "application/x-tgz")),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4", ("application/x-7z-compressed",)),
    "rar": (b"Rar!\x1a\7\1\0", ("application/vnd.rar", "application/x-rar-compressed")),
    "elf": (b"\x7fELF\2\1\1\0", ("application/x-elf", "application/x-executable", "application/x-sharedlib")),
    "exe": (
        b"MZ\x90\0\3\0\0\0" + bytes(52) + b"\x80\0\0\0" + bytes(64) + b"PE\0\0",
        ("application/vnd.microsoft.portable-executable", "application/x-msdownload", "application/x-mine"),
    ),
    "mach": (b"\xcf\xfa\xed\xfe\7\0\0\1", ("application/x-mach-binary",)),
    "html": (b"<!DOCTYPE html>\n<html><body>hi", ("text/html", "text/plain", "application/xhtml+xml", "text/markdown")),
    "xhtml": (b"<?xml version='1.0'?><html xmlns='x'>", ("application/xhtml+xml", "text/html")),
    "svg": (
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        ("image/svg+xml", "text/xml", "text/plain", "application/xml"),
    ),
    "documented svg": (
        b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- a <b> - -- comment -->\n<!DOCTYPE svg [<!ENTITY a 'b'>] >\n<svg:svg>",
        ("image/svg+xml", "application/xml"),
    ),
    "utf-16 svg": ("\ufeff<svg width='1'>".encode("utf-16-le"), ("image/svg+xml", "text/plain")),
    "xml": (b" <?xml version='1.0'?><feed/>", ("application/xml", "text/xml", "application/atom+xml", "text/plain")),
    "psd": (b"8BPS\0\1\0\0\0\0\0\0", ("image/vnd.adobe.photoshop",)),
    "midi": (b"MThd\0\0\0\6\0\1", ("audio/midi",)),
    "flv": (b"FLV\1\5\0\0\0\x09", ("video/x-flv",)),
    "aiff": (b"FORM\0\0\0\0AIFFCOMM", ("audio/aiff", "audio/x-aiff")),
    "wmv": (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), ("video/x-ms-wmv", "video/x-ms-asf", "audio/x-ms-wma")),
    "amr": (b"#!AMR\n\x3c", ("audio/amr",)),
    "ico": (b"\0\0\1\0\1\0\x10\x10", ("image/x-icon", "image/vnd.microsoft.icon")),
    "jp2": (b"\0\0\0\x0cjP  \r\n\x87\n", ("image/jp2",)),
    "au": (b".snd\0\0\0\x18", ("audio/basic",)),
}

ALWAYS = "application/octet-stream"


@pytest.mark.parametrize("name", BEGINNINGS)
def test_what_a_file_goes_by(name: str) -> None:
    head, types = BEGINNINGS[name]
    for media_type in (*types, ALWAYS):
        assert inspect(media_type, head) is None, media_type
        assert inspect(f'{media_type.upper()}; a="b"', head + REST) is None, media_type


#: One of each family: none goes by the type of another.
APART = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/bmp": "bmp",
    "image/tiff": "tiff",
    "image/jxl": "jxl",
    "image/heic": "heic",
    "video/mp4": "mp4",
    "video/webm": "webm",
    "video/ogg": "ogg",
    "video/x-msvideo": "avi",
    "video/mpeg": "mpeg",
    "audio/wav": "wav",
    "audio/flac": "flac",
    "audio/mpeg": "mp3",
    "application/pdf": "pdf",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/gzip": "gzip",
    "application/vnd.rar": "rar",
    "application/x-7z-compressed": "7z",
    "application/x-executable": "elf",
    "application/x-msdownload": "exe",
    "application/x-mach-binary": "mach",
    "text/html": "html",
}


@pytest.mark.parametrize("media_type", APART)
def test_what_a_file_does_not_go_by(media_type: str) -> None:
    for other, name in APART.items():
        refusal = inspect(media_type, BEGINNINGS[name][0])
        if other == media_type:
            assert refusal is None
        else:
            assert refusal is not None, other
            assert (refusal.code, refusal.status) == ("content_mismatch", 415)


def test_the_refusal_names_both() -> None:
    assert inspect("image/png; q=1", BEGINNINGS["docx"][0]) == Refusal(
        "content_mismatch",
        "what is in this file is application/zip, and it is said to be image/png: "
        "send it as what it is, or as application/octet-stream",
        status=415,
    )
    assert inspect("image/png", b"just some words") == Refusal(
        "content_mismatch",
        "what is in this file is not known as an image, and it is said to be image/png: "
        "send it as what it is, or as application/octet-stream",
        status=415,
    )


TEXTS = (
    b"just some words",
    "слова, BOM и всё".encode("utf-16"),
    b"BMW is a car",
    b"MZ is what executables begin with, and what follows is PE",
    b"for free, and wide open",
    b"Good day to you all. " * 40,
    b"Ggg" * 400,
    b'{"a": 1}',
    b"#!/bin/sh\n",
    b"a < b",
    b"\xff",
    b"\xd0\xcf",
    b"",
)


@pytest.mark.parametrize("head", TEXTS)
def test_texts(head: bytes) -> None:
    for media_type in ("text/plain", "text/csv", "application/json", "application/pdf", "application/x-mine", ALWAYS):
        assert inspect(media_type, head) is None, media_type
    for media_type in ("image/png", "image/svg+xml", "image/x-mine", "audio/mpeg", "audio/x-mine", "video/mp4"):
        assert inspect(media_type, head) is not None, media_type


@pytest.mark.parametrize(
    ("media_type", "name"),
    [
        ("text/plain", "png"),
        ("text/plain", "exe"),
        ("text/html", "pdf"),
        ("application/json", "zip"),
        ("image/svg+xml", "html"),
        ("image/svg+xml", "xhtml"),
        ("image/svg+xml", "png"),
        ("image/png", "svg"),
        ("image/png", "html"),
        ("image/x-mine", "exe"),
        ("image/x-mine", "mp4"),
        ("audio/x-mine", "png"),
        ("video/x-mine", "wav"),
        ("audio/x-mine", "psd"),
        ("application/zip", "html"),
        ("application/pdf", "svg"),
    ],
)
def test_disguises(media_type: str, name: str) -> None:
    refusal = inspect(media_type, BEGINNINGS[name][0])
    assert refusal is not None
    assert refusal.code == "content_mismatch"


@pytest.mark.parametrize(
    "head",
    [
        b"<!---->" * 1_100 + b"<",
        b"<!--" * 2_000,
        b"<?a?>" * 1_600,
        b" " * 8_192,
        b"<!doctype svg [" + b"]" * 8_000,
        b"MZ" + b"PE\0" * 2_700,
        b"G" * 8_192,
        b"\0" * 8_192,
    ],
)
def test_what_is_made_to_take_long_is_told_like_anything(head: bytes) -> None:
    assert inspect("text/plain", head[:HEAD_SIZE]) is None
    assert inspect("image/png", head[:HEAD_SIZE]) is not None


@given(
    st.sampled_from([*APART, "text/plain", "image/svg+xml", "application/x-mine", "image/x-mine", ALWAYS]),
    st.binary(max_size=64) | st.sampled_from([head for head, _ in BEGINNINGS.values()]),
    st.binary(max_size=64),
)
def test_any_bytes_are_taken_or_refused(media_type: str, beginning: bytes, rest: bytes) -> None:
    refusal = inspect(media_type, beginning + rest)
    assert refusal is None or (refusal.code, refusal.status) == ("content_mismatch", 415)
    assert inspect(ALWAYS, beginning + rest) is None


@given(st.text())
def test_no_text_is_refused_as_a_text(text: str) -> None:
    assert inspect("text/plain", text.encode(errors="replace")) is None
