"""What strangers call their files, as names inside a folder."""

from __future__ import annotations

from pathlib import PureWindowsPath
from typing import Final

__all__ = ["safe_name"]

# A file system takes 255 bytes; others put something before a name or behind it.
_MAX_SIZE: Final = 200
_MAX_SUFFIX: Final = 20


def safe_name(name: str, default: str = "file") -> str:
    """Return what a stranger calls a file as a name inside a folder: it leads nowhere else, and is not hidden.

    Args:
        name: What it is called, whatever that is.
        default: What to call it where nothing of that is left.
    """
    # To Windows both kinds of slash separate folders, so this finds the last part of any path.
    last = "".join(each for each in PureWindowsPath(name).name if each.isprintable() and each not in '<>:"|?*')
    last = last.strip(". ")
    if len(last.encode()) > _MAX_SIZE:
        # Cut, it is still the same kind of file.
        stem, dot, suffix = last.rpartition(".")
        suffix = dot + suffix if stem and len(suffix.encode()) < _MAX_SUFFIX else ""
        room = _MAX_SIZE - len(suffix.encode())
        last = last.encode()[:room].decode(errors="ignore").strip(". ") + suffix
    return last or default
