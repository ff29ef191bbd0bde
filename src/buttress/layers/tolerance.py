"""How much displacement of its own value each layer can stand, and how much of that an attack uses up."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from buttress import losses, tasks
from buttress.attacks import Perturbation
from buttress.engine.preserved_model import preserved
from buttress.errors import UserError
from buttress.layers.capture import capture
from buttress.layers.correlation import spearman
from buttress.layers.measures import ratio, relative_error
from buttress.layers.paths import trace
from buttress.layers.profile import to_lists
from buttress.layers.select import LayerSelection
from buttress.layers.sustainability import batches
from buttress.tasks import Task
from buttress.threat import Threat, norms, per_row

Rows = Tensor | slice
Above = Callable[[Tensor, Rows], Tensor]
Objective = Callable[[Tensor, Tensor], Tensor]

_DOUBLINGS = 6  # how often the radius may double, from the attack's own, in the search for a first success
_UNIT_BALL = Threat(norm="l2", eps=1.0, box=None)


@dataclass(frozen=True, eq=False)
class LayerTolerance:
    """Tolerance and sustainability margin of L layers for N inputs.

    Attributes:
        layers: L names, in order of execution.
        crossed: for each, whether every path from the input to the output goes through it; only there does "beaten"
            imply a margin of at most 1.
        rho: (L, N) tolerance: the smallest relative L2 change of the layer's value found that beats the model, an
            upper bound. 0 where the model is wrong unperturbed, infinite where nothing was found, NaN where the
            layer's value is 0, or not every pass calls it, as inside of ODE solvers that choose their steps.
        displacement: (L, N) relative error of the layer under the attack; NaN where only one pass called it.
        wrong: (N,) bool, inputs that beat the model unperturbed; medians leave them out.
        success: (N,) bool, inputs that beat it under the attack.
    """

    layers: list[str]
    crossed: list[bool]
    rho: Tensor
    displacement: Tensor
    wrong: Tensor
    success: Tensor

    @property
    def margin(self) -> Tensor:
        """(L, N) sustainability margin rho / displacement: 1 or less means that the attack overwhelms the layer.

        An offset added to the layer scales both alike. NaN where the attack does not move the layer.
        """
        return ratio(self.rho, self.displacement)

    @property
    def median_rho(self) -> Tensor:
        """(L,) over the inputs that the model gets right unperturbed."""
        return _median(self.rho[:, ~self.wrong])

    @property
    def median_margin(self) -> Tensor:
        """(L,) over the inputs that the model gets right unperturbed."""
        return _median(self.margin[:, ~self.wrong])

    @property
    def rank_correlation(self) -> float:
        """Spearman's correlation of the ranking by mean displacement with that by median margin.

        1 when both put the layers in the same order of vulnerability; NaN for fewer than two layers or equal ones.
        """
        return spearman(self.displacement[:, ~self.wrong].nanmean(1), -self.median_margin)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data: the medians of each layer; None for NaN and infinity."""
        correlation = torch.tensor(self.rank_correlation)
        return {
            "layers": self.layers,
            "crossed": self.crossed,
            "inputs": len(self.wrong),
            "wrong": int(self.wrong.sum()),
            "beaten": int(self.success.sum()),
            "tolerance": to_lists(self.median_rho),
            "margin": to_lists(self.median_margin),
            "displacement": to_lists(self.displacement[:, ~self.wrong].nanmean(1)),
            "rank_correlation": to_lists(correlation),
        }


