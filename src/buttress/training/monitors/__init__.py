"""Monitors, one file each: they watch a training, and may note something, stop it, or go back to earlier weights."""

from typing import Any

from buttress.registry import monitor as _registry
from buttress.training.monitors.base import Action, Moment, Monitor, Snapshot

__all__ = ["Action", "Moment", "Monitor", "Snapshot", "names"]


def names() -> list[str]:
    """The registered monitors."""
    return _registry.names()


def __getattr__(name: str) -> Any:
    return _registry.attribute(__name__, name)
