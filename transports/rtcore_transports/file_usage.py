"""How much room files take, of what there is for them."""

from __future__ import annotations

from rtcore import Refusal

from .file_store import StoredFile

__all__ = ["Usage"]


class Usage:
    """Counts what is kept and what is on its way, against a quota.

    What a store holds is counted again and again, while files come and go: those that do meanwhile count as what has
    become of them. Only one that is removed just after it was seen counts until the next time.

    Args:
        quota: Bytes in all, or ``None`` for any number.

    Attributes:
        counted: Whether what was there before is among it.
        files: How many are kept.
        bytes: How many bytes these have.
    """

    def __init__(self, quota: int | None) -> None:
        self.counted = False
        self.files = 0
        self.bytes = 0
        self._quota = quota
        self._coming: dict[str, int] = {}
        self._reserved = 0
        # While it is counted: what has become of files since, their bytes or `None` where they are not kept.
        self._changes: dict[str, int | None] | None = None
        self._seen = (0, 0)

    # What comes and goes

    def check(self, size: int) -> Refusal | None:
        """Tell why there is no room for so many bytes more, or ``None`` if there is."""
        if self._quota is None or self.bytes + self._reserved + size <= self._quota:
            return None
        message = f"the files here have at most {self._quota} bytes in all: try again when some have expired"
        return Refusal("store_full", message, status=507)

    def begin(self, file_id: str) -> None:
        """Take note that a file is on its way."""
        self._coming[file_id] = 0
        self._note(file_id, None)

    def reserve(self, file_id: str, size: int) -> Refusal | None:
        """Take room for more bytes of a file on its way, or tell why there is none."""
        if refusal := self.check(size):
            return refusal
        self._coming[file_id] += size
        self._reserved += size
        return None

    def keep(self, file_id: str, size: int) -> None:
        """Take note that a file is kept."""
        self.release(file_id)
        self.files += 1
        self.bytes += size
        self._note(file_id, size)

    def release(self, file_id: str) -> None:
        """Take note that a file is no longer on its way."""
        self._reserved -= self._coming.pop(file_id)

    def remove(self, file_id: str, size: int) -> None:
        """Take note that a file is kept no longer."""
        self.files -= 1
        self.bytes -= size
        self._note(file_id, None)

    def _note(self, file_id: str, size: int | None) -> None:
        if self._changes is not None:
            self._changes[file_id] = size

    # What is there

    def begin_count(self) -> None:
        """Begin to count what is there."""
        self._changes = dict.fromkeys(self._coming)
        self._seen = (0, 0)

    def see(self, file: StoredFile) -> None:
        """Count one of the files that are there."""
        if self._changes is not None and file.file_id not in self._changes:
            files, size = self._seen
            self._seen = (files + 1, size + file.size)

    def end_count(self, *, complete: bool) -> None:
        """End that; what was seen counts if it was all that there is."""
        assert self._changes is not None, "it was begun"
        if complete:
            kept = [size for size in self._changes.values() if size is not None]
            files, size = self._seen
            self.files, self.bytes = files + len(kept), size + sum(kept)
            self.counted = True
        self._changes = None
