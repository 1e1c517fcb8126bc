"""What is in a file, told by its first bytes.

What is known for sure is in a table: what browsers show, after WHATWG MIME Sniffing (sections 6 and 7.1), what other
files are packed in, and executables. Whether something is an image, sound or a video of another kind, puremagic tells.
"""

from __future__ import annotations

import codecs
import mimetypes
import re
from typing import Final

import attrs

from rtcore import Refusal
from rtcore.media_types import OCTET_STREAM, essence_of

__all__ = ["inspect"]


def inspect(content_type: str, head: bytes) -> Refusal | None:
    """Tell why what is said to be of a media type is not.

    ``application/octet-stream`` may be anything. What is known for sure must be called something that it may be, and
    what is called an image, sound or a video must be known as one. A type that is neither in the table nor one of
    these, such as ``application/x-mine``, nothing contradicts: what it looks like inside, nobody knows.

    Args:
        content_type: What it is said to be; its parameters do not count.
        head: Its first bytes: some thousands, or all there are.

    Returns:
        ``content_mismatch`` (415), or ``None`` where it may be.
    """
    essence = essence_of(content_type)
    if essence == OCTET_STREAM:
        return None
    kind, text = _kind_of(essence), _text_of(head)
    for content in _CONTENTS:
        if content.signature.match(text if "text" in content.kinds else head):
            if content.types.fullmatch(essence):
                return None
            if kind in (*content.kinds, None) and not any(other.types.fullmatch(essence) for other in _CONTENTS):
                return None
            return _mismatch(f"what is in this file is {content.media_type}, and it is said to be {essence}")
    shown = essence.partition("/")[0]
    if shown in _SHOWN and not _is_any(shown, head):
        return _mismatch(f"what is in this file is not known as {_SHOWN[shown]}, and it is said to be {essence}")
    return None


def _mismatch(fault: str) -> Refusal:
    text = f"{fault}: send it as what it is, or as {OCTET_STREAM}"
    return Refusal("content_mismatch", text, status=415)


# Kinds of media types

# What browsers show: there it must be known that it is that.
_SHOWN: Final = {"image": "an image", "audio": "sound", "video": "a video"}

# What is text, whatever it is called.
_TEXT: Final = re.compile(
    r"text/.*|image/svg\+xml|application/(.*\+)?(json|xml|yaml)"
    r"|application/(x-)?(javascript|ecmascript|www-form-urlencoded|sh|sql|toml|ndjson|xml-dtd|rtf)"
)


def _kind_of(essence: str) -> str | None:
    if _TEXT.fullmatch(essence):
        return "text"
    kind = essence.partition("/")[0]
    return kind if kind in _SHOWN else None


def _is_any(kind: str, head: bytes) -> bool:
    # It reads a large table, which a server whose files are in ours never needs.
    import puremagic

    if not head:
        return False
    try:
        found = puremagic.magic_string(head)
    except puremagic.PureError:
        return False
    # One or two bytes, or some further on, are those of some text too.
    known = [match for match in found if match.offset == 0 and len(match.byte_match) >= 3]
    types = [match.mime_type or mimetypes.guess_type(f"x{match.extension}")[0] or "" for match in known]
    return any(media_type.startswith(f"{kind}/") for media_type in types)


