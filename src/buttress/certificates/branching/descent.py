"""Inputs with small margins, from where bounds are met."""

from __future__ import annotations

import torch
from torch import Tensor

from buttress.certificates.verifier import Problem


def descended(problem: Problem, starts: Tensor, steps: int) -> Tensor:
    """(S, N, ...) allowed inputs with smaller margins than ``starts``, by the conditional gradient method.

    Each step goes a part 2 / (t + 2) of the way to the point of the region where the margin's tangent is least (Frank
    and Wolfe, 1956), which is defined for every norm with the box; the best point on the way is kept.

    Args:
        problem: the inputs, of which ``starts`` are allowed perturbations.
        starts: (S, N, ...).
        steps: of each start.
    """
    places = torch.arange(len(problem.x), device=problem.x.device)
    many = problem.of_rows(places.repeat(len(starts)))
    point = best = starts.flatten(0, 1)
    least = point.new_full((len(point),), torch.inf)
    for step in range(steps + 1):
        with torch.enable_grad():
            point = point.detach().requires_grad_()
            met = many.met(point)
            (grad,) = torch.autograd.grad(met.sum(), point)
        point, met = point.detach(), met.detach()
        best = torch.where((met < least).view(-1, *[1] * (point.dim() - 1)), point, best)
        least = torch.minimum(least, met)
        target = many.region.minimiser(grad[None, :, None])[0]
        point = torch.lerp(point, target, 2 / (step + 2))
    return many.threat.project(best, many.x).view_as(starts)
