"""Attacks by family, and noises; all are called alike: ``attack(model, x, y)`` returns an `AttackResult`."""

from typing import Any

from buttress.engine.attack import Attack
from buttress.engine.attack_result import AttackResult
from buttress.engine.perturbation import Perturbation
from buttress.registry import attack as _registry

__all__ = ["Attack", "AttackResult", "Perturbation", "names"]


def names() -> list[str]:
    """The registered attacks and noises."""
    return _registry.names()


def __getattr__(name: str) -> Any:
    return _registry.attribute(__name__, name)
