"""Random self-ensemble (RSE)."""

from __future__ import annotations

from torch import nn

from buttress.data.dataset import Dataset
from buttress.defences.base.defence import Batch, Cost, Defence, Loss, StepContext
from buttress.models.blocks.noisy import add_noise, is_noisy
from buttress.random import derive, own_draws
from buttress.registry import defence
from buttress.validation import not_negative


@defence("self-ensemble")
class SelfEnsemble(Defence):
    """Standard training of a network with noise layers before its convolutions (RSE; Liu et al., ECCV 2018).

    The noise is the network's own and stays in it at test time, when the answer is the mean over draws
    (``models.noisy.Averaged``). A network without noise layers gets them before training; one that has them, as
    ``models.noisy.noisy`` makes it, keeps its own. The defence is chance: judge it by ``EoT(draws=n)`` around a strong
    attack, where both the gradient and the verdict are of the mean over n draws, and raise n until the accuracy no
    longer falls; an attack with a single draw flatters it. Cost: 1 gradient of the weights per step.

    Args:
        first: standard deviation of the noise before the first convolution, in units of what enters it.
        inner: of that before all others.
    """

    needs_classes = False
    paper = "Liu et al., ECCV 2018"
    clean_pass = True
    perturbed_pass = False

    def __init__(self, first: float = 0.2, inner: float = 0.1) -> None:
        super().__init__()
        for name, std in (("first", first), ("inner", inner)):
            not_negative(name, std)
        self.first, self.inner = first, inner

    @property
    def cost(self) -> Cost:
        """One pass of each kind."""
        return Cost(crafting=0)

    def prepare(self, model: nn.Module, data: Dataset, seed: int) -> Dataset:
        """Puts the noise layers in, where there are none."""
        if not is_noisy(model):
            add_noise(model, self.first, self.inner)
        return data

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """Mean cross-entropy under one draw of the noise, which follows from the step's seed."""
        with own_draws(derive(context.seed, "noise"), {batch.x.device}):
            return Loss(context.task.objective(context.clean(batch.x), batch.y))
