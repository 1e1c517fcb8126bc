"""Where files are kept, as a URL: ``file:///path`` for a folder, ``s3://bucket/prefix?endpoint=…`` for objects."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs

__all__ = ["MAX_OBJECT", "PART", "FolderUrl", "ObjectsUrl", "is_store_url", "read_store_url"]

#: The bytes of one part of what is sent to object storage in parts: the fewest that S3 takes.
PART: Final = 5 * 2**20
#: The most bytes of a file there: S3 takes so many parts.
MAX_OBJECT: Final = 10_000 * PART

# Bucket naming rules of Amazon S3; servers of others allow no more.
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PART: Final = re.compile(r"[A-Za-z0-9._-]+")
_REGION: Final = re.compile(r"[A-Za-z0-9-]{1,63}")


@attrs.frozen
class FolderUrl:
    """A folder of this machine."""

    path: Path


@attrs.frozen
class ObjectsUrl:
    """A bucket of object storage.

    Attributes:
        bucket: Its name.
        prefix: What comes before the names of all objects, without a slash at its ends; may be empty.
        endpoint: The URL of the server; ``None`` for Amazon's, or what ``AWS_ENDPOINT_URL`` says.
        region: ``None`` for what ``AWS_REGION`` says.
    """

    bucket: str
    prefix: str
    endpoint: str | None = None
    region: str | None = None


def is_store_url(url: str) -> bool:
    """Tell whether a URL says where files may be kept."""
    try:
        read_store_url(url)
    except ValueError:
        return False
    return True


def read_store_url(url: str) -> FolderUrl | ObjectsUrl:
    """Return where a URL says that files are kept.

    Raises:
        ValueError: It is no such URL; the message says what is wrong, without the URL, in which a secret may be.
    """
    if not url.isprintable() or " " in url:
        raise ValueError("spaces and control characters need escaping in a URL, as in %20")
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError("credentials do not belong in the URL: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if parts.fragment:
        raise ValueError("a '#' needs escaping in a URL, as %23")
    if parts.scheme == "file":
        return _folder(parts.netloc, parts.path, parts.query)
    if parts.scheme == "s3":
        return _objects(parts.netloc, parts.path, parts.query)
    raise ValueError("it must begin with file:/// or s3://")


def _folder(host: str, path: str, query: str) -> FolderUrl:
    # "If the authority component is omitted or is "localhost"" (RFC 8089, section 2): then it is this machine.
    if host not in ("", "localhost") or not path.startswith("/") or query:
        raise ValueError("a folder is file:/// and its absolute path")
    folder = unquote(path, errors="strict")
    if not folder.isprintable():
        raise ValueError("the path of a folder has no control characters")
    return FolderUrl(Path(folder))


def _objects(bucket: str, path: str, query: str) -> ObjectsUrl:
    if _BUCKET.fullmatch(bucket) is None:
        raise ValueError("s3:// is followed by the name of a bucket: 3 to 63 lower-case letters, digits, '-' and '.'")
    prefix = path.strip("/")
    if prefix and not all(map(_is_part, prefix.split("/"))):
        raise ValueError("the prefix in a bucket is of letters, digits and - . _ between single slashes")
    given = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    options = dict(given)
    if len(options) < len(given) or not options.keys() <= {"endpoint", "region"}:
        raise ValueError("a bucket has the options 'endpoint' and 'region', each once")
    endpoint, region = options.get("endpoint"), options.get("region")
    if endpoint is not None and not _is_endpoint(endpoint):
        raise ValueError("the endpoint is the http or https URL of a server, without a user or a path")
    if region is not None and _REGION.fullmatch(region) is None:
        raise ValueError("the region is a name such as eu-central-1")
    return ObjectsUrl(bucket, prefix, None if endpoint is None else endpoint.rstrip("/"), region)


def _is_part(text: str) -> bool:
    return _PART.fullmatch(text) is not None and text not in (".", "..")


def _is_endpoint(url: str) -> bool:
    parts = urlsplit(url)
    return (
        parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and "@" not in parts.netloc
        and parts.path in ("", "/")
        and not (parts.query or parts.fragment)
        and parts.port != 0
    )
