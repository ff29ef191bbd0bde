"""Adversarial logit pairing."""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

from buttress.attacks import Perturbation
from buttress.attacks.gradient.pgd import PGD
from buttress.defences.base.crafting import CraftingDefence
from buttress.defences.base.defence import Batch, Loss, StepContext
from buttress.engine.preserved_model import Mode
from buttress.registry import defence
from buttress.validation import not_negative


@defence("alp")
class ALP(CraftingDefence):
    """Clean and perturbed inputs, half and half, with logits that are to agree (Kannan et al., arXiv 1803.06373).

    The loss is the mean cross-entropy over a batch and its perturbed copy, plus ``lam`` times the mean over inputs and
    classes of the squared difference of their logits, whose gradient flows through both. A baseline: pairing hides
    gradients more than it gives robustness (Engstrom et al., arXiv 1807.10272), so evaluate with many steps and
    restarts. Cost: the attack's and 2 gradients of the weights per step.

    Args:
        attack: what perturbs each batch.
        lam: weight of the pairing, 0 or more; 0 is training on clean and perturbed inputs alike.
        mode: the model's mode while crafting.
    """

    needs_classes = False
    paper = "Kannan et al., arXiv 1803.06373"
    trained = 4.0
    clean_pass = True

    def __init__(self, attack: Perturbation = PGD(steps=10), lam: float = 0.5, mode: Mode = "eval") -> None:
        super().__init__()
        not_negative("lam", lam)
        self._attack, self.lam, self.mode = attack, lam, mode

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """Half the cross-entropy of either batch, and the pairing."""
        x_adv = context.craft(self.attack, mode=self.mode)
        clean, adversarial = context.clean(batch.x), context.adversarial(x_adv)
        natural, perturbed = context.task.objective(clean, batch.y), context.task.objective(adversarial, batch.y)
        pairing = F.mse_loss(adversarial, clean)
        logs = {"natural": natural.detach(), "adversarial": perturbed.detach(), "pairing": pairing.detach()}
        return Loss(0.5 * natural + 0.5 * perturbed + self.lam * pairing, logs)
