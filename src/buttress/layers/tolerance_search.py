"""The smallest change of one layer's value for which the output is wrong: a search for each input."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from buttress.layers.measures import ratio, relative_error
from buttress.tasks import Task
from buttress.threat import Threat, norms, per_row

Rows = Tensor | slice
OutputFor = Callable[[Tensor, Rows], Tensor]
Objective = Callable[[Tensor, Tensor], Tensor]

_DOUBLINGS = 6  # how often the radius may double, from the attack's own, in the search for a first success
_UNIT_BALL = Threat(norm="l2", eps=1.0, box=None)


class ToleranceSearch:
    """The smallest change of one layer for which the output is wrong, for the inputs of one batch."""

    def __init__(self, output_for: OutputFor, clean: Tensor, y: Tensor, task: Task, steps: int) -> None:
        self.output_for, self.clean, self.y, self.task = output_for, clean, y, task
        self.steps = (steps + 1) // 2  # for each of two objectives

    def radius(self, perturbed: Tensor, wrong: Tensor, bisections: int) -> Tensor:
        """(n,) the radius, relative to the layer's size; see `LayerTolerance.rho`."""
        size = norms(self.clean, "l2")
        own = relative_error(self.clean, perturbed)
        with torch.no_grad():
            overwhelmed = self.task.is_adversarial(self.output_for(perturbed.clone(), slice(None)), self.y)
        low = torch.zeros_like(own)
        high = torch.where(wrong, 0.0, torch.where(overwhelmed, own, torch.inf)).to(own.dtype)
        direction = _unit(perturbed - self.clean)
        nearest, rival, distance = self._nearest_class()
        guess = 1.02 * distance / size  # exact but for the 2% where the network behind the layer is linear
        doublings = _DOUBLINGS
        # A layer that the attack hardly moves would not be reached by doubling what it does.
        radius = torch.where(guess.isfinite(), guess, torch.where(own > 0, own, 0.05)).nan_to_num(nan=0.0)
        while doublings or bisections:
            unbounded = high.isinf() & (size > 0)
            if doublings and bool(unbounded.any()):
                doublings -= 1
                active = unbounded
            elif bisections:
                doublings, bisections = 0, bisections - 1
                radius = torch.where((guess > low) & (guess < high), guess, (low + high) / 2)
                guess = torch.full_like(guess, torch.inf)  # tried once
                active = high.isfinite() & (high > 0)
            else:
                break
            success, change = self._climb(direction, radius * size, active, self._margin)
            if rival is not None:
                toward_rival, other = self._climb(nearest, radius * size, active & ~success, self._logit_gap(rival))
                success, change = success | toward_rival, torch.where(per_row(toward_rival, change), other, change)
            direction = torch.where(per_row(success, change), _unit(change), direction)
            high = torch.where(success, torch.minimum(high, ratio(norms(change, "l2"), size)), high)
            low = torch.where(active & ~success, radius, low)
            radius = radius * 2
        return torch.where(wrong, 0.0, torch.where(size > 0, high, torch.nan)).to(own.dtype)

    def _margin(self, output: Tensor, rows: Tensor) -> Tensor:
        known = self.task.classes or "margin" in self.task.meanings
        return self.task.resolve("margin" if known else self.task.loss).value(output, self.y[rows])

    def _logit_gap(self, rival: Tensor) -> Objective:
        """Ascend towards one class: a margin would run after whichever class has the largest logit."""

        def gap(output: Tensor, rows: Tensor) -> Tensor:
            return (output.gather(1, rival[rows, None]) - output.gather(1, self.y[rows, None])).squeeze(1)

        return gap

    def _nearest_class(self) -> tuple[Tensor, Tensor | None, Tensor]:
        """The class whose linearised boundary is nearest (as in DeepFool): direction, index and distance.

        Of the 9 with the largest logits. The index is None where there are no classes, or the output has no gradient
        here.
        """
        point = self.clean.clone().requires_grad_()
        output = self.output_for(point.clone(), slice(None))  # a copy, which an in-place successor may overwrite
        if not self.task.classes or not output.requires_grad:
            return torch.zeros_like(self.clean), None, torch.full_like(norms(self.clean, "l2"), torch.inf)
        y = self.y.long()[:, None]
        rivals = output.detach().scatter(1, y, -torch.inf).topk(min(9, output.shape[1] - 1), dim=1).indices
        least = torch.full_like(output[:, 0], torch.inf).detach()
        direction, chosen = torch.zeros_like(self.clean), rivals[:, 0]
        for rival in rivals.T:
            gap = (output.gather(1, rival[:, None]) - output.gather(1, y)).squeeze(1)
            (gradient,) = torch.autograd.grad(gap.sum(), point, retain_graph=True, materialize_grads=True)
            distance = -gap.detach() / norms(gradient, "l2")  # infinite where nothing leads to the class
            nearer = distance < least
            least, chosen = torch.where(nearer, distance, least), torch.where(nearer, rival, chosen)
            direction = torch.where(per_row(nearer, gradient), _unit(gradient), direction)
        return direction, chosen, least

    def _climb(self, start: Tensor, radius: Tensor, active: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
        """(n,) whether some change of at most ``radius`` (n,) in L2 makes the output wrong, and that change.

        Searched in units of the radius, so that each input has the unit ball; ``start`` (n, ...) lies in it.
        """
        success, best = torch.zeros_like(active), torch.zeros_like(self.clean)
        rows = active.nonzero().squeeze(1)
        unit = start[rows]
        for step in range(self.steps + 1):
            if not len(rows):
                break
            unit = unit.detach().requires_grad_()
            change = unit * per_row(radius[rows], unit)
            output = self.output_for(self.clean[rows] + change, rows)
            new_success = self.task.is_adversarial(output.detach(), self.y[rows])
            success[rows] = new_success
            best[rows] = torch.where(per_row(new_success, change), change.detach(), best[rows])
            if step == self.steps or not output.requires_grad:
                break
            (gradient,) = torch.autograd.grad(objective(output, rows).sum(), unit, materialize_grads=True)
            rows, unit, gradient = rows[~new_success], unit.detach()[~new_success], gradient.nan_to_num()[~new_success]
            unit = _UNIT_BALL.project(_UNIT_BALL.ascend(unit, gradient, 2.5 / self.steps), torch.zeros_like(unit))
        return success, best


def _unit(change: Tensor) -> Tensor:
    """Each row at length 1, or at 0 where it is 0; never outside the unit ball."""
    scaled = change / per_row(norms(change, "l2").clamp(min=1e-30), change)
    return _UNIT_BALL.project(scaled, torch.zeros_like(change))
