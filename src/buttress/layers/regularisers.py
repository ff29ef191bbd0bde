"""What training can add to an objective so that a layer is displaced less: one number per input, differentiable.

Two kinds. Every measure by input (`measures.MEASURES`) sets the displacement against the size of the layer's value. A
network can lower that by making the layer constant, which displaces nothing and tells nothing apart: the paper's
relative error falls with every constant added to the layer, and the training of it ends in a constant prediction.

The others set the displacement against what the layer is there for: how far it sets an input apart from those of
another truth (another class, where there are classes), or what the rest of the network tolerates. They are shares,
d / (d + s) of a displacement d and what it is set against, s: 0 where the layer is not displaced, 1/2 where d = s, and
1, the largest, where s = 0, be d 0 or not. A share is taken for each pair of an input and one of another truth, and
then averaged: of a layer that is one constant for most inputs, most pairs have the largest share, so such a layer
cannot have a small value; nor does it help to scale the layer down or to add a constant. The gradients reward neither a
smaller scale nor a spread that the rest does not read. At s = 0 they are 0 and show no way out of a collapse, so the
monitor layer-collapse is of use here too.

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
    """(N,) displacement against how far the input is ahead of those of other classes, along what tells classes apart.

    With u the direction of (mean of the batch's z in the input's class - mean of z in all other classes):
    d = ||z' - z|| and s = u . (z - z_j), 0 where that is negative, for each input j of another class. NaN in a batch of
    one class. Gradients flow through both passes, the means included.
    """
    clean, moved, finite = _parts(step)
    pairs = _of_another_truth(step.y, finite)
    towards = _directions(class_contrast(clean, step.y, finite)[0])
    return _mean_over(pairs, row_norms(moved), _ahead(clean, towards).clamp(min=0))


def tolerance(step: LayerStep) -> Tensor:
    """(N,) displacement against what the rest of the network tolerates at this input, by its linearisation.

    d = ||z' - z||, s = min(m / ||dm/dz||, r) for each input j of another truth, with the margin m. The first is the
    smallest displacement that a linear rest would turn into a wrong output (`buttress.layers.tolerance` searches the
    true one), 0 where the input is wrong unperturbed. The second is how far the layer sets the two inputs apart along
    what the rest reads: r = |v . (z - z_j)| for the direction v of dm/dz at one of them, the larger of the two. A rest
    that does not need the layer tolerates more, which says nothing for the layer. NaN in a batch of one truth.

    The rest of the network is taken as it is: no gradient flows through m and dm/dz. Both grow with the scale of the
    logits, and second derivatives would cost as much again. But a fixed tolerance would reward a smaller scale of the
    layer, as if the rest did not answer to it; so the gradient takes m / ||dm/dz|| to be in proportion to the root mean
    square of the input's r. That changes no value, makes the gradient blind to the layer's scale, and leaves out of s
    what the rest does not read.
    """
    assert step.margin is not None
    assert step.gradient is not None
    clean, moved, finite = _parts(step)
    gradient, margin = to_rows(step.gradient), step.margin.to(clean.dtype)
    finite = finite & finite_rows(gradient) & margin.isfinite()
    pairs = _of_another_truth(step.y, finite)
    gradient, margin = torch.where(finite[:, None], gradient, 0), torch.where(finite, margin, 0)
    steepness, most = row_norms(gradient), torch.finfo(margin.dtype).max
    linear = (margin / torch.where(steepness > 0, steepness, 1)).clamp(min=0, max=most)
    linear = torch.where((margin > 0) & (steepness == 0), most, linear)
    along = _ahead(clean, _directions(gradient)).abs()
    apart = torch.where(pairs, torch.maximum(along, along.T), 0)
    extent = row_norms(apart)
    grows = extent / torch.where(extent > 0, extent, 1).detach()  # 1, with the relative gradient of the extent
    return _mean_over(pairs, row_norms(moved), torch.minimum((linear * grows)[:, None], apart))


def margin_direction(step: LayerStep) -> Tensor:
    """(N,) displacement along what the rest of the network reads, against how far it is ahead of other classes there.

    With v the direction of dm/dz, in which the margin m rises fastest: d = |v . (z' - z)| and s = v . (z - z_j), 0
    where that is negative, for each input j of another class. NaN in a batch of one class.

    No gradient flows through v: d and s are linear in it and in the layer, so that neither scale counts, and what is
    trained is the part of the network up to the layer, to move less along what is read, rather than the rest, to look
    elsewhere.
    """
    assert step.gradient is not None
    clean, moved, finite = _parts(step)
    finite = finite & finite_rows(step.gradient)
    direction = _directions(torch.where(finite[:, None], to_rows(step.gradient), 0))
    along = (direction * moved).sum(1).abs()
    return _mean_over(_of_another_truth(step.y, finite), along, _ahead(clean, direction).clamp(min=0))


def share(displacement: Tensor, against: Tensor) -> Tensor:
    """The share d / (d + s) of numbers of 0 and more; 1 where s is 0, with a gradient of 0."""
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


def _of_another_truth(y: Tensor, count: Tensor) -> Tensor:
    """(N, N) bool: the pairs of different classes, or of whatever else the task asks for; both have to count."""
    place: Tensor = torch.unique(y.reshape(len(y), -1), dim=0, return_inverse=True)[1]
    return torch.ne(place[:, None], place) & count[:, None] & count


def _directions(rows: Tensor) -> Tensor:
    """(N, D) vectors of length 1; 0 stays 0."""
    length = row_norms(rows)[:, None]
    return rows / torch.where(length > 0, length, 1)


def _ahead(rows: Tensor, direction: Tensor) -> Tensor:
    """(N, N) how far row i is ahead of row j along the i-th direction; 0 where rounding alone can tell them apart."""
    rows = rows - rows.mean(0)  # keeps digits beside an offset
    with torch.autocast(rows.device.type, enabled=False):
        places = direction @ rows.T
    ahead = places.diagonal()[:, None] - places
    size = row_norms(rows.detach())
    rounding = torch.finfo(rows.dtype).eps * rows.shape[1] ** 0.5 * (size[:, None] + size)
    return torch.where(ahead.abs() > rounding, ahead, 0)


def _mean_over(pairs: Tensor, displacement: Tensor, against: Tensor) -> Tensor:
    """(N,) the mean `share` of each row's pairs, of (N,) displacements against (N, N); NaN where there are none."""
    count = pairs.sum(1)
    total = torch.where(pairs, share(displacement[:, None], torch.where(pairs, against, 0)), 0).sum(1)
    return torch.where(count > 0, total / count.clamp(min=1), torch.nan)


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
    if not isinstance(name, str) or name not in REGULARISERS:
        raise UserError(f"there is no measure {name!r}; {nearest(name, sorted(REGULARISERS))}")
    return REGULARISERS[name]
