"""Random corners of the threat, without gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.attacks.gradient.steepest_ascent import reach
from buttress.engine.attack import Attack
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import NOT_GIVEN, Threat, check_threat, norms, per_row
from buttress.validation import whole


@attack("corners")
@dataclass(frozen=True, kw_only=True)
class Corners(Attack):
    """Points drawn by chance among the corners of the threat (Carlini et al., arXiv 1902.06705: try random points).

    In linf a corner is the input with eps added to or taken from each value, clipped to the box; a linear network is
    weakest in one of them. In other norms it is the point at distance eps along a direction of random signs. An
    attack by gradients that overlooks what blind chance finds was misled by them.

    Cost per input: ``queries`` forwards at most, no backwards; none after an input's first success.

    Args:
        threat: what is allowed; a finite eps or a box.
        queries: corners tried.
    """

    threat: Threat = NOT_GIVEN
    queries: int = 10_000

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        whole("queries", self.queries)
        check_threat("Corners", self.threat, finite=True)

    def search_passes(self, classes: int) -> PassCount:
        """The queries."""
        return PassCount(self.queries)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The first corner that fooled the model, or the one of the largest margin."""
        best, highest = x, torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
        success = torch.zeros_like(highest, dtype=torch.bool)
        for query in range(self.queries):
            if oracle.search == "full" and query % oracle.read_every == 0:
                oracle.rest(success)
            if oracle.done:
                break
            point = self._corner(x, random)
            loss = oracle.loss(point, "margin")
            won = oracle.success & ~success
            better = won | (~success & (loss > highest))
            best, highest = torch.where(per_row(better, x), point, best), torch.where(better, loss, highest)
            success = success | won
        oracle.wake()
        return best

    def _corner(self, x: Tensor, random: Random) -> Tensor:
        sign = self.threat.free(random.sign(x.shape[1:], x.dtype))
        return self.threat.project(x + reach(self.threat) * sign / per_row(norms(sign, self.threat.norm), x), x)
