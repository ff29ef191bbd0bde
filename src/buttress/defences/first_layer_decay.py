"""Weight decay of the first layer alone."""

from __future__ import annotations

from torch import nn

from buttress.data.dataset import Dataset
from buttress.defences.base.defence import Batch, Defence, Loss, StepContext
from buttress.defences.base.wrapper import WrapperDefence
from buttress.errors import UserError
from buttress.models.surgery import first_layer
from buttress.registry import defence, nearest
from buttress.validation import not_negative, one_name


@defence("first-layer-decay")
class FirstLayerDecay(WrapperDefence):
    """Any base plus ``weight`` times the squared L2 norm of the first convolution's or linear layer's weights.

    One of the cheap changes that keep FGSM training from catastrophic overfitting in Li et al. (arXiv 2209.02684). That
    only the first layer is regularised is the paper's; the form and the size of the penalty are a reconstruction. Other
    layers keep the optimiser's own weight decay. Costs nothing.

    Args:
        base: the training method underneath.
        weight: of the squared norm; 0 leaves the base alone.
        layer: name of the layer, for a network whose first convolution or linear layer, in the order of its definition,
            is not the one that sees the input.
    """

    paper = "Li et al., arXiv 2209.02684"
    reconstruction = "the penalty's form and weight: the paper was read in its abstract only"

    def __init__(self, base: Defence | None = None, weight: float = 5e-3, layer: str | None = None) -> None:
        super().__init__(base)
        not_negative("weight", weight)
        self.weight, self.layer = weight, None if layer is None else one_name("layer", layer)

    def prepare(self, model: nn.Module, data: Dataset, seed: int) -> Dataset:
        """As the base does; and a layer that the model does not have is found now."""
        self.first(model)
        return super().prepare(model, data, seed)

    def first(self, model: nn.Module) -> nn.Parameter:
        """The weights that decay.

        Raises:
            UserError: when the model has no such layer.
        """
        name = self.layer or first_layer(model)[0]
        weight = getattr(dict(model.named_modules()).get(name), "weight", None)
        if not isinstance(weight, nn.Parameter):
            weighted = [n for n, m in model.named_modules() if isinstance(getattr(m, "weight", None), nn.Parameter)]
            raise UserError(f"the network has no layer {name!r} with weights; {nearest(name, weighted)}")
        return weight

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """The base's loss plus the weighted squared norm."""
        base = self.base.loss(model, batch, context)
        if self.weight == 0:
            return base
        size = self.first(model).square().sum()
        return Loss(base.value + self.weight * size, {**base.logs, "first layer": size.detach()})
