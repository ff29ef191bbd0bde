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
from buttress.layers.answers import LayerAnswers
from buttress.layers.arguments import check_perturbation, check_settings
from buttress.layers.attacked_batch import AttackedBatch
from buttress.layers.attacked_batches import attacked_batches
from buttress.layers.correlation import spearman
from buttress.layers.known_layers import KnownLayers
from buttress.layers.measures import power_of_two, ratio, relative_error
from buttress.layers.profile import to_lists
from buttress.layers.replacement import CannotReplaceError, ReplacedPasses
from buttress.layers.select import LayerSelection
from buttress.layers.tolerance_search import Rows, ToleranceSearch
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
            layer's value is 0, not every pass calls it, as inside of ODE solvers that choose their steps, or the
            output does not move with it.
        displacement: (L, N) relative error of the layer under the attack; NaN where only one pass called it, or the two
            are of other parts of the input, as an expert's tokens.
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
    check_perturbation(perturbation)
    check_settings(model, layers, seed, batch_size, task)
    whole("steps", steps)
    whole("bisections", bisections)
    search = _Search(KnownLayers(model, layers, task, seed), steps, bisections)
    for batch in attacked_batches(search.known, data, perturbation, batch_size):
        search.add(batch)
    return search.result()


class _Search:
    """The tolerances found so far, batch by batch."""

    def __init__(self, known: KnownLayers, steps: int, bisections: int) -> None:
        self.known, self.steps, self.bisections = known, steps, bisections
        self._answers = LayerAnswers(2)  # rho and displacement
        self._wrong: list[Tensor] = []
        self._success: list[Tensor] = []

    def add(self, batch: AttackedBatch) -> None:
        """Search every layer for the inputs of a batch."""
        found = self._of(batch, (*batch.layouts, *batch.unpaired))
        if apart := batch.apart:
            each: list[dict[str, Tensor]] = []
            for one in batch.each():
                each.append(self._of(one, [name for name in apart if name in one.clean]))
                self._answers.note_obstacles(one)
            nothing = torch.full((2, 1), torch.nan)
            found |= {name: torch.cat([one.get(name, nothing) for one in each], 1) for name in apart}
        self._answers.note_obstacles(batch)
        self._answers.add(len(batch.x), found)
        self._wrong.append(batch.wrong.cpu())
        self._success.append(batch.success.cpu())

    def _of(self, batch: AttackedBatch, names: Iterable[str]) -> dict[str, Tensor]:
        """Layer -> (2, n) rho and displacement."""
        with batch.replacing() as passes:
            return {name: self._tolerated(batch, passes, name) for name in names}

    def _tolerated(self, batch: AttackedBatch, passes: ReplacedPasses, name: str) -> Tensor:
        clean, perturbed = batch.clean[name], batch.attacked.get(name, batch.clean[name])
        moved = relative_error(clean, perturbed)
        if name in batch.unpaired:
            moved = torch.full_like(moved, torch.nan)
        # Searched in float32 at least: the small steps are lost in half precision; and in units of a power of two, for
        # the squares of 1e-25 or 1e20 are no float32 numbers.
        wide = clean.to(torch.promote_types(clean.dtype, torch.float32))
        if wide.dim() == 1:  # one number for each input
            wide, perturbed = wide[:, None], perturbed[:, None]
        unit = power_of_two(wide.reshape(len(wide), -1)).reshape(-1, *[1] * (wide.dim() - 1))
        clean, perturbed = wide / unit, perturbed.to(wide.dtype) / unit

        def output_of(value: Tensor, rows: Rows = slice(None)) -> Tensor:
            return passes.output(batch.x[rows], {name: value * unit[rows]})

        try:
            self._answers.look(name, output_of, clean, perturbed, gradient=True)
            search = ToleranceSearch(output_of, clean, batch.y, self.known.task, self.steps)
            rho = search.radius(perturbed, batch.wrong, self.bisections)
        except CannotReplaceError as error:
            self._answers.note(name, str(error))
            rho = torch.full_like(moved, torch.nan)
        return torch.stack([rho, moved]).cpu()

    def result(self) -> LayerTolerance:
        """Everything found, in order."""
        left_out = {name: reason for name in self.known.names if (reason := self._obstacle(name))}
        names = [name for name in self.known.names if self.known.has_parts(name)]
        rho, moved = self._answers.of_all(names).unbind(1)
        unknown = torch.tensor([name in left_out for name in names], dtype=torch.bool)
        return LayerTolerance(
            names,
            self.known.paths.only(names).crossed,
            torch.where(unknown[:, None], torch.nan, rho),
            moved,
            torch.cat(self._wrong),
            torch.cat(self._success),
            left_out,
        )

    def _obstacle(self, name: str) -> str:
        """Why a layer's tolerance is not known; empty where it is."""
        reason = self._answers.obstacle(name)
        if not reason and name not in self._answers.leading and bool(self._answers.of(name)[0].isinf().any()):
            return "is reached by no gradient from the output, so nothing could be searched"
        return reason


def _median(values: Tensor) -> Tensor:
    """(L,) over the columns that are not NaN: the mean of the middle two, infinite where one of them is."""
    rows = [row[~row.isnan()].double().numpy() for row in values]
    return torch.tensor([np.median(row) if len(row) else np.nan for row in rows], dtype=torch.float64)