def tolerance(
    model: nn.Module,
    data: Iterable[tuple[Tensor, Tensor]],
    perturbation: Perturbation,
    layers: LayerSelection = "activations",
    *,
    steps: int = 20,
    bisections: int = 8,
    seed: int = 0,
    batch_size: int = 128,
    task: Task = tasks.classification,
) -> LayerTolerance:
    """Search, input by input, the smallest relative L2 change of each layer's value that beats the model.

    Everything before the layer stays as it is. Projected gradient ascent at a radius, and bisection on the radius. For
    classes half of the steps climb the margin, half go towards the class whose linearised boundary is nearest. The
    search begins with the displacement that ``perturbation`` itself causes at the layer, so at a layer that every path
    crosses a beaten input has a margin of at most 1. Cost for each layer and batch: about
    ``steps * bisections`` forward and backward passes, and up to 6 ``steps`` more where the attack fails.

    Args:
        model: the network; comes back exactly as it was.
        data: batches (x, y); a few hundred inputs tell much.
        perturbation: the attack that the margin is about.
        layers: which layers; see `Selection`.
        steps: gradient steps at each radius.
        bisections: halvings of the radius.
        seed: what all draws depend on.
        batch_size: inputs computed at once.
        task: what the output is for.

    Raises:
        UserError: for no data, counts below 1, or a selection that finds nothing.
    """
    if min(steps, bisections, batch_size) < 1:
        raise UserError(f"steps, bisections and batch_size must be 1 or more; got {steps}, {bisections}, {batch_size}")
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    paths = None
    for x, y, ids in batches(model, data, batch_size):
        paths = paths or trace(model, x[:1], layers, task=task)
        x_adv = perturbation.craft(model, x, y, task=task, seed=seed, ids=ids)
        with preserved(model, "eval", seed, x.device):
            parts.append(_batch(model, x, x_adv, y, paths.names, task, steps, bisections))
    if paths is None:
        raise UserError("a layer's tolerance needs data; it holds no inputs")
    rho, displacement, wrong, success = (torch.cat(part, -1) for part in zip(*parts, strict=True))
    return LayerTolerance(paths.names, paths.crossed, rho, displacement, wrong, success)


