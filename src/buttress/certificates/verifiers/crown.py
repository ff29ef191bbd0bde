"""CROWN: linear bounds throughout."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from buttress.certificates.bounds.linear import least_and_slope
from buttress.certificates.verifier import Answer, Problem, Verifier
from buttress.certificates.verifiers.crown_ibp import CROWNIBP
from buttress.registry import verifier


@verifier("crown")
@dataclass(frozen=True, kw_only=True)
class CROWN(Verifier):
    """Linear bounds of the margins, and of what all activations take before (Zhang et al., NeurIPS 2018).

    The slope below a ReLU is that with the smaller area (CROWN-Ada). Where CROWN-IBP's bound of a margin is larger,
    that is taken. Cost: a pass back to the input for each unit that may be on or off, two where it has to be bounded
    from above, too.
    """

    def bound(self, problem: Problem) -> Answer:
        """Bounds of all undecided units in their order, then of the margins."""
        least, slope = least_and_slope(problem.network, problem.region, problem.margins, problem.tightened)
        before = CROWNIBP().bound(problem)
        return Answer(torch.maximum(least, before.margins), problem.region.minimiser(slope))
