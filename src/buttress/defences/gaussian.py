"""Training on images with Gaussian noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from buttress.defences.base.defence import Batch, Cost, Defence, Loss, StepContext
from buttress.errors import UserError
from buttress.registry import defence
from buttress.threat import Threat, per_row
from buttress.validation import not_negative, share


@defence("gaussian")
class GaussianTraining(Defence):
    """Cross-entropy on inputs of which a share has normal noise, clipped to the box.

    The defaults are those with which ODENet and TisODE were trained on MNIST (Yan et al., ICLR 2020): every second
    image, a standard deviation of 50, 75 or 100 of 255, each as likely. Noise follows the step's seed and the input.
    Cost: 1 gradient of the weights per step.

    Args:
        std: standard deviations in widths of the box, or in input units without one; each noisy input draws one.
        probability: of each input to get noise.
        box: the range (low, high) that noisy inputs are clipped to, or None for no limit.
    """

    needs_classes = False
    paper = "Yan et al., ICLR 2020"

    def __init__(
        self,
        std: Sequence[float] = (50 / 255, 75 / 255, 100 / 255),
        probability: float = 0.5,
        box: tuple[float, float] | None = (0.0, 1.0),
    ) -> None:
        super().__init__()
        several = tuple(std) if isinstance(std, Sequence) else (std,)
        if not several:
            raise UserError("std must be a list of finite numbers of 0 or more; got none")
        self.std = tuple(not_negative("std", one) for one in several)
        self.probability = share("probability", probability)
        self.box = Threat(box=box).box  # refuses an empty one

    @property
    def cost(self) -> Cost:
        """One pass of each kind."""
        return Cost(crafting=0)

    def noisy(self, x: Tensor, context: StepContext) -> Tensor:
        """(N, ...) the step's inputs, some of them with noise."""
        random = context.random
        mask = random.uniform() < self.probability
        std, place = x.new_tensor(self.std)[random.integers(len(self.std))], Threat(eps=math.inf, box=self.box)
        noisy = x + per_row(std, x) * place.widths(x) * random.normal(x.shape[1:], x.dtype)
        return place.clip(noisy, x).where(per_row(mask, x), x)

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """Mean cross-entropy."""
        return Loss(context.task.objective(context.adversarial(self.noisy(batch.x, context)), batch.y))
