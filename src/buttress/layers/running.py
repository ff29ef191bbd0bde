"""What is running in a pass, as the watcher keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from buttress.layers.places import Step

Site = tuple[Any, ...]


@dataclass
class RunningModule:
    """A module that is running.

    Attributes:
        path: its name.
        module: itself.
        numbers: where it was called from; see `Places`.
        outer: the same of the modules that run around it, innermost first.
        arguments: its tensors, and how often each had been written to.
        activated: whether an activation function was called in it.
        learnable_inside: whether a module with a weight ran in it.
        site: the very calls in the code that lead to it: that of the module it runs in, and those in its forward.
    """

    path: str
    module: nn.Module
    numbers: tuple[int, ...] = ()
    outer: tuple[int, ...] = ()
    arguments: tuple[tuple[Tensor, int], ...] = ()
    activated: bool = False
    learnable_inside: bool = False
    site: Site = ()

    def site_of(self, steps: tuple[Step, ...]) -> Site:
        """The same of what it calls by these steps."""
        return (self.site, *((id(step.code), step.offset) for step in steps))

    @property
    def inside(self) -> tuple[int, ...]:
        """Where what it calls is called from, beside the place in its own code: `outer` of that."""
        return (*self.numbers, *self.outer)
