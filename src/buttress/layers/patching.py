"""Activation patching: which layers carry an attack, told by putting their clean values back in the attacked pass."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from buttress import tasks
from buttress.ambient_state import in_usual_state
from buttress.attacks import Perturbation
from buttress.layers.answers import LayerAnswers
from buttress.layers.arguments import check_perturbation, check_settings
from buttress.layers.attacked_batch import AttackedBatch
from buttress.layers.attacked_batches import attacked_batches
from buttress.layers.known_layers import KnownLayers
from buttress.layers.patched_paths import PatchedPath, PathPatching
from buttress.layers.profile import to_lists
from buttress.layers.replacement import CannotReplaceError, ReplacedPasses
from buttress.layers.select import LayerSelection
from buttress.tasks import Task
from buttress.validation import whole

FEW = 0.1  # share of a layer's units that count as few


@dataclass(frozen=True, eq=False)
class LayerPatching:
    """What comes of patching L layers, for the B inputs that are beaten: right unperturbed and wrong under the attack.

    Attributes:
        layers: L names, in order of execution.
        crossed: for each, whether every path from the input to the output goes through it: there the whole clean value
            makes all that follows clean, and restores everything.
        doses: K ascending shares of the displacement that are taken away, the last of which is 1.
        right: (L, K, B) 1 where an input is right again at a dose and 0 where it is not; NaN for inputs that do not
            call the layer.
        few: (L, B) the same, of the whole clean values of the most displaced tenth of the layer's units alone.
        paths: what goes from one layer to another (or to the output) directly; see `PatchedPath`.
        paths_left_out: how many more of these there are.
        left_out: layer -> why it could not be patched; these are not among ``layers``.
        inputs: how many inputs there were, beaten or not.
    """

    layers: list[str]
    crossed: list[bool]
    doses: list[float]
    right: Tensor
    few: Tensor
    paths: list[PatchedPath]
    paths_left_out: int
    left_out: dict[str, str]
    inputs: int

    @property
    def beaten(self) -> int:
        """B, the inputs that are beaten."""
        return self.right.shape[2]

    @property
    def called(self) -> Tensor:
        """(L,) int64, how many of the beaten inputs call each layer, on which its shares are."""
        return (~self.few.isnan()).sum(1)

    @property
    def curve(self) -> Tensor:
        """(L, K) float64 share of the beaten inputs that are right again at each dose; NaN without any."""
        return self.right.double().nanmean(2)

    @property
    def restored(self) -> Tensor:
        """(L,) that share with the whole clean value."""
        return self.curve[:, -1]

    @property
    def recovery(self) -> Tensor:
        """(L, B) by input the share of the doses at which it is right again.

        The mean over inputs is the mean of `curve` over the doses: high where little of the displacement has to go.
        """
        return self.right.double().mean(1)

    @property
    def half_dose(self) -> Tensor:
        """(L,) the dose at which half of the beaten inputs are right again, linear between doses.

        Infinite where the whole clean value restores less than half.
        """
        return torch.tensor([_crossing(self.doses, row) for row in self.curve.tolist()], dtype=torch.float64)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data; None for NaN and infinity."""
        return {
            "layers": self.layers,
            "crossed": self.crossed,
            "inputs": self.inputs,
            "beaten": self.beaten,
            "called": self.called.tolist(),
            "doses": self.doses,
            "curve": to_lists(self.curve),
            "restored": to_lists(self.restored),
            "recovery": to_lists(self.recovery.nanmean(1)),
            "half_dose": to_lists(self.half_dose),
            "few": to_lists(self.few.double().nanmean(1)),
            "paths": [
                {
                    "from": path.sender,
                    "to": path.receiver,
                    "restored": path.share if path.inputs else None,
                    "inputs": path.inputs,
                }
                for path in self.paths
            ],
            "paths_left_out": self.paths_left_out,
            "left_out": self.left_out,
        }


