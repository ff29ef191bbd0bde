"""Attacks and noises in a few words."""

from __future__ import annotations

from buttress.attacks import Perturbation


def describe(attack: Perturbation) -> str:
    """A perturbation in a few words; see `Perturbation.label`."""
    return attack.label()
