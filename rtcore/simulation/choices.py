"""Where a simulation takes its decisions from: everything that chance decides is drawn here, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

__all__ = ["Choices", "Draw", "Generator"]

_T = TypeVar("_T")

#: Draws a whole number from 0 up to but not including its argument. 0 is the calmest of all choices.
Draw = Callable[[int], int]

_MASK: Final = 2**64 - 1
_UNIT: Final = 2.0**-53


class Generator:
    """SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).

    Of our own since Python's may change between versions, and since a seed is to mean the same for ever.

    Args:
        seed: Any whole number.
    """

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def bits(self) -> int:
        """Return the next 64 bits."""
        self._state = state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        return state ^ (state >> 31)

    def below(self, limit: int) -> int:
        """Return a whole number from 0 up to but not including `limit`, which is far below 2**64."""
        return (self.bits() * limit) >> 64

    def random(self) -> float:
        """Return a number from [0, 1)."""
        return (self.bits() >> 11) * _UNIT


class Choices:
    """What chance decides, in the order in which it is asked.

    The same draws give the same choices, under any version of Python. Every choice is made so that a draw of 0 is the
    calmest one (no fault, no delay, the first of a list), so a tool that makes draws smaller, as Hypothesis does, makes
    a failure simpler.

    Args:
        draw: Draws for all that matters. Noise, such as the masks of frames and the jitter of clients that come back,
            is drawn from a generator of its own.
        noise: The seed of that.
    """

    __slots__ = ("_draw", "_noise")

    def __init__(self, draw: Draw, *, noise: int = 0) -> None:
        self._draw = draw
        self._noise = Generator(noise)

    @classmethod
    def from_seed(cls, seed: int) -> Choices:
        """Return choices that are a function of `seed`."""
        return cls(Generator(seed).below, noise=~seed)

    def below(self, limit: int) -> int:
        """Choose a whole number from 0 up to but not including `limit`."""
        return self._draw(limit) if limit > 1 else 0

    def between(self, low: int, high: int) -> int:
        """Choose a whole number from `low` to `high`, both included; `low` is the calm one."""
        return low + self.below(high - low + 1)

    def chance(self, percent: int) -> bool:
        """Choose whether something happens that happens so often in a hundred times."""
        return percent > 0 and self._draw(100) >= 100 - percent

    def seconds(self, least: float, most: float) -> float:
        """Choose a duration, in steps of a thousandth of the span; `least` is the calm one."""
        return least + (most - least) * self._draw(1001) / 1000

    def pick(self, options: Sequence[_T]) -> _T:
        """Choose one of `options`, of which there is at least one; the first is the calm one."""
        return options[self.below(len(options))]

    def weighted(self, options: Sequence[tuple[int, _T]]) -> _T:
        """Choose one of ``(weight, option)``, by weight; the first is the calm one."""
        total = 0
        for weight, _ in options:
            total += weight
        drawn = self._draw(total)
        for weight, option in options[:-1]:
            if drawn < weight:
                return option
            drawn -= weight
        return options[-1][1]

    def random(self) -> float:
        """Return noise from [0, 1), such as machines take for their jitter."""
        return self._noise.random()

    def entropy(self, size: int) -> bytes:
        """Return `size` bytes of noise, such as machines take for their masks."""
        noise = self._noise
        if size <= 8:
            return noise.bits().to_bytes(8, "big")[:size]
        return b"".join([noise.bits().to_bytes(8, "big") for _ in range((size + 7) // 8)])[:size]
