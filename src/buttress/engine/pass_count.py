"""How many passes of the network an attack makes for an input at most, as a number that needs no run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PassCount:
    """Forward and backward passes for one input."""

    forwards: int = 0
    backwards: int = 0

    def __add__(self, other: PassCount) -> PassCount:
        """Both together."""
        return PassCount(self.forwards + other.forwards, self.backwards + other.backwards)

    def __mul__(self, times: int) -> PassCount:
        """So many times as many."""
        return PassCount(self.forwards * times, self.backwards * times)
