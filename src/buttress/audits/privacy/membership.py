"""Membership inference by a score: who says "member" of every input whose score is high enough, and how often right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from buttress.audits.base.probability_scores import auroc
from buttress.audits.privacy.gaps import difference
from buttress.random import generator

FALSE_POSITIVES = (0.001, 0.01)  # at which true positives are told
_POINTS = 200  # of a curve that is reported


@dataclass(frozen=True)
class Curve:
    """A ROC: at each threshold, from the highest on, the shares of members and of others that are called members.

    Attributes:
        thresholds: (T,) falling; the first is infinite, so that nobody is called a member.
        true_positives: (T,) rising from 0 to 1.
        false_positives: (T,) likewise.
    """

    thresholds: Tensor
    true_positives: Tensor
    false_positives: Tensor

    @classmethod
    def of(cls, members: Tensor, others: Tensor) -> Curve:
        """From scores (N,) and (M,); equal scores are called alike. O(n log n): one sort."""
        scores = torch.cat([members, others]).double()
        order = scores.argsort(descending=True, stable=True)
        sorted_scores, member = scores[order], order < len(members)
        last = torch.cat([sorted_scores.diff() != 0, torch.ones(1, dtype=torch.bool)]).nonzero().squeeze(1)
        rates = [hit.double().cumsum(0)[last] / hit.sum() for hit in (member, ~member)]
        start = torch.zeros(1, dtype=torch.float64)
        thresholds = torch.cat([start + torch.inf, sorted_scores[last]])
        return cls(thresholds, *(torch.cat([start, rate]) for rate in rates))

    @property
    def best(self) -> int:
        """Where true less false positives is largest, the first of equals."""
        return int((self.true_positives - self.false_positives).argmax())

    def at(self, false_positives: float) -> float:
        """The share of members that is found at no more than so many false positives."""
        return float(self.true_positives[self.false_positives <= false_positives].amax())

    def points(self) -> list[list[float]]:
        """[false, true positives] at about 200 places, spread over both, for a picture."""
        way = self.true_positives + self.false_positives
        wanted = torch.linspace(0, 2, _POINTS, dtype=torch.float64)
        index = torch.searchsorted(way, wanted).clamp(max=len(way) - 1)
        index = torch.unique_consecutive(index)
        pairs = torch.stack([self.false_positives[index], self.true_positives[index]], 1)
        corners = torch.tensor([[0.0, 0.0]], dtype=torch.float64)
        return [list(map(float, pair)) for pair in torch.cat([corners, pairs]).tolist()]


def inferred(members: Tensor, others: Tensor, seed: int) -> dict[str, Any]:
    """How well a score tells members from others.

    The threshold with the largest advantage is chosen on a random half of each and used on the rest: chosen and used on
    the same inputs, as in the code of arXiv 2012.13573, the advantage is too large by about 1/sqrt(N), also of a
    network that gives nothing away; that figure is here as ``optimistic``.

    Args:
        members: (N,) scores, finite or infinite, higher where membership is more likely.
        others: (M,) likewise.
        seed: of the halves.

    Returns:
        ``advantage`` (true less false positives on the second half) with its interval ``low`` to ``high``, ``accuracy``
        (of a guess about as many members as others), ``threshold``, ``optimistic``, ``auroc``, the true positives
        ``at`` each of the false positives of `FALSE_POSITIVES` that so many others resolve, None below, and the ROC of
        all as ``curve``.
    """
    members, others = members.double().cpu(), others.double().cpu()
    (choosing_in, rest_in), (choosing_out, rest_out) = (
        _halves(scores, seed, name) for name, scores in (("members", members), ("others", others))
    )
    half = Curve.of(choosing_in, choosing_out)
    threshold = float(half.thresholds[half.best])
    found = difference(rest_in >= threshold, rest_out >= threshold)
    whole = Curve.of(members, others)
    best = whole.best
    return {
        "advantage": found["difference"],
        "low": found["low"],
        "high": found["high"],
        "accuracy": (1 + found["difference"]) / 2,
        "threshold": threshold,
        "optimistic": float(whole.true_positives[best] - whole.false_positives[best]),
        "auroc": auroc(others, members),
        "at": {f"{rate:g}": whole.at(rate) if rate * len(others) >= 1 else None for rate in FALSE_POSITIVES},
        "curve": whole.points(),
    }


def _halves(scores: Tensor, seed: int, name: str) -> tuple[Tensor, Tensor]:
    order = torch.randperm(len(scores), generator=generator(seed, "halves", name))
    return scores[order[: len(scores) // 2]], scores[order[len(scores) // 2 :]]
