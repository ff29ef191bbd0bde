"""TRADES."""

from __future__ import annotations

from torch import nn

from buttress.attacks.gradient.pgd import PGD
from buttress.defences.base.crafting import CraftingDefence
from buttress.defences.base.defence import Batch, Loss, StepContext
from buttress.registry import defence
from buttress.threat import NOT_GIVEN, Threat
from buttress.validation import not_negative


def divergence_attack(threat: Threat, steps: int, step_size: float | None) -> PGD:
    """The attack of TRADES: ascent of the KL divergence from clean predictions, from x + 0.001 N(0, 1).

    Args:
        threat: what is allowed; in l2 each step is cut to the box first and then to the ball, as released.
        steps: of the ascent.
        step_size: their length in input units; 2.5 eps / steps where None.
    """
    return PGD(threat=threat, steps=steps, step_size=step_size, start="normal", loss="kl", box_first=True)


@defence("trades")
class TRADES(CraftingDefence):
    """Clean cross-entropy plus beta times the KL divergence of perturbed from clean predictions.

    Zhang et al., ICML 2019, equation 5; beta is 1 / lambda of the paper. The attack maximises the same divergence from
    x + 0.001 N(0, 1), with the model in eval mode, and the gradient of the loss flows through both of its arguments.
    One clean pass serves both terms (the authors' code makes two).

    Released with 10 steps of 0.007 at eps 0.031 and beta 6 on CIFAR-10 (our default step at that eps is 0.00775), with
    40 of 0.01 at 0.3 and beta 1 on MNIST, and in l2 with steps of 2 eps / steps. Cost: as many gradients of the
    inputs as the attack has steps, one forward for its reference, and 2 gradients of the weights per step.

    Args:
        threat: what the model is trained against.
        steps: steps of the attack.
        step_size: their length in input units; 2.5 eps / steps unless given.
        beta: weight of the divergence, 0 or more; the paper uses 1 to 10.
    """

    needs_classes = False
    paper = "Zhang et al., ICML 2019"
    trained = 4.0
    clean_pass = True

    def __init__(
        self, threat: Threat = NOT_GIVEN, steps: int = 10, step_size: float | None = None, beta: float = 6.0
    ) -> None:
        super().__init__()
        not_negative("beta", beta)
        self.threat, self.steps, self.step_size, self.beta = threat, steps, step_size, beta
        self._attack = divergence_attack(threat, steps, step_size)

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """Mean of both terms over the batch."""
        x_adv = context.craft(self.attack)
        clean, adversarial = context.clean(batch.x), context.adversarial(x_adv)
        natural = context.task.objective(clean, batch.y)
        boundary = context.task.divergence(adversarial, clean).mean()
        return Loss(natural + self.beta * boundary, {"natural": natural.detach(), "boundary": boundary.detach()})
