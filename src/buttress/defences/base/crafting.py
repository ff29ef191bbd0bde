"""What defences share that craft their examples by one attack: the attack, and what crafting costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, cast, get_args

import torch
from torch import Tensor, nn

from buttress.attacks import Attack, Perturbation
from buttress.attacks.composed.eot import WrapperAttack
from buttress.attacks.composed.variant import Variant
from buttress.defences.base.defence import Cost, Defence, StepContext
from buttress.engine.preserved_model import Mode
from buttress.errors import UserError
from buttress.threat import Threat
from buttress.validation import one_of


class CraftingDefence(Defence):
    """A defence with one attack, kept in ``_attack``, with which it crafts once a step.

    Attributes:
        mode: the model's mode while crafting.
        move_statistics: whether passes that craft in train mode move BatchNorm's running statistics as well. Most
            released code lets them, so that a running mean is one over crafting and training passes alike; here it is
            one of the inputs trained on unless asked for.
        trained: passes that give the gradient of the weights, see `Cost`.
    """

    mode: Mode = "eval"
    move_statistics: bool = False
    trained: ClassVar[float] = 2.0
    _attack: Perturbation

    @property
    def attack(self) -> Perturbation:
        """What perturbs each batch."""
        return self._attack

    def _set_mode(self, mode: Mode, move_statistics: bool) -> None:
        """Keep both, once they are checked.

        Raises:
            UserError: where statistics shall move in a mode that leaves them alone.
        """
        one_of("mode", mode, get_args(Mode))
        if move_statistics and mode == "eval":
            raise UserError('move_statistics needs passes that craft in mode "train"; got mode "eval"')
        self.mode, self.move_statistics = mode, move_statistics

    def _craft(self, context: StepContext, attack: Perturbation | None = None, scale: Tensor | None = None) -> Tensor:
        """The batch perturbed by ``attack``, by the defence's own unless given, in its mode."""
        attack = self.attack if attack is None else attack
        return context.craft(attack, mode=self.mode, scale=scale, move_statistics=self.move_statistics)

    @property
    def cost(self) -> Cost | None:
        """The attack's passes, and those of the objective."""
        crafting = crafting_passes(self.attack, self.mode)
        return None if crafting is None else Cost(crafting, self.trained)


class _Counting(nn.Module):
    """A linear network that counts the inputs that pass through it, forwards and backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("weight", torch.randn(3, 64, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        self.passes += len(x)
        logits: Tensor = x.flatten(1) @ self.get_buffer("weight").T
        if logits.requires_grad:
            logits.register_hook(lambda grad: self._back(len(grad)))  # type: ignore[no-untyped-call]  # torch's own
        return logits

    def _back(self, count: int) -> None:
        self.passes += count


def crafting_passes(attack: Perturbation | None, mode: Mode = "eval") -> float | None:
    """Passes, forward and backward, that crafting one input takes; None for an attack that the toy is too small for."""
    if attack is None:
        return 0.0
    attack, x, model = attack.within(), torch.full((2, 1, 8, 8), 0.5), _Counting()
    threat = attack.threat
    if isinstance(attack, Attack) and threat is not None and threat.by_feature:  # which changes no pass
        attack = attack.varied(threat=Threat(norm=threat.norm, eps=threat.eps))
    elif threat is not None:
        x = threat.clip(x, x)
    try:
        _on_itself(attack).craft(model, x, torch.tensor([0, 1]), mode=mode)
    except (UserError, RuntimeError):
        return None
    return model.passes / len(x)


def _on_itself(attack: Perturbation) -> Perturbation:
    """The attack with what it would craft on variants crafted on the network itself: the toy has none."""
    if isinstance(attack, Variant):
        attack = replace(attack, missing="itself")
    if isinstance(attack, WrapperAttack):
        changed: Perturbation = replace(cast(Any, attack), attack=_on_itself(attack.attack))
        return changed
    return attack
