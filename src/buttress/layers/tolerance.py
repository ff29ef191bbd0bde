"""How much displacement of its own value each layer tolerates, and how much of that an attack uses up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from buttress import tasks
from buttress.ambient_state import in_usual_state
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
from buttress.layers.tolerance_search import Rows, ToleranceSearch
from buttress.model_call import call_model
from buttress.tasks import Task
from buttress.validation import whole


@dataclass(frozen=True, eq=False)
class LayerTolerance:
    """Tolerance and sustainability margin of L layers for N inputs.

    Attributes:
        layers: L names, in order of execution.
        crossed: for each, whether every path from the input to the output goes through it; only there does a
            successful attack imply a margin of at most 1.
        rho: (L, N) tolerance: the smallest relative L2 change of the layer's value found that makes the model wrong,
            an upper bound. 0 where the model is wrong unperturbed, infinite where the search failed, NaN where the
            layer's value is 0, or not every pass calls it, as inside of ODE solvers that choose their steps.
        displacement: (L, N) relative error of the layer under the attack; NaN where only one pass called it.
        wrong: (N,) bool, inputs that are misclassified unperturbed; medians leave them out.
        success: (N,) bool, inputs for which the attack is successful.
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


@in_usual_state
def tolerance(
    model: nn.Module,
    data: Iterable[Any],
    perturbation: Perturbation,
    layers: LayerSelection = "activations",
    *,
    steps: int = 20,
    bisections: int = 8,
    seed: int = 0,
    batch_size: int = 128,
    task: Task = tasks.classification,
) -> LayerTolerance:
    """Search, input by input, the smallest relative L2 change of each layer's value that makes the model wrong.

    Everything before the layer stays as it is. Projected gradient ascent at a radius, and bisection on the radius. For
    classes half of the steps climb the margin, half go towards the class whose linearised boundary is nearest. The
    search begins with the displacement that ``perturbation`` itself causes at the layer, so at a layer that every path
    crosses a successful attack means a margin of at most 1. Cost for each layer and batch: about
    ``steps * bisections`` forward and backward passes, and up to 6 ``steps`` more where the attack fails.

    Args:
        model: the network; comes back exactly as it was.
        data: batches (x, y), see `read_batches`; a few hundred inputs tell much.
        perturbation: the attack that the margin is about.
        layers: which layers; see `Selection`.
        steps: gradient steps at each radius.
        bisections: halvings of the radius.
        seed: what all draws depend on.
        batch_size: inputs computed at once.
        task: what the output is for.

    Raises:
        UserError: for no data, counts below 1, or a selection that matches nothing.
    """
    whole("steps", steps)
    whole("bisections", bisections)
    whole("batch_size", batch_size)
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
    """Of one batch: rho (L, n), displacement (L, n), wrong (n,) and success (n,)."""
    with torch.no_grad():
        with capture(model, names) as clean:
            output = task.read(call_model(model, x))
        task.check(output, y)
        with capture(model, names) as perturbed:
            output_adv = task.read(call_model(model, x_adv))
    wrong, success = task.is_adversarial(output, y), task.is_adversarial(output_adv, y)
    rho, displacement = [], []
    for name in names:
        if name in clean and name in perturbed and clean[name].shape == perturbed[name].shape:
            if len(clean[name]) != len(x):
                raise UserError(f"the first axis of layer {name!r} is not the batch's: leave it out of layers")
            radius = _tolerated(model, name, x, clean[name], perturbed[name], y, wrong, task, steps, bisections)
            moved = relative_error(clean[name], perturbed[name])
        else:
            radius = moved = torch.full((len(x),), torch.nan, dtype=x.dtype)
        rho.append(radius.cpu())
        displacement.append(moved.cpu())
    return torch.stack(rho), torch.stack(displacement), wrong.cpu(), success.cpu()


class _NotCalledError(Exception):
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

    def output_for(value: Tensor, rows: Rows) -> Tensor:
        """The output for these inputs when the layer has this value."""
        with capture(model, [name], replace=lambda _, __: value) as called:
            output = task.read(call_model(model, x[rows]))
        if name not in called:
            raise _NotCalledError
        return output

    # Searched in float32 at least: the small steps are lost in half precision.
    clean, perturbed = (value.to(torch.promote_types(value.dtype, torch.float32)) for value in (clean, perturbed))
    try:
        return ToleranceSearch(output_for, clean, y, task, steps).radius(perturbed, wrong, bisections)
    except _NotCalledError:
        return torch.full_like(clean.flatten(1)[:, 0], torch.nan)


def _median(values: Tensor) -> Tensor:
    """(L,) over the columns that are not NaN: the mean of the middle two, infinite where one of them is."""
    rows = [row[~row.isnan()].double().numpy() for row in values]
    return torch.tensor([np.median(row) if len(row) else np.nan for row in rows], dtype=torch.float64)
