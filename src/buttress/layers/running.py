"""What is running in a pass, as the watcher keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from buttress.layers.places import Route, Step

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
        checkpointed: whether activation checkpointing will compute it again.
        site: the very calls in the code that lead to it: that of the module it runs in, and those in its forward.
    """

    path: str
    module: nn.Module
    numbers: tuple[int, ...] = ()
    outer: tuple[int, ...] = ()
    arguments: tuple[tuple[Tensor, int], ...] = ()
    activated: bool = False
    learnable_inside: bool = False
    checkpointed: bool = False
    site: Site = ()

    def site_of(self, way: Route) -> Site:
        """The same of what it calls on a way."""
        return (self.site, *((id(step.code), step.offset) for step in way.steps))

    @property
    def inside(self) -> tuple[int, ...]:
        """Where what it calls is called from, beside the place in its own code: `outer` of that."""
        return (*self.numbers, *self.outer)


@dataclass(frozen=True)
class Checkpointed:
    """Where activation checkpointing was called: what ran, and the way to there."""

    running: tuple[RunningModule, ...]
    steps: tuple[Step, ...]
