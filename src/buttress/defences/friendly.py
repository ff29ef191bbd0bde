"""Friendly adversarial training (FAT)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from buttress.attacks import Perturbation
from buttress.attacks.gradient.friendly_pgd import FriendlyPGD
from buttress.attacks.gradient.pgd import Start
from buttress.defences.base.crafting import crafting_passes
from buttress.defences.base.defence import Batch, Cost, Defence, Loss, StepContext
from buttress.engine.preserved_model import Mode
from buttress.registry import defence
from buttress.threat import NOT_GIVEN, Threat
from buttress.validation import share, whole


@defence("friendly")
class Friendly(Defence):
    """Cross-entropy on points that are only just wrong (FAT; Zhang et al., ICML 2020, algorithm 2).

    The attack stops ``tau`` steps after an input is misclassified, and ``tau`` grows during training, as the authors
    let it: by one at 50 and at 90 of 120 epochs. Released with 10 steps of 0.007 at eps 0.031 at most (our default step
    at that eps is 0.00775), each with normal noise of 0.001 added, which is left out here.

    Cost: that of the attack plus 1 gradient of the weights per step.

    Args:
        threat: what the model is trained against.
        steps: the most steps of the attack.
        step_size: their length in input units; 2.5 eps / steps unless given.
        tau: steps past misclassification at the beginning.
        milestones: shares of the training after which ``tau`` is one larger; may be empty.
        start: of the attack.
        spare: leave inputs whose attack has stopped out of its passes, which costs less, by how much hangs on the data.
        mode: the model's mode while crafting.
    """

    needs_classes = False
    paper = "Zhang et al., ICML 2020"

    def __init__(
        self,
        threat: Threat = NOT_GIVEN,
        steps: int = 10,
        step_size: float | None = None,
        tau: int = 0,
        milestones: Sequence[float] = (50 / 120, 90 / 120),
        start: Start = "uniform",
        spare: bool = False,
        mode: Mode = "eval",
    ) -> None:
        super().__init__()
        for milestone in milestones:
            share("milestones", milestone)
        whole("tau", tau, 0)
        self.threat, self.steps, self.step_size, self.tau = threat, steps, step_size, tau
        self.milestones, self.start, self.spare, self.mode = tuple(milestones), start, spare, mode
        self._attacks = [
            FriendlyPGD(threat=threat, steps=steps, step_size=step_size, tau=tau + more, start=start, spare=spare)
            for more in range(len(self.milestones) + 1)
        ]

    @property
    def attack(self) -> Perturbation:
        """The attack at the end of training."""
        return self._attacks[-1]

    @property
    def cost(self) -> Cost | None:
        """The attack's passes and one of each kind; not known beforehand where inputs are spared."""
        crafting = None if self.spare else crafting_passes(self.attack, self.mode)
        return None if crafting is None else Cost(crafting)

    def attack_at(self, progress: float) -> FriendlyPGD:
        """The attack when a share ``progress`` of the training is done."""
        return self._attacks[sum(progress >= milestone for milestone in self.milestones)]

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """Mean cross-entropy at the points where the attack stopped."""
        x_adv = context.craft(self.attack_at(context.progress), mode=self.mode)
        return Loss(context.task.objective(context.adversarial(x_adv), batch.y))
