"""How much is kept of the files that come, and for how long."""

from __future__ import annotations

import attrs
from attrs.validators import ge, gt, optional

from rtcore.uploads import FileConfig

__all__ = ["FilesConfig"]


@attrs.frozen(kw_only=True)
class FilesConfig:
    """Limits of what is kept.

    Attributes:
        file: Limits of each file.
        inline_max_size: Bytes up to which a file is in the message about it, besides being kept.
        ttl: Seconds after which a file is no longer there; ``None`` for never.
        quota: Bytes that all files have at most, those on their way included; ``None`` for any number.
        piece_size: Bytes that are gathered before they are stored, which is done by a worker thread: the way there and
            back takes about as long as to store half a megabyte.
        base: The path below which files are read, without a trailing slash.
    """

    file: FileConfig = attrs.field(factory=FileConfig)
    inline_max_size: int = attrs.field(default=2**16, validator=ge(0))
    ttl: float | None = 604_800.0
    quota: int | None = attrs.field(default=None, validator=optional(gt(0)))
    piece_size: int = attrs.field(default=2**19, validator=gt(0))
    base: str = "/realtime"
