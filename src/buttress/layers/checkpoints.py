"""What activation checkpointing will compute again in a backward pass, outside of any pass of the network."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from types import FrameType

from torch import nn

from buttress.layers.places import Place, Places, Route
from buttress.layers.running import Checkpointed, RunningModule


class Checkpoints:
    """The checkpoints of one pass.

    Attributes:
        uncertain: names, without what follows #, of layers that are not recognised when they are computed again: what
            checkpointed code calls outside of a module, or several times.
    """

    def __init__(self) -> None:
        self.uncertain: set[str] = set()
        self._known: dict[Hashable, Checkpointed | None] = {}
        self._names: set[Place] = set()
        self._frame: FrameType | None = None

    def note(self, module: nn.Module, way: Route, running: Sequence[RunningModule], places: Places) -> None:
        """Remember the way to a checkpoint.

        Args:
            module: that runs in it.
            way: to the module.
            running: the modules that run.
            places: of the network's code.
        """
        checkpointed = way.checkpointed or 0
        key = module if checkpointed == len(way.steps) else way.steps[checkpointed].code
        known = Checkpointed(tuple(running), places.kept(way.steps[:checkpointed], running[-1].module))
        before = self._known.setdefault(key, known)
        if before is not None and before.steps != known.steps:
            self._known[key] = None  # from two places: which of them computes again cannot be told

    def known(self, module: nn.Module, way: Route) -> Checkpointed | None:
        """From where a module was called at first that is computed again now; None where that cannot be told."""
        return None if way.recomputing is None else self._known.get(way.steps[0].code if way.steps else module)

    def computed_anew(self, way: Route) -> bool:
        """Whether this is another computation than the last time."""
        before, self._frame = self._frame, way.recomputing
        return before is not self._frame

    def named(self, place: Place) -> None:
        """Note the name of what runs in a checkpoint: of what runs again there, runs are not told apart."""
        if place in self._names:
            self.uncertain.add(place.base)
        self._names.add(place)
