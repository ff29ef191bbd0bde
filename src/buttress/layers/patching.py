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
from buttress.errors import UserError
from buttress.layers.patched_batch import PatchedBatch
from buttress.layers.patched_paths import PatchedPath, PathPatching
from buttress.layers.paths import trace
from buttress.layers.profile import to_lists
from buttress.layers.rows import Layout, Unaligned, layouts
from buttress.layers.select import LayerSelection
from buttress.layers.sustainability import batches
from buttress.tasks import Task
from buttress.validation import whole

_OTHER_INPUTS = Unaligned("is called for some inputs alone", True)

FEW = 0.1  # share of a layer's units that count as few


@dataclass(frozen=True, eq=False)
class LayerPatching:
    """What comes of patching L layers, for the B inputs that are beaten: right unperturbed and wrong under the attack.

    Attributes:
        layers: L names, in order of execution.
        crossed: for each, whether every path from the input to the output goes through it: there the whole clean value
            makes all that follows clean, and restores everything.
        doses: K ascending shares of the displacement that are taken away, the last of which is 1.
        right: (L, K, B) 1 where an input is right again at a dose and 0 where it is not; NaN for a layer in
            ``unmeasured``.
        few: (L, B) the same, of the whole clean values of the most displaced tenth of the layer's units alone.
        paths: what goes from one layer to another (or to the output) directly; see `PatchedPath`.
        paths_left_out: how many more of these there are.
        unmeasured: layer -> why it could not be patched.
        inputs: how many inputs there were, beaten or not.
    """

    layers: list[str]
    crossed: list[bool]
    doses: list[float]
    right: Tensor
    few: Tensor
    paths: list[PatchedPath]
    paths_left_out: int
    unmeasured: dict[str, str]
    inputs: int

    @property
    def beaten(self) -> int:
        """B, the inputs on which all shares are."""
        return self.right.shape[2]

    @property
    def curve(self) -> Tensor:
        """(L, K) float64 share of the beaten inputs that are right again at each dose; NaN without any."""
        return self.right.double().mean(2)

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
            "doses": self.doses,
            "curve": to_lists(self.curve),
            "restored": to_lists(self.restored),
            "recovery": to_lists(self.recovery.mean(1)),
            "half_dose": to_lists(self.half_dose),
            "few": to_lists(self.few.double().mean(1)),
            "paths": [
                {"from": path.sender, "to": path.receiver, "restored": path.share if self.beaten else None}
                for path in self.paths
            ],
            "paths_left_out": self.paths_left_out,
            "unmeasured": self.unmeasured,
        }


@in_usual_state
def patching(
    model: nn.Module,
    data: Iterable[Any],
    perturbation: Perturbation,
    layers: LayerSelection = "activations",
    *,
    doses: int = 16,
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

    Cost for each batch: ``doses + 3`` forward passes a layer, and one for each path; no gradients but the attack's.

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
    whole("doses", doses)
    whole("paths", paths, 0)
    whole("batch_size", batch_size)
    shares = [(k + 1) / doses for k in range(doses)]
    traced, places, between = None, dict[str, Layout | Unaligned](), PathPatching(paths)
    right, few = list[Tensor](), list[Tensor]()
    unmeasured: dict[str, str] = {}
    inputs = 0
    for x, y, ids in batches(model, data, batch_size):
        if traced is None:
            traced = trace(model, x[:1], layers, task=task)
            found = layouts(model, x, traced.names, seed=seed)
            places = {name: found.get(name, _OTHER_INPUTS) for name in traced.names}
        inputs += len(x)
        x_adv = perturbation.craft(model, x, y, task=task, seed=seed, ids=ids)
        batch = PatchedBatch(model, places, x, x_adv, y, task, seed)
        measured = [_patched(batch, name, shares, unmeasured) for name in traced.names]
        right.append(torch.stack([doses_of for doses_of, _ in measured])[:, :, batch.beaten].cpu())
        few.append(torch.stack([few_of for _, few_of in measured])[:, batch.beaten].cpu())
        between.add(batch, [name for name in traced.names if name not in unmeasured])
    if traced is None:
        raise UserError("patching needs data; it holds no inputs")
    together = torch.cat(right, 2)
    together[[traced.names.index(name) for name in unmeasured]] = math.nan
    few_together = torch.cat(few, 1)
    few_together[[traced.names.index(name) for name in unmeasured]] = math.nan
    return LayerPatching(
        traced.names,
        traced.crossed,
        shares,
        together,
        few_together,
        between.paths(unmeasured),
        between.left_out,
        unmeasured,
        inputs,
    )


def _patched(batch: PatchedBatch, name: str, doses: list[float], unmeasured: dict[str, str]) -> tuple[Tensor, Tensor]:
    """Of one layer: (K, n) right again at each dose, and (n,) with few units back; the reason where that cannot be."""
    reason = batch.obstacle(name)
    if reason:
        unmeasured.setdefault(name, reason)
    if name in unmeasured:
        nothing = torch.full((len(doses), len(batch.x)), math.nan)
        return nothing, nothing[0]
    clean, attacked = batch.clean[name], batch.attacked[name]
    by_dose = [batch.right({name: torch.lerp(attacked, clean, dose)}) for dose in doses]
    return torch.stack(by_dose).float(), batch.right({name: _most_displaced(attacked, clean)}).float()


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
