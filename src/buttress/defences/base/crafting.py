"""What defences share that craft their examples by one attack."""

from __future__ import annotations

from typing import ClassVar

from buttress.attacks import Perturbation
from buttress.defences.base.crafting_cost import crafting_passes
from buttress.defences.base.defence import Cost, Defence
from buttress.engine.preserved_model import Mode


class Crafting(Defence):
    """A defence with one attack, kept in ``_attack``, with which it crafts once a step.

    Attributes:
        mode: the model's mode while crafting.
        trained: passes that give the gradient of the weights, see `Cost`.
    """

    mode: Mode = "eval"
    trained: ClassVar[float] = 2.0
    _attack: Perturbation

    @property
    def attack(self) -> Perturbation:
        """What perturbs each batch."""
        return self._attack

    @property
    def cost(self) -> Cost | None:
        """The attack's passes, and those of the objective."""
        crafting = crafting_passes(self.attack, self.mode)
        return None if crafting is None else Cost(crafting, self.trained)
