"""A budget that grows during the first epochs."""

from __future__ import annotations

from torch import nn

from buttress.data.dataset import Dataset
from buttress.defences.base.defence import Batch, Defence, Loss, StepContext
from buttress.defences.base.wrapper import WrapperDefence
from buttress.errors import UserError
from buttress.registry import defence
from buttress.validation import not_negative


@defence("eps-warmup")
class EpsWarmup(WrapperDefence):
    """Any base whose attack's budget grows linearly from 0 during the first epochs.

    A help where training against the whole budget from the start stays at a constant prediction, as on MNIST at eps
    0.3; used, among others, for SVHN by Andriushchenko and Flammarion (NeurIPS 2020). Costs nothing.

    Args:
        base: the training method underneath; its steps must attack, and the attack have a threat.
        epochs: over which the budget grows, which may be a fraction; 0 leaves the base alone.
    """

    paper = "Andriushchenko and Flammarion, NeurIPS 2020"
    rises = ("epochs",)

    def __init__(self, base: Defence | None = None, epochs: float = 5.0) -> None:
        super().__init__(base)
        not_negative("epochs", epochs)
        self.epochs = epochs

    def prepare(self, model: nn.Module, data: Dataset, seed: int) -> Dataset:
        """As the base does.

        Raises:
            UserError: for a base whose steps attack nothing, so that no budget could grow.
        """
        if self.attack is not None:  # now, not after what may take long; some settle their attack there
            self._refuse_without_attack()
        data = super().prepare(model, data, seed)
        self._refuse_without_attack()
        return data

    def _refuse_without_attack(self) -> None:
        if self.epochs and not self.attacks_in_steps:
            when = "" if self.attack is None else " while the network is trained"
            raise UserError(
                f"{self.base.label()} attacks nothing{when}, so there is no budget that could grow: "
                "give another base, or leave eps-warmup out"
            )

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """The base's loss, under a share of the budget."""
        context.scale = 1.0 if self.epochs == 0 else min(1.0, context.epoch / self.epochs)
        return self.base.loss(model, batch, context)
