"""How a store says that it cannot do what it is asked for."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rtcore import Refusal
from rtcore_transports.file_store import FileStoreError

__all__ = ["disk_faults", "full", "unavailable"]

_log = logging.getLogger("rtcore.stores")

# The last is that of a file system, or a process, that cannot have files so large.
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def full(cause: object) -> FileStoreError:
    """Return the error of a store that has no room left; why, is only in the log."""
    _log.warning("the store of files is full: %s", _line(cause))
    message = "there is no room left for files on this server: try again later, or send a smaller one"
    return FileStoreError(Refusal("store_full", message, status=507))


def unavailable(cause: object) -> FileStoreError:
    """Return the error of a store that does not work; why, is only in the log."""
    _log.warning("the store of files fails: %s", _line(cause))
    message = "the files of this server cannot be reached for now: try again later"
    return FileStoreError(Refusal("store_unavailable", message, status=503))


@contextmanager
def disk_faults() -> Iterator[None]:
    """Turn errors of the operating system into `FileStoreError`."""
    try:
        yield
    except OSError as error:
        raise (full if error.errno in _FULL else unavailable)(error) from error


def _line(cause: object) -> str:
    # The rest is for those who debug obstore.
    return str(cause).partition("\n")[0]
