"""Membership inference by a likelihood ratio, calibrated for each input by reference networks (LiRA)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from buttress.errors import UserError
from buttress.float64 import above_zero
from buttress.losses import log_odds_against

Form = Literal["online", "offline"]
Variance = Literal["each", "shared"]
ENOUGH = 64  # references from which on each input has a variance of its own, as in the paper


def log_odds(logits: Tensor, y: Tensor) -> Tensor:
    """(N,) float64 logit-scaled confidence log(p / (1 - p)) of the true class, from logits (N, C), without rounding."""
    return -log_odds_against(logits.double(), y.long())


def form_of(seen: Tensor) -> Form:
    """Online where each input is in the training data of some references and not of others; else offline.

    Args:
        seen: (K, N) bool.

    Raises:
        UserError: where an input was seen by all references, so that nothing says what others make of it.
    """
    if bool((always := seen.all(0)).any()):
        raise UserError(
            f"{int(always.sum())} of {seen.shape[1]} inputs were seen by all {len(seen)} reference networks in their "
            "training: give more of them, in pairs trained on each other's rest (buttress train --half 0, --half 1)"
        )
    return "online" if bool(seen.any(0).all()) else "offline"


def likelihood_ratio(target: Tensor, references: Tensor, seen: Tensor, variance: Variance | None = None) -> Tensor:
    """(N,) the evidence that each input was trained on (Carlini, Chien, Nasr, Song, Terzis, Tramer, S&P 2022).

    Online (their algorithm 1), the log-likelihood ratio of the target's log-odds under normal distributions fitted, for
    each input, to the log-odds of references that saw it and of those that did not. Offline, how many standard
    deviations it is above the latter's mean, the same order as their one-sided test. With less than 64 references the
    variance is one for all inputs: here that within the inputs, about each one's own mean; the released code takes that
    of all log-odds together, which counts easy and hard inputs as noise.

    Args:
        target: (N,) log-odds by the network in question.
        references: (K, N) by each reference.
        seen: (K, N) bool, whether it was in the reference's training data.
        variance: "each" or "shared", by the number of references unless given.

    Raises:
        UserError: where an input was seen by all references, and for one reference alone, which has no variance.
    """
    form = form_of(seen)
    if len(references) < 2:
        raise UserError(f"a likelihood ratio needs 2 reference networks or more; got {len(references)}")
    variance = variance or ("each" if len(references) >= ENOUGH else "shared")
    mean, deviation = _fit(references, ~seen, variance)
    outside = (target - mean) / deviation
    if form == "offline":
        return outside
    mean, spread = _fit(references, seen, variance)
    inside = (target - mean) / spread
    return (outside.square() - inside.square()) / 2 + deviation.log() - spread.log()


def _fit(values: Tensor, chosen: Tensor, variance: Variance) -> tuple[Tensor, Tensor]:
    """(N,) mean and standard deviation over the chosen (K, N) values of each input; of one alone the shared one's."""
    weight = chosen.double()
    count = weight.sum(0)
    mean = (values * weight).sum(0) / count
    squares = ((values - mean).square() * weight).sum(0)
    shared = squares.sum() / (count - 1).clamp(min=0).sum()
    each = torch.where(count > 1, squares / (count - 1).clamp(min=1), shared)
    chosen_variance = each if variance == "each" else shared.expand_as(each)
    if not bool(chosen_variance.isfinite().all()):
        raise UserError(
            "no input has two reference networks alike, which saw it or did not, so that there is no variance: give "
            "more of them"
        )
    return mean, above_zero(chosen_variance).sqrt()
