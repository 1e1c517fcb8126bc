"""What files a node takes, and how much of them at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import attrs
from attrs.validators import ge, gt, instance_of

from rtcore.errors import Refusal

__all__ = ["FileConfig", "Inspect"]

#: Tells why what is said to be of a media type is not, by its first bytes (`FileConfig.head_size` of them, or all there
#: are); or ``None``.
Inspect: TypeAlias = Callable[[str, bytes], Refusal | None]


@attrs.frozen(kw_only=True)
class FileConfig:
    """Limits of the files that clients send.

    Attributes:
        max_binary_size: The most bytes of a file in one message.
        max_file_size: The most bytes of a file that comes in chunks.
        allowed_types: The media ranges of what is taken, in lower case: ``image/*``, ``text/plain``, ``*/*``.
        inspect: Looks at the content, or ``None`` where what a client says is believed.
        head_size: How many bytes of the beginning that needs.
        chunk_size: The bytes in one chunk; the last one of a file may have fewer.
        window: The bytes of one file that may be under way, sent and not stored.
        max_uploads: How many files come in at a time, those whose sender is away included: where there is no room for
            one more, the one whose sender is away for longest makes it. With `window` it bounds the memory that they
            take.
        max_uploads_per_connection: How many of them on one connection.
        max_outcomes: Of how many complete files it is remembered what has become of them; beyond it the oldest is
            forgotten.
        resume_timeout: Seconds for which a file whose sender is away, and what has become of one that is complete, are
            remembered.
        idle_timeout: Seconds for which a sender that is there may send nothing of a file, although it could.
    """

    max_binary_size: int = attrs.field(default=2**20, validator=[instance_of(int), gt(0)])
    max_file_size: int = attrs.field(default=2**30, validator=[instance_of(int), gt(0)])
    allowed_types: tuple[str, ...] = ("*/*",)
    inspect: Inspect | None = None
    head_size: int = attrs.field(default=8192, validator=[instance_of(int), gt(0)])
    chunk_size: int = attrs.field(default=2**16, validator=[instance_of(int), gt(0)])
    window: int = attrs.field(default=2**19, validator=[instance_of(int), gt(0)])
    max_uploads: int = attrs.field(default=128, validator=[instance_of(int), gt(0)])
    max_uploads_per_connection: int = attrs.field(default=8, validator=[instance_of(int), gt(0)])
    max_outcomes: int = attrs.field(default=10_000, validator=[instance_of(int), gt(0)])
    resume_timeout: float = attrs.field(default=600.0, validator=ge(0))
    idle_timeout: float = attrs.field(default=600.0, validator=gt(0))