def _batch(
    model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, names: list[str], task: Task, steps: int, bisections: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of one batch: rho (L, n), displacement (L, n), wrong (n,) and beaten (n,)."""
    with torch.no_grad():
        with capture(model, names) as clean:
            output = task.read(model(x))
        task.check(output, y)
        with capture(model, names) as perturbed:
            output_adv = task.read(model(x_adv))
    wrong, success = task.is_adversarial(output, y), task.is_adversarial(output_adv, y)
    rho, displacement = [], []
    for name in names:
        if name in clean and name in perturbed and clean[name].shape == perturbed[name].shape:
            if len(clean[name]) != len(x):
                raise UserError(f"the first axis of layer {name!r} is not the batch's: leave it out of layers")
            found = _tolerated(model, name, x, clean[name], perturbed[name], y, wrong, task, steps, bisections)
            moved = relative_error(clean[name], perturbed[name])
        else:
            found = moved = torch.full((len(x),), torch.nan, dtype=x.dtype)
        rho.append(found.cpu())
        displacement.append(moved.cpu())
    return torch.stack(rho), torch.stack(displacement), wrong.cpu(), success.cpu()


class _NotMetError(Exception):
    """A pass of some of the inputs did not call the layer that was to be replaced."""


def _tolerated(
    model: nn.Module,
    name: str,
    x: Tensor,
    clean: Tensor,
    perturbed: Tensor,
    y: Tensor,
    wrong: Tensor,
    task: Task,
    steps: int,
    bisections: int,
) -> Tensor:
    """(n,) rho of one layer; NaN where the layer is not called in every pass (an ODE solver that chooses its steps)."""

    def above(value: Tensor, rows: Rows) -> Tensor:
        """The output for these inputs when the layer has this value."""
        with capture(model, [name], replace=lambda _, __: value) as met:
            output = task.read(model(x[rows]))
        if name not in met:
            raise _NotMetError
        return output

    try:
        return _Search(above, clean, y, task, steps).radius(perturbed, wrong, bisections)
    except _NotMetError:
        return torch.full_like(clean.flatten(1)[:, 0], torch.nan)


class _Search:
    """The smallest change of one layer that beats what is above it, for the inputs of one batch."""

    def __init__(self, above: Above, clean: Tensor, y: Tensor, task: Task, steps: int) -> None:
        self.above, self.clean, self.y, self.task = above, clean, y, task
        self.steps = (steps + 1) // 2  # for each of two ways to climb

    def radius(self, perturbed: Tensor, wrong: Tensor, bisections: int) -> Tensor:
        """(n,) the radius, relative to the layer's size; see `LayerTolerance.rho`."""
        size = norms(self.clean, "l2")
        own = relative_error(self.clean, perturbed)
        with torch.no_grad():
            overwhelmed = self.task.is_adversarial(self.above(perturbed.clone(), slice(None)), self.y)
        low = torch.zeros_like(own)
        high = torch.where(wrong, 0.0, torch.where(overwhelmed, own, torch.inf)).to(own.dtype)
        direction = _unit(perturbed - self.clean)
        nearest, rival, distance = self._nearest_class()
        guess = 1.02 * distance / size  # exact but for the 2% where the network above is linear
        doublings = _DOUBLINGS
        radius = torch.where(own > 0, own, 0.05).nan_to_num(nan=0.0)
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
            won, change = self._climb(direction, radius * size, active, self._margin)
            if rival is not None:
                more, other = self._climb(nearest, radius * size, active & ~won, self._against(rival))
                won, change = won | more, torch.where(per_row(more, change), other, change)
            direction = torch.where(per_row(won, change), _unit(change), direction)
            high = torch.where(won, torch.minimum(high, ratio(norms(change, "l2"), size)), high)
            low = torch.where(active & ~won, radius, low)
            radius = radius * 2
        return torch.where(wrong, 0.0, torch.where(size > 0, high, torch.nan)).to(own.dtype)

    def _margin(self, output: Tensor, rows: Tensor) -> Tensor:
        loss = "margin" if self.task.loss == "cross_entropy" else self.task.loss
        return losses.resolve(loss).function(output, self.y[rows])

    def _against(self, rival: Tensor) -> Objective:
        """Ascend towards one class: a margin would run after whichever class has the largest logit."""

        def gap(output: Tensor, rows: Tensor) -> Tensor:
            return (output.gather(1, rival[rows, None]) - output.gather(1, self.y[rows, None])).squeeze(1)

        return gap

    def _nearest_class(self) -> tuple[Tensor, Tensor | None, Tensor]:
        """The class whose linearised boundary is nearest (as in DeepFool): direction, index and distance.

        Of the 9 with the largest logits. The index is None where the output is no logits or has no gradient here.
        """
        point = self.clean.clone().requires_grad_()
        output = self.above(point.clone(), slice(None))  # a copy, which an in-place successor may overwrite
        if self.task.loss != "cross_entropy" or not output.requires_grad:
            return torch.zeros_like(self.clean), None, torch.full_like(norms(self.clean, "l2"), torch.inf)
        y = self.y.long()[:, None]
        rivals = output.detach().scatter(1, y, -torch.inf).topk(min(9, output.shape[1] - 1), dim=1).indices
        least = torch.full_like(output[:, 0], torch.inf).detach()
        direction, chosen = torch.zeros_like(self.clean), rivals[:, 0]
        for rival in rivals.T:
            gap = (output.gather(1, rival[:, None]) - output.gather(1, y)).squeeze(1)
            (slope,) = torch.autograd.grad(gap.sum(), point, retain_graph=True, materialize_grads=True)
            distance = -gap.detach() / norms(slope, "l2").clamp(min=1e-30)
            nearer = distance < least
            least, chosen = torch.where(nearer, distance, least), torch.where(nearer, rival, chosen)
            direction = torch.where(per_row(nearer, slope), _unit(slope), direction)
        return direction, chosen, least

    def _climb(self, start: Tensor, radius: Tensor, active: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
        """(n,) whether a change of at most ``radius`` (n,) in L2 was found that beats the model, and the change.

        Searched in units of the radius, so that each input has the unit ball; ``start`` (n, ...) lies in it.
        """
        won, best = torch.zeros_like(active), torch.zeros_like(self.clean)
        rows = active.nonzero().squeeze(1)
        unit = start[rows]
        for step in range(self.steps + 1):
            if not len(rows):
                break
            unit = unit.detach().requires_grad_()
            change = unit * per_row(radius[rows], unit)
            output = self.above(self.clean[rows] + change, rows)
            fresh = self.task.is_adversarial(output.detach(), self.y[rows])
            won[rows] = fresh
            best[rows] = torch.where(per_row(fresh, change), change.detach(), best[rows])
            if step == self.steps or not output.requires_grad:
                break
            (slope,) = torch.autograd.grad(objective(output, rows).sum(), unit, materialize_grads=True)
            rows, unit, slope = rows[~fresh], unit.detach()[~fresh], slope.nan_to_num()[~fresh]
            unit = _UNIT_BALL.project(_UNIT_BALL.ascend(unit, slope, 2.5 / self.steps), torch.zeros_like(unit))
        return won, best


def _unit(change: Tensor) -> Tensor:
    """Each row at length 1, or at 0 where it is 0; never outside the unit ball."""
    scaled = change / per_row(norms(change, "l2").clamp(min=1e-30), change)
    return _UNIT_BALL.project(scaled, torch.zeros_like(change))


def _median(values: Tensor) -> Tensor:
    """(L,) over the columns that are not NaN: the mean of the middle two, infinite where one of them is."""
    rows = [row[~row.isnan()].double().numpy() for row in values]
    return torch.tensor([np.median(row) if len(row) else np.nan for row in rows], dtype=torch.float64)
