"""How much displacement of its own value each layer tolerates, and how much of that an attack uses up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from buttress import tasks
from buttress.ambient_state import in_usual_state
from buttress.attacks import Perturbation
from buttress.engine.preserved_model import preserved
from buttress.layers.attacked_batches import attacked_batches
from buttress.layers.capture import capture
from buttress.layers.correlation import spearman
from buttress.layers.known_layers import KnownLayers
from buttress.layers.measures import power_of_two, ratio, relative_error
from buttress.layers.profile import to_lists
from buttress.layers.replacement import CannotReplaceError, Replacement
from buttress.layers.rows import Layout, Unaligned, one_at_a_time
from buttress.layers.select import LayerSelection
from buttress.layers.tolerance_search import Rows, ToleranceSearch
from buttress.model_call import call_model
from buttress.tasks import Task, require_task
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
            layer's value is 0, not every pass calls it, as inside of ODE solvers that choose their steps, or the
            output does not move with it.
        displacement: (L, N) relative error of the layer under the attack; NaN where only one pass called it.
        wrong: (N,) bool, inputs that are misclassified unperturbed; medians leave them out.
        success: (N,) bool, inputs for which the attack is successful.
        left_out: layer -> why its tolerance is not known; those without a value for each input are not in ``layers``.
    """

    layers: list[str]
    crossed: list[bool]
    rho: Tensor
    displacement: Tensor
    wrong: Tensor
    success: Tensor
    left_out: dict[str, str] = field(default_factory=dict)

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
            "left_out": self.left_out,
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
    require_task(task)
    whole("steps", steps)
    whole("bisections", bisections)
    whole("batch_size", batch_size)
    search = _Search(KnownLayers(model, layers, task, seed), steps, bisections)
    found = search.known.names
    for x, x_adv, y in attacked_batches(
        model, data, perturbation, layers, found, seed=seed, batch_size=batch_size, task=task
    ):
        search.add(x, x_adv, y)
    return search.result()


@dataclass(frozen=True)
class _Part:
    """What a batch gave: tolerance and displacement by layer, and (n,) whether each input is wrong, and beaten."""

    found: dict[str, tuple[Tensor, Tensor]]
    wrong: Tensor
    success: Tensor


