"""What training can add to an objective so that a layer is displaced less: one number per input, differentiable.

Two kinds. Every measure by input (`measures.MEASURES`) sets the displacement against the size of the layer's value. A
network can lower that by making the layer constant, which displaces nothing and tells nothing apart: the paper's
relative error falls with every constant added to the layer, and the training of it ends in a constant prediction.

The others set the displacement against what the layer is there for: how far it sets classes apart, or what the rest of
the network tolerates. They are shares, d / (d + s) of a displacement d and what it is set against, s: 0 where the
layer is not displaced, 1/2 where d = s, and 1, the largest, where s = 0, be d 0 or not. So scaling the layer down does
not lower them, nor does adding a constant, and a layer without any spread has the largest value there is.

What is not defined is NaN with a gradient of 0, which training leaves out (`measures.mean_defined`): inputs whose
values are not finite, and all inputs of a batch in which there is nothing to set apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.errors import UserError
from buttress.layers.measures import MEASURES, Measure, row_norms, to_rows
from buttress.registry import nearest


@dataclass(frozen=True)
class LayerStep:
    """What a training step shows of one layer.

    Attributes:
        clean: (N, ...) its value for the unperturbed inputs.
        perturbed: (N, ...) the same for the perturbed ones.
        y: (N,) classes, or what else the task asks for.
        margin: (N,) how far the output for the unperturbed inputs is from a wrong one, in its own units, 0 or less
            where it is wrong; without a graph. None where the regulariser does not ask for it.
        gradient: (N, ...) of that margin with respect to ``clean``, without a graph; None as above.
    """

    clean: Tensor
    perturbed: Tensor
    y: Tensor
    margin: Tensor | None = None
    gradient: Tensor | None = None


def between_classes(step: LayerStep) -> Tensor:
    """(N,) displacement against the distance of the input's class from the others.

    d = ||z' - z||, s = ||mean of the batch's z in the input's class - mean of z in all other classes||. NaN in a batch
    of one class. Gradients flow through both passes, the means included.
    """
    clean, moved, finite = _parts(step)
    contrast, defined = class_contrast(clean, step.y, finite)
    return torch.where(defined, share(row_norms(moved), row_norms(contrast)), torch.nan)


def tolerance(step: LayerStep) -> Tensor:
    """(N,) displacement against what the rest of the network tolerates at this input, by its linearisation.

    d = ||z' - z||, s = m / ||dm/dz||, with the margin m: the smallest displacement that a linear rest would turn into
    a wrong output (`buttress.layers.tolerance` searches the true one). It is 0 where the input is wrong unperturbed,
    whose share is 1, with a gradient of 0. NaN in a batch of one input.

    The rest of the network is taken as it is: no gradient flows through m and dm/dz. Both grow with the scale of the
    logits, and second derivatives would cost as much again. But a fixed tolerance would reward a smaller scale of the
    layer, as if the rest did not answer to it; so both are taken in units of the layer's spread over the batch (root
    mean square distance from the mean), of which only the displacement's is differentiated. That changes no value, and
    makes the gradient blind to the layer's scale.
    """
    assert step.margin is not None
    assert step.gradient is not None
    clean, moved, finite = _parts(step)
    size = spread(clean, finite)
    fixed = size.detach()
    steepness = row_norms(to_rows(step.gradient)) * fixed  # how fast the margin falls, per unit of spread
    fall = row_norms(moved) / torch.where(size > 0, size, 1) * steepness
    left = step.margin.to(fall.dtype).clamp(min=0) * (fixed > 0)
    defined = finite & (finite.sum() > 1) & steepness.isfinite() & left.isfinite()
    return torch.where(defined, share(torch.where(defined, fall, 0), left), torch.nan)


def margin_direction(step: LayerStep) -> Tensor:
    """(N,) displacement along what the rest of the network reads, against how far the classes are apart along it.

    With v the direction of dm/dz, in which the margin m rises fastest: d = |v . (z' - z)| and s = v . (mean of z in
    the input's class - mean of z in all other classes), 0 where that is negative. NaN in a batch of one class.

    No gradient flows through v: d and s are linear in it and in the layer, so that neither scale counts, and what is
    trained is the part of the network up to the layer, to move less along what is read, rather than the rest, to look
    elsewhere.
    """
    assert step.gradient is not None
    clean, moved, finite = _parts(step)
    contrast, defined = class_contrast(clean, step.y, finite & finite_rows(step.gradient))
    direction = torch.where(defined[:, None], to_rows(step.gradient), 0)
    length = row_norms(direction)[:, None]
    direction = direction / torch.where(length > 0, length, 1)
    along, apart = (direction * moved).sum(1).abs(), (direction * contrast).sum(1).clamp(min=0)
    return torch.where(defined, share(along, apart), torch.nan)


def share(displacement: Tensor, against: Tensor) -> Tensor:
    """(N,) d / (d + s) of numbers of 0 and more; 1 where s is 0, with a gradient of 0."""
    nothing = against == 0
    return torch.where(nothing, 1.0, displacement / (displacement + torch.where(nothing, 1.0, against)))


def class_contrast(rows: Tensor, y: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of the rows in each row's class, less the mean of the rows in all other classes.

    Args:
        rows: (N, D) values.
        y: (N,) classes.
        count: (N,) bool, the rows that are in the means.

    Returns:
        (N, D) the differences, and (N,) bool, where they are defined: for rows that count, if those are not of one
        class. They are 0 elsewhere.
    """
    weights = count.to(rows.dtype)[:, None]
    rows = (rows - (rows * weights).sum(0) / weights.sum().clamp(min=1)) * weights  # keeps digits beside an offset
    classes, place = torch.unique(y, return_inverse=True)
    # No matrix product, which autocast would compute in half precision.
    sums = rows.new_zeros(len(classes), rows.shape[1]).index_add(0, place, rows)
    sizes = rows.new_zeros(len(classes), 1).index_add(0, place, weights)
    others = sizes.sum() - sizes
    contrast = sums / sizes.clamp(min=1) - (sums.sum(0) - sums) / others.clamp(min=1)
    defined = count & (others > 0).squeeze(1)[place]
    return torch.where(defined[:, None], contrast[place], 0), defined


def finite_rows(values: Tensor) -> Tensor:
    """(N,) bool: which inputs have finite values only."""
    return values.detach().reshape(len(values), -1).isfinite().all(1)


def _parts(step: LayerStep) -> tuple[Tensor, Tensor, Tensor]:
    """(N, D) the clean values and the displacement, 0 for inputs that are not finite in both passes; and (N,) which."""
    finite = finite_rows(step.clean) & finite_rows(step.perturbed)
    clean, perturbed = (torch.where(finite[:, None], to_rows(v), 0) for v in (step.clean, step.perturbed))
    return clean, perturbed - clean, finite


def spread(rows: Tensor, count: Tensor) -> Tensor:
    """() root mean square distance of those rows that count from their mean."""
    weights = count.to(rows.dtype)[:, None]
    total = weights.sum().clamp(min=1)
    return row_norms(((rows - (rows * weights).sum(0) / total) * weights).flatten()) / total.sqrt()


@dataclass(frozen=True)
class Regulariser:
    """A regulariser by name.

    Attributes:
        name: by which it is selected.
        function: `LayerStep` -> (N,).
        needs_classes: whether it compares inputs of different classes.
        needs_margin: whether it asks for the margin and its gradient at the layer: one backward pass for each batch
            from the unperturbed inputs' outputs to the lowest of the layers, whichever number of layers.
    """

    name: str
    function: Callable[[LayerStep], Tensor]
    needs_classes: bool = False
    needs_margin: bool = False

    def __call__(self, step: LayerStep) -> Tensor:
        """(N,) what is to be made small, input by input."""
        return self.function(step)


def _of_measure(measure: Measure) -> Regulariser:
    return Regulariser(measure.name, lambda step: measure(step.clean, step.perturbed))


REGULARISERS: dict[str, Regulariser] = {
    regulariser.name: regulariser
    for regulariser in (
        *map(_of_measure, MEASURES.values()),
        Regulariser("between_classes", between_classes, needs_classes=True),
        Regulariser("tolerance", tolerance, needs_margin=True),
        Regulariser("margin_direction", margin_direction, needs_classes=True, needs_margin=True),
    )
}


def resolve(name: str) -> Regulariser:
    """A regulariser by its name.

    Raises:
        UserError: for an unknown name, with the nearest known one.
    """
    if name not in REGULARISERS:
        raise UserError(f"there is no measure {name!r}; {nearest(name, sorted(REGULARISERS))}")
    return REGULARISERS[name]
