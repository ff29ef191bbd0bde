"""Training methods, one file each."""

from typing import Any

from buttress.defences.base.defence import Batch, Cost, Defence, Epoch, Loss, Pass, Step, StepContext
from buttress.registry import defence as _registry

__all__ = ["Batch", "Cost", "Defence", "Epoch", "Loss", "Pass", "Step", "StepContext", "names"]


def names() -> list[str]:
    """The registered defences."""
    return _registry.names()


def __getattr__(name: str) -> Any:
    return _registry.attribute(__name__, name)