class _Search:
    """The tolerances found so far, batch by batch."""

    def __init__(self, known: KnownLayers, steps: int, bisections: int) -> None:
        self.known, self.model, self.task, self.seed = known, known.model, known.task, known.seed
        self.steps, self.bisections = steps, bisections
        self.parts: list[_Part] = []
        self._left_out: dict[str, str] = {}

    def add(self, x: Tensor, x_adv: Tensor, y: Tensor) -> None:
        """Search every layer for the inputs of a batch."""
        task = self.task
        with preserved(self.model, "eval", self.seed, x.device), torch.no_grad():
            with capture(self.model, self.known.layers, code=self.known.code) as clean:
                output = task.read(call_model(self.model, x))
            task.check(output, y)
            with capture(self.model, self.known.layers, code=self.known.code) as perturbed:
                output_adv = task.read(call_model(self.model, x_adv))
        wrong, success = task.is_adversarial(output, y), task.is_adversarial(output_adv, y)
        self.known.add(x, clean)
        found: dict[str, tuple[Tensor, Tensor]] = {}
        alone: list[str] = []
        for name, value in clean.items():
            layout, other = self.known.layout(name), perturbed.get(name)
            if isinstance(layout, Unaligned) or not layout.fits(value, len(x)):
                if isinstance(layout, Layout) or layout.one_at_a_time:
                    alone.append(name)
                else:
                    self._left_out[name] = layout.reason
            elif other is not None and other.shape == value.shape:
                rows = layout.to_rows(value, len(x)), layout.to_rows(other, len(x))
                replacement = Replacement(self.model, name, layout, task, self.known.code)
                found[name] = self._tolerated(replacement, x, *rows, y, wrong)
            else:  # one of the passes alone calls it
                found[name] = (torch.full((len(x),), torch.nan), torch.full((len(x),), torch.nan))
        for name, parts in self._alone(alone, x, x_adv, y, wrong).items():
            found[name] = parts
        self.parts.append(_Part(found, wrong.cpu(), success.cpu()))

    def _alone(
        self, names: list[str], x: Tensor, x_adv: Tensor, y: Tensor, wrong: Tensor
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """The same of layers that have a value only for an input alone."""
        nothing = torch.full((len(x),), torch.nan)
        found = {name: (nothing.clone(), nothing.clone()) for name in names}
        if not names:
            return {}
        both = [one_at_a_time(self.model, points, names, seed=self.seed, code=self.known.code) for points in (x, x_adv)]
        for k, (clean, perturbed) in enumerate(zip(*both, strict=True)):
            for name, value in clean.items():
                if name in perturbed and perturbed[name].shape == value.shape:
                    replacement, one = Replacement(self.model, name, None, self.task, self.known.code), slice(k, k + 1)
                    rho, moved = self._tolerated(
                        replacement, x[one], value[None], perturbed[name][None], y[one], wrong[one]
                    )
                    found[name][0][one], found[name][1][one] = rho, moved
        for name, (rho, _) in found.items():
            layout = self.known.layout(name)
            if bool(rho.isnan().all()) and isinstance(layout, Unaligned):
                self._left_out.setdefault(name, layout.reason)
        return found

    def _tolerated(
        self, replacement: Replacement, x: Tensor, clean: Tensor, perturbed: Tensor, y: Tensor, wrong: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(n,) rho and (n,) displacement of one layer."""
        moved = relative_error(clean, perturbed)
        # Searched in float32 at least: the small steps are lost in half precision; and in units of a power of two, for
        # the squares of 1e-25 or 1e20 are no float32 numbers.
        wide = clean.to(torch.promote_types(clean.dtype, torch.float32))
        if wide.dim() == 1:  # one number for each input
            wide, perturbed = wide[:, None], perturbed[:, None]
        unit = power_of_two(wide.reshape(len(wide), -1)).reshape(-1, *[1] * (wide.dim() - 1))
        clean, perturbed = wide / unit, perturbed.to(wide.dtype) / unit
        try:
            with preserved(self.model, "eval", self.seed, x.device), replacement.of(x) as output_for:

                def output_of(rows_value: Tensor, rows: Rows) -> Tensor:
                    return output_for(rows_value * unit[rows], rows)

                graded = replacement.reaches(output_of, clean, perturbed)
                search = ToleranceSearch(output_of, clean, y, self.task, self.steps)
                rho = search.radius(perturbed, wrong, self.bisections)
        except CannotReplaceError as error:
            self._left_out[replacement.name] = str(error)
            return torch.full_like(moved, torch.nan).cpu(), moved.cpu()
        if not graded and bool(rho.isinf().any()):
            self._left_out[replacement.name] = "no gradient leads to it from the output, so nothing could be searched"
            rho = torch.full_like(rho, torch.nan)
        return rho.cpu(), moved.cpu()

    def result(self) -> LayerTolerance:
        """Everything found, in order."""
        searched = {name for part in self.parts for name in part.found}
        names = [name for name in self.known.names if name in searched]
        columns: list[tuple[Tensor, Tensor]] = []
        for name in names:
            nothing = [torch.full((len(part.wrong),), torch.nan) for part in self.parts]
            found = [part.found.get(name, (gap, gap)) for part, gap in zip(self.parts, nothing, strict=True)]
            columns.append((torch.cat([rho for rho, _ in found]), torch.cat([moved for _, moved in found])))
        wrong, success = (torch.cat([getattr(part, what) for part in self.parts]) for what in ("wrong", "success"))
        empty = torch.zeros(0, len(wrong))
        rho, moved = (torch.stack(part) for part in zip(*columns, strict=True)) if columns else (empty, empty)
        return LayerTolerance(names, self.known.paths.only(names).crossed, rho, moved, wrong, success, self._left_out)


def _median(values: Tensor) -> Tensor:
    """(L,) over the columns that are not NaN: the mean of the middle two, infinite where one of them is."""
    rows = [row[~row.isnan()].double().numpy() for row in values]
    return torch.tensor([np.median(row) if len(row) else np.nan for row in rows], dtype=torch.float64)