@in_usual_state
def patching(
    model: nn.Module,
    data: Iterable[Any],
    perturbation: Perturbation,
    layers: LayerSelection = "activations",
    *,
    doses: int = 10,
    paths: int = 64,
    seed: int = 0,
    batch_size: int = 128,
    task: Task = tasks.classification,
) -> LayerPatching:
    """Put clean values of each layer back in the attacked pass, and see which inputs are right again.

    Activation patching (Vig et al., NeurIPS 2020, "causal mediation analysis"; Meng et al., NeurIPS 2022, "causal
    tracing"), with the attacked pass as the corrupted one. Three questions for each layer:

    - *whole*: the clean value for the attacked one. Where every path crosses the layer all that follows is clean then,
      so this says something of layers beside others alone, as in residual branches and attention.
    - *dose*: ``attacked + t (clean - attacked)`` for shares t of the displacement. It tells layers of a chain apart:
      how much of what an attack does there must be undone. In an affine network all of a chain have the same dose. By
      input ``1 - t`` is the share of the attack's displacement that the layer stands in this direction, so the
      sustainability margin, which is the smallest over all directions, is no larger than that at the dose itself.
    - *few*: the clean values of the most displaced tenth of the layer's units (single numbers, input by input).

    And for each pair of layers what goes directly from one to the other; see `PathPatching`.

    Cost for each batch: ``doses + 3`` forward passes a layer, up to three more as long as no batch has shown that the
    output moves with it, and one for each path. Inputs are patched one by one where a layer has a value only then.

    Args:
        model: the network; comes back exactly as it was.
        data: batches (x, y), see `read_batches`; inputs that are not beaten show nothing.
        perturbation: the attack.
        layers: which layers; see `Selection`.
        doses: K, equally spaced up to 1.
        paths: the most paths that are patched, those first that carry the most; 0 leaves them out.
        seed: what all draws depend on.
        batch_size: inputs computed at once.
        task: what the output is for.

    Raises:
        UserError: for no data, counts below 1, or a selection that matches nothing.
    """
    check_perturbation(perturbation)
    check_settings(model, layers, seed, batch_size, task)
    whole("doses", doses)
    whole("paths", paths, 0)
    search = _Search(KnownLayers(model, layers, task, seed), [(k + 1) / doses for k in range(doses)], paths)
    for batch in attacked_batches(search.known, data, perturbation, batch_size):
        search.add(batch)
    return search.result()


class _Search:
    """What was found so far, batch by batch."""

    def __init__(self, known: KnownLayers, doses: list[float], most: int) -> None:
        self.known, self.doses = known, doses
        self.inputs = 0
        self._between = PathPatching(known, most)
        self._answers = LayerAnswers(len(doses) + 1)  # right again at each dose, and with few units back

    def add(self, batch: AttackedBatch) -> None:
        """Patch every layer for the inputs of a batch; for each input alone, if some layers have a value only then."""
        self.inputs += len(batch.x)
        for part in batch.each() if batch.apart else (batch,):
            self._patch(part)
        self._answers.note_obstacles(batch)

    def _patch(self, batch: AttackedBatch) -> None:
        self._answers.note_obstacles(batch)
        found: dict[str, Tensor] = {}
        with batch.replacing() as passes, torch.no_grad():
            for name in batch.layouts:
                try:
                    found[name] = self._patched(batch, passes, name)
                except CannotReplaceError as error:
                    self._answers.note(name, str(error))
            self._between.add(batch, passes, [*found])
        self._answers.add(int(batch.beaten.sum()), found)

    def _patched(self, batch: AttackedBatch, passes: ReplacedPasses, name: str) -> Tensor:
        """Of one layer and the beaten inputs: (K + 1, b) right again at each dose, and with few units back."""
        clean, attacked = batch.clean[name], batch.attacked[name]
        self._answers.look(name, lambda value: passes.output(batch.x, {name: value}), clean, attacked)
        if not bool(batch.beaten.any()):
            return torch.zeros(len(self.doses) + 1, 0)
        # The whole clean value as it is: what is between it and an infinite value is not defined.
        values = [torch.lerp(attacked, clean, dose) for dose in self.doses[:-1]] + [clean]
        right = [batch.right(passes, {name: value}) for value in (*values, _most_displaced(attacked, clean))]
        return torch.stack(right)[:, batch.beaten].float().cpu()

    def result(self) -> LayerPatching:
        """Everything found, in order."""
        reasons = {name: self._answers.obstacle(name) for name in self.known.names}
        names = [name for name, reason in reasons.items() if not reason]
        numbers = self._answers.of_all(names)
        paths, paths_left_out = self._between.patched(names)
        return LayerPatching(
            names,
            self.known.paths.only(names).crossed,
            self.doses,
            numbers[:, :-1],
            numbers[:, -1],
            paths,
            paths_left_out,
            {name: reason for name, reason in reasons.items() if reason},
            self.inputs,
        )


def _most_displaced(attacked: Tensor, clean: Tensor) -> Tensor:
    """The attacked value with the clean one in the most displaced tenth of each input's units, one unit at least."""
    change = (clean - attacked).reshape(len(clean), -1).abs()
    few = change.topk(math.ceil(FEW * change.shape[1]), dim=1).indices
    back = torch.zeros_like(change, dtype=torch.bool).scatter(1, few, True).view_as(clean)
    return torch.where(back, clean, attacked)


def _crossing(doses: list[float], curve: list[float]) -> float:
    """Where the polyline from (0, 0) over the curve first reaches one half."""
    if any(map(math.isnan, curve)):
        return math.nan
    last_dose = last = 0.0
    for dose, share in zip(doses, curve, strict=True):
        if share >= 0.5:
            return last_dose + (0.5 - last) / (share - last) * (dose - last_dose)
        last_dose, last = dose, share
    return math.inf
