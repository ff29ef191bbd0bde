"""Places by medians over the same inputs, and how far the inputs determine them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from buttress.audits.base.rank_intervals import LEVEL, above, places, shown_above


def median_places(values: Tensor, seed: int) -> dict[str, list[int | None]]:
    """The places of R things by the medians of their values over the same N inputs, the largest first; see `places`.

    One median is shown to be above another where two tests say so. By the first, all pairs at one level, the
    difference is larger than its standard error: a median is taken as the mean of what each input adds, its side of the
    median times the standard error (Maritz and Jarrett, Journal of the American Statistical Association 73, 1978, which
    is the bootstrap's without its draws). For many inputs that holds whatever the distributions are. By the second, the
    sign test of the pair (Bonferroni), more inputs have the larger value there, which is exact for few inputs too where
    the two things may be exchanged. Of 3 things it takes 8 inputs at least.

    Args:
        values: (R, N), some perhaps infinite; NaN where one is not defined for an input, which its median leaves out.
            Minus the values where the lowest comes first.
        seed: of the random signs.
    """
    values = values.detach().cpu().double()
    known = ~values.isnan()
    count = known.sum(1)
    finite = _finite(values)
    medians, centres = _medians(values), _medians(finite)
    sides = (finite - centres[:, None]).sign().where(known, 0.0)
    sides = (sides - sides.sum(1, keepdim=True) / count[:, None]).where(known, 0.0)
    weight = values.shape[1] / count.clamp(min=1).sqrt() * _standard_errors(finite, count)
    shown = shown_above(centres, weight[:, None] * sides, known, seed)
    return places(medians, shown & above(medians) & _more_often_above(values))


def _medians(values: Tensor) -> Tensor:
    """(R,) medians of what is not NaN: the mean of the middle two, infinite where one of them is; NaN of none."""
    if not values.numel():
        return values.new_full((len(values),), math.nan)
    lower, upper = (values.nanquantile(0.5, 1, interpolation=side) for side in ("lower", "higher"))
    return torch.where(lower == upper, lower, (lower + upper) / 2)


def _finite(values: Tensor) -> Tensor:
    """Values of the same order, infinite ones as far beyond the others as these reach."""
    usual = values[values.isfinite()]
    low, high = (float(usual.min()), float(usual.max())) if len(usual) else (0.0, 0.0)
    reach = max(high - low, abs(high), abs(low)) or 1.0
    return values.clamp(low - reach, high + reach)


def _standard_errors(values: Tensor, count: Tensor) -> Tensor:
    """(R,) standard deviations of the medians of resampled inputs, by the beta law of the middle order statistic."""
    from scipy.special import betainc

    ends = torch.arange(values.shape[1] + 1) / count.clamp(min=1)[:, None]
    middle = ((count + 1) / 2)[:, None]
    weights = torch.from_numpy(betainc(middle.numpy(), middle.numpy(), ends.clamp(max=1).double().numpy())).diff()
    ordered = values.sort(1).values.nan_to_num(0.0)  # NaN last, with no weight
    mean = (weights * ordered).sum(1, keepdim=True)
    return (weights * (ordered - mean).square()).sum(1).sqrt()


def _more_often_above(values: Tensor) -> Tensor:
    """(R, R) bool: [k, l] is whether k is above l on more inputs than below it, by sign tests at 5 % for all pairs."""
    from scipy.special import bdtr

    larger = torch.stack([(row > values).sum(1) for row in values]) if len(values) else values.new_zeros(0, 0)
    smaller = larger.T
    defined = int((~values.isnan()).any(1).sum())
    pairs = defined * (defined - 1) / 2
    fewer = larger.minimum(smaller).numpy()
    p = 2 * torch.from_numpy(bdtr(fewer, (larger + smaller).numpy(), 0.5))
    return (larger > smaller) & (p * pairs <= LEVEL)
