"""Which of several figures over the same inputs are shown to be above which, and the places that this leaves open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from buttress.random import generator

LEVEL = 0.05  # of all comparisons together
FEWEST = 6  # inputs that show anything at that level: of all signs of 5, a sixteenth are alike
METHOD = f"sign flips of paired differences, 5 % for all pairs together, which takes {FEWEST} inputs at least"
_FLIPS = 1999  # beside the signs as they are
_AT_ONCE = 1 << 22  # signs drawn at once
_ROUNDING = 1e-6  # relative; smaller differences are those of float32

Places = Mapping[str, Sequence[int | None]]  # ``rank``, ``low`` and ``high`` of each; see `places`


def above(figures: Tensor) -> Tensor:
    """(R, R) bool of (R,) figures, some perhaps infinite: [k, l] is whether k is above l, by more than rounding."""
    one, other = figures[:, None], figures[None]
    return (one > other) & ~torch.isclose(one, other, rtol=_ROUNDING, atol=0.0)


def shown_above(figures: Tensor, influence: Tensor, known: Tensor, seed: int) -> Tensor:
    """(R, R) bool: [k, l] is whether the inputs show figure k to be above figure l.

    The error rate, at most 5 %, holds for all pairs together, since the data choose the pair (Westfall and Young,
    "Resampling-Based Multiple Testing", 1993): a difference counts where it is as large, over the root of its squares,
    as the largest one of all pairs is under 5 % of all random signs. Where two figures are equal and the differences
    between them symmetric, every sign is as likely, so this is exact for any number of inputs and any distribution:
    with fewer than 6 inputs nothing is told apart, and shares of two networks are compared as by McNemar's exact test.
    For skewed differences it holds with many inputs, as the t test does: of lognormal values and their constant mean,
    some 15 % are told apart with 10 inputs, 8 % with 200.

    Args:
        figures: (R,) finite; NaN where one is not defined.
        influence: (R, N) what each input moves a figure by, times N (influence function): for a mean over n of the
            inputs N / n times the deviation from it. NaN where that is not known, and so of no figure that the row is
            compared with; 0 for an input that the figure does not hang on.
        known: (R, N) bool, the inputs that a figure hangs on. Two are compared over as many as both hang on.
        seed: of the random signs.
    """
    rows, count = influence.shape
    if rows < 2 or not count:
        return torch.zeros(rows, rows, dtype=torch.bool)
    usable = ~(figures + influence.sum(1)).isnan()
    shares = (figures[:, None] + influence).where(usable[:, None], 0.0)  # a figure is their mean
    complete = bool(known[usable].all())
    comparable = usable[:, None] & usable & (known.double() @ known.double().T > 0)
    gaps = figures[:, None] - figures

    def moved(k: int) -> Tensor:
        """(R - k - 1, N) by how much the spread of a difference over common inputs differs from one over all."""
        both = (known[k] & known[k + 1 :]).double()
        return gaps[k, k + 1 :, None] * (both * (count / both.sum(1, keepdim=True).clamp(min=1)) - 1)

    scales = torch.zeros(rows, rows, dtype=torch.float64)  # one over the root of the squares
    for k in range(rows - 1):
        differences = shares[k] - shares[k + 1 :]
        squares = (differences if complete else differences + moved(k)).square().sum(1)
        scales[k, k + 1 :] = squares.rsqrt().where(comparable[k, k + 1 :] & (squares > 0), 0.0)

    random, step, largest = generator(seed, "signs"), max(1, _AT_ONCE // count), []
    for start in range(0, _FLIPS, step):
        signs = 2 * torch.randint(2, (min(step, _FLIPS - start), count), generator=random).double() - 1
        flipped, most = signs @ shares.T, signs.new_zeros(len(signs))
        for k in range(rows - 1):
            sums = flipped[:, k : k + 1] - flipped[:, k + 1 :]
            if not complete:
                sums += (signs @ moved(k).T).nan_to_num(0.0)
            most = most.maximum(sums.abs_().mul_(scales[k, k + 1 :]).amax(1))
        largest.append(most)
    ordered, total = torch.cat(largest).sort().values, shares.sum(1)
    sizes = (total[:, None] - total).abs() * scales * (1 - _ROUNDING)
    as_large = 1 + len(ordered) - torch.searchsorted(ordered, sizes)
    shown = (as_large <= LEVEL * (1 + len(ordered))) & (sizes > 0)
    return (shown | shown.T) & above(figures)


def places(figures: Tensor, shown: Tensor) -> dict[str, list[int | None]]:
    """The places of R things by figures over inputs, the largest first, with simultaneous confidence intervals.

    A thing comes after all that are shown to be above it and before all that it is shown to be above, so that the
    intervals hold jointly where all comparisons do: at 95 % all of them contain the true places (Mogstad, Romano,
    Shaikh and Wilhelm, "Inference for Ranks", Review of Economic Studies 91, 2024). Of equal figures every place that
    they share is true. What follows in words holds with them, such as that one thing alone may be the first.

    Args:
        figures: (R,) some perhaps infinite; NaN where one is not defined.
        shown: (R, R) bool, [k, l] whether k is shown to be above l.

    Returns:
        ``rank``, places from 1, equals sharing the first of theirs; ``low`` and ``high``, the ends of their intervals.
        None for what is not defined.
    """
    defined = ~figures.isnan()
    bounds = {
        "rank": 1 + above(figures).sum(0),
        "low": 1 + shown.sum(0),
        "high": defined.sum() - shown.sum(1),
    }
    return {
        name: [place if has_one else None for place, has_one in zip(of.tolist(), defined.tolist(), strict=True)]
        for name, of in bounds.items()
    }


def may_be_first(places: Places) -> list[int]:
    """Positions of the things whose intervals begin at 1, in the order of their places; see `places`."""
    ranked = [(rank, k) for k, rank in enumerate(places["rank"]) if rank is not None and places["low"][k] == 1]
    return [k for _, k in sorted(ranked)]