# What is known for sure

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def _text_of(head: bytes) -> bytes:
    """Return what begins with a byte order mark as UTF-8 without one, and other things as they are."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return head[len(mark) :].decode(encoding, "replace").encode()
    return head


@attrs.frozen
class _Content:
    """Something that is known by its first bytes.

    Attributes:
        media_type: What it is called.
        signature: How it begins; that of a text does not tell capitals from small letters.
        types: The media types that it may have, a pattern.
        kinds: The kinds of those that are not in this table, and that it may have too.
    """

    media_type: str
    signature: re.Pattern[bytes]
    types: re.Pattern[str]
    kinds: tuple[str, ...]


def _content(media_type: str, signature: bytes, types: str, *kinds: str) -> _Content:
    flags = re.DOTALL | re.IGNORECASE if "text" in kinds else re.DOTALL
    return _Content(media_type, re.compile(signature, flags), re.compile(types), kinds)


# What may come before the first element of XML. It gives nothing back ("*+"), so nothing is tried twice.
_PROLOG: Final = rb"(?:[ \t\n\f\r]|<!--.*?-->|<\?.*?\?>|<!doctype svg\b[^>\[]*+(?:\[[^\]]*+\][^>]*+)?+>)*+"
# Section 7.1 of WHATWG MIME Sniffing; a tag ends in "0x20 (SP) or 0x3E (">")".
_HTML: Final = _PROLOG + (
    rb"<(?:!--|(?:!doctype html|html|head|script|iframe|h1|div|font|table|a|style|title|b|body|br|p)[ >])"
)
# Packets of 188 bytes that begin with 0x47 (ISO/IEC 13818-1, section 2.4.3.2), with what no text has in the first.
_TRANSPORT_STREAM: Final = rb"G(?=.{0,187}[\x00\xff]).{187}G.{187}G"
# Frames of MPEG audio (ISO/IEC 11172-3, section 2.4.2.3) but those of layer I, which begin as UTF-16 does.
_MPEG_AUDIO: Final = rb"ID3[\x02-\x04]|\xff[\xe2\xe3\xf2-\xf5\xfa-\xfd][^\xf0-\xff]"

_MP4_TYPES: Final = r"(video|audio|application)/mp4|video/(quicktime|3gpp2?|x-m4v)|audio/((x-)?m4[ab]|3gpp2?|aac)"
_ZIP_TYPES: Final = (
    r"application/(zip|x-zip(-compressed)?|epub\+zip|(x-)?java-archive|x-xpinstall)|image/openraster"
    r"|application/vnd\.(openxmlformats-officedocument|oasis\.opendocument|ms-(word|excel|powerpoint))\..*"
    r"|application/vnd\.(android\.package-archive|google-earth\.kmz|comicbook\+zip)"
)
_ELF_TYPES: Final = r"application/x-(elf|executable|pie-executable|sharedlib|object|coredump)|application/vnd\.appimage"
_PE_TYPES: Final = r"application/(vnd\.microsoft\.portable-executable|x-(msdownload|dosexec|msdos-program))"

_CONTENTS: Final = (
    _content("image/png", rb"\x89PNG\r\n\x1a\n", r"image/((x-)?png|apng|vnd\.mozilla\.apng)", "image"),
    _content("image/jpeg", rb"\xff\xd8\xff", r"image/(jpe?g|pjpeg)", "image"),
    _content("image/gif", rb"GIF8[79]a", r"image/gif", "image"),
    _content("image/webp", rb"RIFF.{4}WEBP", r"image/webp", "image"),
    _content("image/bmp", rb"BM.{4}\x00{4}", r"image/(x-)?(ms-)?bmp", "image"),
    _content("image/tiff", rb"II\*\x00|MM\x00\*", r"image/tiff", "image"),
    _content("image/jxl", rb"\xff\x0a|\x00\x00\x00\x0cJXL ", r"image/jxl", "image"),
    _content("image/heif", rb"\x00\x00..ftyp(?:avi[fs]|he[iv][cmsx]|m[is]f1|crx )", r"image/(hei[cf].*|avif)", "image"),
    _content("video/mp4", rb"\x00\x00..ftyp|\x00...(?:moov|mdat|wide)", _MP4_TYPES, "video", "audio"),
    _content("video/webm", rb"\x1aE\xdf\xa3", r"(video|audio)/webm|.*/(x-)?matroska.*", "video", "audio"),
    _content("application/ogg", rb"OggS", r"(application|audio|video)/ogg|audio/opus", "video", "audio"),
    _content("video/x-msvideo", rb"RIFF.{4}AVI ", r"video/((x-)?msvideo|(vnd\.)?avi)", "video"),
    _content("video/mpeg", rb"\x00\x00\x01[\xb3\xba]", r"video/(mpeg|mp2p)", "video"),
    _content("video/mp2t", _TRANSPORT_STREAM, r"video/(mp2t|mpeg)", "video", "audio"),
    _content("audio/wav", rb"RIFF.{4}WAVE", r"audio/((x-)?wav|wave|vnd\.wave|x-pn-wav)", "audio"),
    _content("audio/flac", rb"fLaC", r"audio/(x-)?flac", "audio"),
    _content("audio/mpeg", _MPEG_AUDIO, r"audio/((x-)?(mpeg|mp3|mpeg-?3|mpa)|aac)", "audio"),
    _content("audio/aac", rb"\xff[\xf0\xf1\xf8\xf9]", r"audio/(x-)?aacp?", "audio"),
    _content("application/pdf", rb"%PDF-", r"application/((x-)?pdf|postscript|illustrator)"),
    _content("application/zip", rb"PK(?:\x03\x04|\x05\x06|\x07\x08)", _ZIP_TYPES),
    _content("application/gzip", rb"\x1f\x8b\x08", r"application/(x-)?(gzip|tgz|compressed-tar)"),
    _content("application/x-7z-compressed", rb"7z\xbc\xaf\x27\x1c", r"application/x-7z-compressed"),
    _content("application/vnd.rar", rb"Rar!\x1a\x07", r"application/(vnd\.rar|x-rar(-compressed)?)"),
    _content("application/x-elf", rb"\x7fELF", _ELF_TYPES),
    _content("application/vnd.microsoft.portable-executable", rb"MZ.{58,}?PE\x00\x00", _PE_TYPES),
    _content("application/x-mach-binary", rb"[\xce\xcf]\xfa\xed\xfe", r"application/x-mach-(binary|o)"),
    # A text may be called any text: which it is, is for whoever reads it to say. But none of HTML is an image.
    _content("image/svg+xml", _PROLOG + rb"<(?:\w{1,64}:)?svg[ \t\n\f\r/>]", _TEXT.pattern, "text"),
    _content("text/html", _HTML, rf"(?!image/)(?:{_TEXT.pattern})", "text"),
    _content("text/xml", rb"[ \t\n\f\r]*+<\?xml", _TEXT.pattern, "text"),
)
