"""Do random points, or an attack that queries outputs only, succeed where the gradient does not?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from buttress.attacks import Attack
from buttress.attacks.black_box.square import Square
from buttress.audits.masking.checks.check import Check, CheckContext, Kind, Result
from buttress.audits.masking.checks.proposal import black_box
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.losses import margin
from buttress.random import Random
from buttress.threat import NOT_GIVEN, Threat, norms, per_row


@dataclass(frozen=True, kw_only=True)
class RandomSearch(Attack):
    """Random points of the threat, by turns inside of it and on its surface; the one of the largest margin.

    Cost per input: ``count`` forwards.

    Args:
        threat: what is allowed.
        count: points tried.
    """

    threat: Threat = NOT_GIVEN
    count: int = 100

    def search_passes(self, classes: int) -> PassCount:
        """One for each point."""
        return PassCount(self.count)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The point of the largest margin."""
        best, highest = x, torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
        for k in range(self.count):
            if oracle.done:
                break
            point = self.threat.random_start(x, random) if k % 2 else self._corner(x, random)
            value = oracle.loss(point, margin)
            better = value > highest
            best, highest = torch.where(per_row(better, x), point, best), torch.where(better, value, highest)
        return best

    def _corner(self, x: Tensor, random: Random) -> Tensor:
        sign = self.threat.free(random.sign(x.shape[1:], x.dtype))
        size = min(self.threat.eps, torch.finfo(x.dtype).max ** 0.5)
        return self.threat.project(x + size * sign / per_row(norms(sign, self.threat.norm).clamp(min=1.0), x), x)


class RandomPoints(Check):
    """Random points within the budget against the attack (Carlini et al., arXiv 1902.06705)."""

    name = "random points"
    question = "Do random points succeed where the attack does not?"
    kind: ClassVar[Kind] = "gradient-free"
    tests: ClassVar[int] = 2
    needs_gradient = False

    def attacks(self, context: CheckContext) -> list[Attack]:
        """The search at random."""
        return [RandomSearch(threat=context.attack.threat, count=context.draws)]

    def ask(self, context: CheckContext) -> Result:
        """Fail where they do."""
        (search,) = self.attacks(context)
        pair = context.compare_robust((f"{context.draws} random points", context.robust_under(search)))
        reason = f"{pair.challenger} succeed on {pair.won} inputs that the attack misses, of {pair.inputs}."
        return Result(
            "fail" if pair.stronger else "pass",
            reason,
            {},
            (pair,),
            black_box(context) if pair.stronger else None,
        )


class BlackBox(Check):
    """Square (Andriushchenko et al., ECCV 2020), which queries outputs only, against the attack."""

    name = "black box"
    question = "Is an attack without gradients more successful?"
    kind: ClassVar[Kind] = "gradient-free"
    tests: ClassVar[int] = 2
    needs_gradient = False

    def attacks(self, context: CheckContext) -> list[Attack]:
        """Square."""
        return [Square(threat=context.attack.threat, queries=context.queries)]

    def ask(self, context: CheckContext) -> Result:
        """Fail where it does: gradients are the better guide wherever they are honest."""
        (square,) = self.attacks(context)
        pair = context.compare_robust((f"Square with {context.queries} queries", context.robust_under(square)))
        if not pair.stronger:
            return Result("pass", f"Square succeeds on {pair.won} inputs that the attack misses.", {}, (pair,))
        reason = f"Square succeeds on {pair.won} inputs that the attack misses, and misses {pair.lost} others."
        return Result("fail", reason, {}, (pair,), black_box(context, more=2))
