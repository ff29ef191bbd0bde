"""A network's own training term, left out during the first epochs."""

from __future__ import annotations

from torch import nn

from buttress.defences.base.defence import Batch, Defence, Loss, StepContext
from buttress.defences.base.wrapper import WrapperDefence
from buttress.registry import defence
from buttress.validation import not_negative


@defence("auxiliary-from")
class AuxiliaryFrom(WrapperDefence):
    """Any base; what the network itself adds to the loss (``forward_with_auxiliary``) counts from an epoch on only.

    TisODE is trained so: cross-entropy alone during five epochs, then with the steady-state term. Networks
    need no state for it, since they do not depend on the epoch. A network without such a term is trained as by the
    base. Costs nothing; the term is computed from the start.

    Args:
        base: the training method underneath.
        epochs: before the term counts, which may be a fraction; 0 leaves the base alone.
    """

    paper = "Yan et al., ICLR 2020"
    begins = ("epochs",)

    def __init__(self, base: Defence | None = None, epochs: float = 5.0) -> None:
        super().__init__(base)
        not_negative("epochs", epochs)
        self.epochs = epochs

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """The base's loss; the term is forgotten where it is too early."""
        loss = self.base.loss(model, batch, context)
        if context.epoch < self.epochs:
            context.auxiliary.clear()
        return loss
