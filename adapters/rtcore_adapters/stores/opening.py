"""Which store there is at a URL, and where files are kept if none is told."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from rtcore import RtcoreError
from rtcore_transports.file_store import FileStore

from .folder import FolderStore
from .urls import FolderUrl, ObjectsUrl, read_store_url

__all__ = ["StoreUrlError", "default_folder", "open_store"]


class StoreUrlError(RtcoreError):
    """There is no store at a URL; the message says what to do, without the URL."""


def open_store(url: str) -> FileStore:
    """Return the store at a URL; nothing is looked for there yet.

    Args:
        url: ``file:///path`` for a `FolderStore`, ``s3://bucket/prefix?endpoint=https://…&region=…`` for an
            `rtcore_adapters.stores.objects.ObjectStore`, with the credentials that ``AWS_…`` in the environment tell.

    Raises:
        StoreUrlError: It is no such URL; or obstore, which the second needs, is not installed, or cannot make sense of
            the environment.
    """
    try:
        where = read_store_url(url)
        return FolderStore(where.path) if isinstance(where, FolderUrl) else _open_objects(where)
    except ValueError as error:
        raise StoreUrlError(str(error)) from error


def _open_objects(where: ObjectsUrl) -> FileStore:
    if find_spec("obstore") is None:
        raise StoreUrlError("object storage needs obstore: pip install 'rtcore[s3]'")
    # It is large, and most servers have a folder.
    from .objects import ObjectStore

    return ObjectStore(where)


def default_folder(env: Mapping[str, str] | None = None) -> Path:
    """Return the folder of files where none is set: ``rtcore/files`` of ``$XDG_DATA_HOME``, or of ``~/.local/share``.

    Args:
        env: The environment; ``os.environ`` by default.
    """
    env = os.environ if env is None else env
    # "If an implementation encounters a relative path in any of these variables it should consider the path invalid and
    # ignore it." (XDG Base Directory Specification)
    home = Path(env.get("XDG_DATA_HOME", ""))
    return (home if home.is_absolute() else Path.home() / ".local" / "share") / "rtcore" / "files"
