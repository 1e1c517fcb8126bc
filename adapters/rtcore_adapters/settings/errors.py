"""What is said of a setting that cannot be used."""

from __future__ import annotations

import re

from rtcore import RtcoreError

__all__ = ["SettingsError", "shown"]


class SettingsError(RtcoreError):
    """A setting cannot be used. The text is one line: which setting, its value and what is allowed."""


def shown(value: object, *, secret: re.Pattern[str] | None = None) -> str:
    """Return `value` as it is written in a message: in one line, not too long, and without what `secret` matches."""
    text = repr(value)
    if secret is not None:
        text = secret.sub("…", text)
    return text if len(text) <= 80 else f"{text[:79]}…"
