"""Gradients as they are: with the zeros, NaN and gaps that the attack engine mends or refuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from buttress.audits.base.subject import Subject
from buttress.engine.preserved_model import preserved
from buttress.float64 import above_zero
from buttress.losses import margin
from buttress.models import forward_checked
from buttress.random import Random, derive
from buttress.threat import Threat, norms, per_row


@dataclass(frozen=True)
class MarginGradients:
    """The margin (best other logit minus the true one) at some points, and its gradient.

    Attributes:
        value: (N,) float64.
        grad: (N, ...) of the points' shape, as autograd gives it.
    """

    value: Tensor
    grad: Tensor


def margin_gradients(subject: Subject, x: Tensor) -> MarginGradients | None:
    """Margins and gradients at ``x``; None where autograd finds no path from the output to the input.

    A network that draws at random makes the same draws in every call of the same shape.
    """
    values, grads = [], []
    with preserved(subject.model, "eval", subject.seed, x.device):
        for part, y in zip(*(torch.split(t, subject.batch_size) for t in (x, subject.y)), strict=True):
            point = part.detach().clone().requires_grad_()
            output = subject.task.read(forward_checked(subject.model, point))
            if not output.requires_grad:
                return None
            value = margin(output.double(), y)
            (grad,) = torch.autograd.grad(value.sum(), point, allow_unused=True)
            if grad is None:
                return None
            values.append(value.detach())
            grads.append(grad)
    return MarginGradients(torch.cat(values), torch.cat(grads))


@dataclass(frozen=True)
class Neighbours:
    """Points around each input, a quarter of the budget away in random directions, on both sides of it.

    Args:
        subject: of which the inputs are.
        threat: the budget.
        count: directions.
    """

    subject: Subject
    threat: Threat
    count: int

    @cached_property
    def centre(self) -> Tensor:
        """(N, ...) the inputs, moved off the faces of the box: ``centre`` plus or minus a step is inside it."""
        x, room = self.subject.x, torch.zeros(())
        for step in self.steps():
            room = torch.maximum(room.to(x), step.abs().amax(0))
        low, high = self.threat.limits(x)
        return x.clamp(low + room, high - room)

    def steps(self) -> Iterator[Tensor]:
        """One (N, ...) for each direction; drawn again in each call, as together they are many times the inputs."""
        x, threat = self.subject.x, self.threat
        draws = Random(derive(self.subject.seed, "masking", "neighbours"), self.subject.ids)
        low, high = threat.limits(x)
        length = min(threat.eps / 4, span(self.subject, threat) / 8 * float(norms(torch.ones_like(x[:1]), threat.norm)))
        for _ in range(self.count):
            direction = threat.shared(2 * draws.uniform(x.shape[1:], x.dtype) - 1)
            step = length * (direction / per_row(threat.size(direction).clamp(min=1e-30), x))
            # In a box by feature the narrow ones have no room for the whole step.
            yield torch.minimum(step.abs(), (high - low) / 4) * step.sign()


def span(subject: Subject, threat: Threat) -> float:
    """The width of the box, or of the inputs where there is none."""
    return threat.unit if threat.box else max(float(subject.x.max() - subject.x.min()), 1e-12)


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """(N,) cosine of the angle between rows; 0 where one of them is zero or not finite."""
    a, b = (torch.nan_to_num(t.flatten(1).double(), nan=0.0, posinf=0.0, neginf=0.0) for t in (a, b))
    size = norms(a, "l2") * norms(b, "l2")
    return torch.where(size > 0, (a * b).sum(1) / above_zero(size), 0.0)
