"""How far a perturbation displaces a layer: one number per input, larger when it is displaced further.

All are differentiable. 0/0 is 0; a displacement of something that is 0 has no relative size and is NaN (with a gradient
of 0): analysis leaves it out and counts it, training takes `mean_defined`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.errors import UserError
from buttress.registry import nearest

_USUAL = (1e-6, 1e12)  # norms whose squares float32 has with all digits


def to_rows(values: Tensor) -> Tensor:
    """(N, D) in float32 at least; half precision would lose small displacements."""
    rows = values.reshape(len(values), -1)
    return rows if rows.dtype == torch.float64 else rows.float()


def power_of_two(rows: Tensor) -> Tensor:
    """(..., 1) a power of two near the largest value of each row; 1 where that is 0 or not finite."""
    largest = rows.detach().abs().amax(-1, keepdim=True) if rows.shape[-1] else rows.new_ones(*rows.shape[:-1], 1)
    usual = largest.isfinite() & (largest > 0)
    return torch.exp2(torch.where(usual, largest, 1.0).log2().floor().clamp(-126, 126))


def row_norms(rows: Tensor) -> Tensor:
    """(N,) L2 norms; torch's gradient of this at 0 is 0, that of a square root would be NaN.

    Where a norm is not of usual size, rows are scaled by a power of two, which changes no digit: squares of 1e-25 or
    1e20 are no float32 numbers.
    """
    norms: Tensor
    if not rows.requires_grad:  # training does not wait for a device to answer
        norms = torch.linalg.vector_norm(rows, dim=-1)
        if bool(((norms > _USUAL[0]) & (norms < _USUAL[1])).all()):
            return norms
    scale = power_of_two(rows)
    norms = torch.linalg.vector_norm(rows / scale, dim=-1)
    return norms * scale.squeeze(-1)


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient, with 0/0 = 0 and x/0 = NaN, and a gradient of 0 at both."""
    nothing = denominator == 0
    quotient = numerator / torch.where(nothing, 1, denominator)
    return torch.where(nothing, torch.where(numerator == 0, 0.0, torch.nan).to(quotient.dtype), quotient)


def mean_defined(values: Tensor) -> Tensor:
    """The mean over what is not NaN, 0 where all are: how training reduces a measure."""
    defined = ~values.isnan()
    return torch.where(defined, values, 0).sum() / defined.sum().clamp(min=1)


def relative_error(clean: Tensor, perturbed: Tensor, centre: Tensor | None = None) -> Tensor:
    """(N,) ||clean - perturbed|| / ||clean|| for each input (Khalooei et al., arXiv 2202.02626, CM)."""
    rows = to_rows(clean)
    return ratio(row_norms(rows - to_rows(perturbed)), row_norms(rows))


def relative_error_batch(clean: Tensor, perturbed: Tensor, centre: Tensor | None = None) -> Tensor:
    """The same with one Frobenius norm over the whole batch, as the authors' release has it; repeated N times."""
    rows = to_rows(clean)
    whole = ratio(row_norms((rows - to_rows(perturbed)).flatten()), row_norms(rows.flatten()))
    return whole.expand(len(rows))


def centred(clean: Tensor, perturbed: Tensor, centre: Tensor | None = None) -> Tensor:
    """(N,) ||clean - perturbed|| / ||clean - centre||: an offset added to every activation does not lower it.

    Args:
        clean: (N, ...) activations.
        perturbed: (N, ...) the same for the perturbed inputs.
        centre: (...) mean activation of a reference sample; the batch's own mean when None.

    Raises:
        UserError: without a centre for fewer than 2 inputs, which are their own mean.
    """
    rows = to_rows(clean)
    if centre is None and len(rows) < 2:
        raise UserError(f"the centred measure needs a centre, or 2 or more inputs to a batch; got {len(rows)}")
    middle = rows.mean(0) if centre is None else to_rows(centre[None])[0]
    return ratio(row_norms(rows - to_rows(perturbed)), row_norms(rows - middle))


def _unit(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors of length 1 (0 stays 0), and their former lengths."""
    size = row_norms(rows)
    return rows / torch.where(size == 0, 1, size)[..., None], size


def _angle(one: Tensor, other: Tensor) -> Tensor:
    """1 - cos of the angle between vectors, as half the squared chord: exactly 0, with gradient 0, for equal ones."""
    (a, size_a), (b, size_b) = _unit(one), _unit(other)
    half_chord = (a - b).square().sum(-1) / 2
    undefined = (size_a == 0) != (size_b == 0)
    return torch.where(undefined, torch.nan, half_chord)


def cosine(clean: Tensor, perturbed: Tensor, centre: Tensor | None = None) -> Tensor:
    """(N,) 1 - cos(clean, perturbed): 0 to 2, blind to a change of scale. NaN when exactly one of the two is 0."""
    return _angle(to_rows(clean), to_rows(perturbed))


def cka(clean: Tensor, perturbed: Tensor, centre: Tensor | None = None) -> Tensor:
    """1 - linear CKA over the batch, repeated N times: blind to rotation and scale (Kornblith et al., ICML 2019).

    Raises:
        UserError: for fewer than 2 inputs, which have no covariance.
    """
    if len(clean) < 2:
        raise UserError(f"CKA needs 2 or more inputs to a batch; got {len(clean)}")
    grams = []
    for rows in (to_rows(clean), to_rows(perturbed)):
        middle = rows - rows.mean(0)
        middle = middle / power_of_two(middle.flatten())  # which CKA is blind to, as to any scale
        # The Gram matrix of the inputs gives the same CKA as the (much larger) covariance of the features.
        grams.append((middle @ middle.T).flatten())
    return _angle(*grams).expand(len(clean))


@dataclass(frozen=True)
class Measure:
    """A measure by name.

    Attributes:
        name: by which it is selected.
        function: (clean, perturbed, centre or None) -> (N,).
        needs_centre: whether analysis has to pass it the mean activation of a reference sample.
        least: the fewest inputs in a batch that it is defined for, a centre given.
        by_input: whether each input has a number of its own, rather than that of its batch.
    """

    name: str
    function: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    needs_centre: bool = False
    least: int = 1
    by_input: bool = True

    def __call__(self, clean: Tensor, perturbed: Tensor, centre: Tensor | None = None) -> Tensor:
        """(N,) displacement of each input."""
        return self.function(clean, perturbed, centre)


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure("relative_error", relative_error),
        Measure("relative_error_batch", relative_error_batch, by_input=False),
        Measure("centred", centred, needs_centre=True),
        Measure("cosine", cosine),
        Measure("cka", cka, least=2, by_input=False),
    )
}


def resolve(measure: str | Measure) -> Measure:
    """A measure by its name, or itself.

    Raises:
        UserError: for an unknown name, with the nearest known one.
    """
    if isinstance(measure, Measure):
        return measure
    if not isinstance(measure, str):
        raise UserError(f"measure must be one of {', '.join(MEASURES)}, or a Measure; got {measure!r}")
    if measure not in MEASURES:
        raise UserError(f"there is no measure {measure!r}; {nearest(measure, sorted(MEASURES))}")
    return MEASURES[measure]
