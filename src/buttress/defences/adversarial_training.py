"""Adversarial training with any attack."""

from __future__ import annotations

from torch import nn

from buttress.attacks import Perturbation
from buttress.attacks.gradient.pgd import PGD
from buttress.defences.base.crafting import CraftingDefence
from buttress.defences.base.defence import Batch, Loss, StepContext
from buttress.engine.preserved_model import Mode
from buttress.registry import defence


@defence("at")
class AdversarialTraining(CraftingDefence):
    """Cross-entropy on perturbed inputs only (Madry et al., ICLR 2018, equation 2.1). AT-FGSM, AT-PGD, AT-APGD ...

    The authors train on CIFAR-10 with 7 steps of 2/255 at 8/255 in the paper and 10 in their code, whose step is that
    of our default attack (eps / 4), and on MNIST with 40 steps of 0.01 at 0.3.

    Cost: that of the attack plus 1 gradient of the weights per step.

    Args:
        attack: what perturbs each batch; its threat is what the model becomes robust to.
        mode: the model's mode while crafting; the authors' own CIFAR code crafts in "train".
        move_statistics: whether passes that craft in "train" move BatchNorm's running statistics, as in that code.
    """

    needs_classes = False
    paper = "Madry et al., ICLR 2018"

    def __init__(
        self, attack: Perturbation = PGD(steps=10), mode: Mode = "eval", move_statistics: bool = False
    ) -> None:
        super().__init__()
        self._set_mode(mode, move_statistics)
        self._attack = attack

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """Mean cross-entropy at the crafted points."""
        return Loss(context.task.objective(context.adversarial(self._craft(context)), batch.y))
