"""Those who watch a simulation, told together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from .invariants import Invariant
from .observer import Observer

__all__ = ["Watchers"]

_METHODS: Final = tuple(name for name in vars(Observer) if name.startswith(("server_", "client_")))


class Watchers(Observer):
    """Passes everything on to several invariants, in their order.

    Args:
        invariants: Whom to tell. Those that do not override a method cost nothing there.
    """

    def __init__(self, invariants: Sequence[Invariant]) -> None:
        for name in _METHODS:
            told = [
                getattr(each, name) for each in invariants if getattr(type(each), name) is not getattr(Observer, name)
            ]
            if told:
                setattr(self, name, _together(told))
        self.checks = [each.check for each in invariants if type(each).check is not Invariant.check]


def _together(told: Sequence[Callable[..., None]]) -> Callable[..., None]:
    if len(told) == 1:
        return told[0]

    def tell(*arguments: object, **keywords: object) -> None:
        for each in told:
            each(*arguments, **keywords)

    return tell
