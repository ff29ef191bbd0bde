"""Misclassification aware adversarial training (MART)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from buttress import losses
from buttress.attacks.gradient.pgd import PGD
from buttress.defences.base.crafting import CraftingDefence
from buttress.defences.base.defence import Batch, Loss, StepContext
from buttress.registry import defence
from buttress.threat import NOT_GIVEN, Threat
from buttress.validation import not_negative


def boosted_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """(N,) cross-entropy, plus minus the logarithm of one minus the largest probability of another class.

    The first term of MART; as in the authors' code the logarithm is of 1.0001 minus the probability, which bounds it.

    Args:
        logits: (N, C).
        y: (N,) the truth.
    """
    others = logits.softmax(1).scatter(1, y[:, None], 0.0).amax(1)
    return F.cross_entropy(logits, y, reduction="none") - (1.0001 - others).log()


@defence("mart")
class MART(CraftingDefence):
    """Boosted cross-entropy, plus a divergence that counts for more where the clean input is misclassified.

    Wang et al., ICLR 2020: ``lam`` times the KL divergence of perturbed from clean predictions, each input
    weighted by one minus the clean probability of its class. The attack maximises cross-entropy from x + 0.001 N(0, 1)
    in eval mode, and the gradient of the loss flows through both predictions and the weight, as in the authors' code.

    Released with 10 steps of 0.007 at eps 0.031 (our default step at that eps is 0.00775), and with ``lam`` 5 on
    ResNet-18 and 6 on WRN-34-10. Cost: the attack's and 2 gradients of the weights per step.

    Args:
        threat: what the model is trained against.
        steps: steps of the attack.
        step_size: their length in input units; 2.5 eps / steps unless given.
        lam: weight of the divergence, 0 or more; 5 in the paper.
    """

    paper = "Wang et al., ICLR 2020"
    trained = 4.0
    clean_pass = True

    def __init__(
        self, threat: Threat = NOT_GIVEN, steps: int = 10, step_size: float | None = None, lam: float = 5.0
    ) -> None:
        super().__init__()
        not_negative("lam", lam)
        self.threat, self.steps, self.step_size, self.lam = threat, steps, step_size, lam
        self._attack = PGD(threat=threat, steps=steps, step_size=step_size, start="normal")

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """Mean of both terms over the batch."""
        x_adv = context.craft(self.attack)
        clean, adversarial = context.clean(batch.x), context.adversarial(x_adv)
        doubt = 1 - clean.softmax(1).gather(1, batch.y[:, None]).squeeze(1)
        boosted = boosted_cross_entropy(adversarial, batch.y).mean()
        boundary = (losses.kl(adversarial, clean) * doubt).mean()
        logs = {"boosted": boosted.detach(), "boundary": boundary.detach(), "doubt": doubt.detach().mean()}
        return Loss(boosted + self.lam * boundary, logs)
