"""Layer sustainability analysis: how far each layer is displaced when the input is perturbed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from buttress import registry, tasks
from buttress.ambient_state import in_usual_state
from buttress.attacks import Perturbation
from buttress.engine.preserved_model import Mode, preserved
from buttress.engine.runner import Precision
from buttress.errors import UserError
from buttress.layers import measures
from buttress.layers.batches import batches
from buttress.layers.capture import capture
from buttress.layers.measures import Measure
from buttress.layers.paths import Paths, trace
from buttress.layers.profile import LayerProfile
from buttress.layers.select import LayerSelection
from buttress.layers.watcher import LayerCallback, watch
from buttress.model_call import call_model
from buttress.tasks import Task
from buttress.validation import whole

Batch = tuple[Tensor, Tensor, Tensor]

__all__ = ["LayerProfile", "batches", "sustainability"]


@in_usual_state
def sustainability(
    model: nn.Module,
    data: Iterable[Any],
    perturbations: Mapping[str, Perturbation] | Perturbation,
    layers: LayerSelection = "activations",
    measure: str | Measure = "relative_error",
    *,
    reference: int = 256,
    seed: int = 0,
    batch_size: int = 128,
    task: Task = tasks.classification,
    mode: Mode = "eval",
    precision: Precision = "fp32",
) -> LayerProfile:
    """Compare every layer's value for clean and perturbed inputs (Khalooei et al., arXiv 2202.02626, Algorithm 2).

    One pass over the data; one number is kept for each input, layer and perturbation, and no activations. The model
    comes back exactly as it was, and so does the global random state; a randomised model draws the same in the clean
    and the perturbed pass.

    Args:
        model: the network.
        data: batches (x, y), see `read_batches`; draws follow its ``.ids`` where it has such, else positions.
        perturbations: by name, or one alone; the first is the default of `LayerProfile.mvl`.
        layers: which layers; see `Selection`. Calls of the two passes are paired by name, and `LayerProfile.unpaired`
            names those that only one of them makes. Inside of an ODE solver that chooses its steps even calls of one
            name belong to different times: the groups have the output of its block instead.
        measure: a name in `MEASURES`, or a `Measure`.
        reference: for a centred measure, the first so many inputs give the centre.
        seed: what all draws depend on.
        batch_size: inputs computed at once; larger batches of ``data`` are divided.
        task: what the output is for.
        mode: of the model; in "train", BatchNorm uses the batch and keeps its buffers.
        precision: of an attack's search; the passes that are compared run in float32.

    Raises:
        UserError: for no data, no perturbation, an unknown measure or a selection that matches nothing; and for what an
            attack refuses.
    """
    chosen = measures.resolve(measure)
    named = _named(perturbations)
    whole("reference", reference, 2)
    whole("batch_size", batch_size)
    source = batches(model, data, batch_size)
    first = next(source, None)
    if first is None:
        raise UserError("a layer analysis needs data; it holds no inputs")
    source = chain([first], source)
    paths = trace(model, first[0][:1], layers, task=task)
    centres: dict[str, Tensor] = {}
    used = 0
    if chosen.needs_centre:
        sample, source = _take(source, reference)
        used = sum(len(x) for x in sample)
        centres = _centres(model, sample, layers, seed, mode)
    table = _Table(list(paths.names), list(named), chosen, centres)
    for x, y, ids in source:
        with preserved(model, mode, seed, x.device), torch.no_grad(), capture(model, layers) as clean:
            output = task.read(call_model(model, x))
        if not table.sizes:
            task.check(output, y)
        table.open(clean, x)
        for name, perturbation in named.items():
            x_adv = perturbation.craft(model, x, y, task=task, seed=seed, ids=ids, mode=mode, precision=precision)
            with (
                preserved(model, mode, seed, x.device),
                torch.no_grad(),
                watch(model, layers, table.column(name, x_adv)),
            ):
                call_model(model, x_adv)
            table.close(name)
    return table.profile(paths, used)


class _Table:
    """The numbers collected so far, batch by batch."""

    def __init__(
        self, layers: list[str], perturbations: list[str], measure: Measure, centres: dict[str, Tensor]
    ) -> None:
        self.layers, self.perturbations, self.measure, self.centres = layers, perturbations, measure, centres
        self.sizes: list[int] = []
        self._rows: list[dict[tuple[str, str | None], Tensor]] = []  # the layer None is the input
        self._unpaired: dict[str, list[str]] = {}
        self._clean: dict[str, Tensor] = {}
        self._called: set[str] = set()

    def open(self, clean: dict[str, Tensor], x: Tensor) -> None:
        """Begin a batch with the layers of its clean pass."""
        self._clean, self._x = clean, x
        self.sizes.append(len(x))
        self._rows.append({})
        at = 0
        for name in clean:  # a network may call a layer in one batch and not in another
            if name not in self.layers:
                self.layers.insert(at, name)
            at = self.layers.index(name) + 1

    def column(self, perturbation: str, x_adv: Tensor) -> LayerCallback:
        """What to do with each layer of the perturbed pass: compare it at once, so that it need not be kept."""
        self._called = set()
        self._compare(perturbation, None, self._x, x_adv)

        def compare(name: str, value: Tensor) -> Tensor:
            clean = self._clean.get(name)
            if clean is not None and clean.shape == value.shape and value.dim() and len(value) == self.sizes[-1]:
                self._called.add(name)
                self._compare(perturbation, name, clean, value)
            else:
                self._leave_out(perturbation, name)
            return value

        return compare

    def close(self, perturbation: str) -> None:
        """End the perturbed pass: what only the clean one called is left out."""
        for name in self._clean:
            if name not in self._called:
                self._leave_out(perturbation, name)

    def _leave_out(self, perturbation: str, name: str) -> None:
        names = self._unpaired.setdefault(perturbation, [])
        if name not in names:
            names.append(name)

    def _compare(self, perturbation: str, name: str | None, clean: Tensor, perturbed: Tensor) -> None:
        centre = self.centres.get(name or "")
        if self.sizes[-1] >= self.measure.least and (centre is not None or not self.measure.needs_centre):
            values = self.measure(clean, perturbed, centre)
            self._rows[-1][perturbation, name] = values.float().cpu()

    def profile(self, paths: Paths, reference: int) -> LayerProfile:
        """Everything collected, in order."""
        keys: list[str | None] = [None, *self.layers]
        values = torch.full((len(self.perturbations), len(keys), sum(self.sizes)), torch.nan)
        start = 0
        for size, row in zip(self.sizes, self._rows, strict=True):
            for (perturbation, name), part in row.items():
                values[self.perturbations.index(perturbation), keys.index(name), start : start + size] = part
            start += size
        feeds = {
            name: paths.names[p] if p >= 0 else None for name, p in zip(paths.names, paths.predecessors, strict=True)
        }
        crossed = dict(zip(paths.names, paths.crossed, strict=True))
        return LayerProfile.of(
            self.layers,
            self.perturbations,
            self.measure.name,
            values[:, 1:],
            values[:, 0],
            predecessors=[keys.index(feeds[n]) - 1 if n in feeds else k - 1 for k, n in enumerate(self.layers)],
            crossed=[crossed.get(name, False) for name in self.layers],
            reference=reference,
            unpaired=self._unpaired,
        )


def _named(perturbations: Mapping[str, Perturbation] | Perturbation) -> dict[str, Perturbation]:
    if isinstance(perturbations, Perturbation):
        return {registry.attack.name_of(perturbations): perturbations}
    if not isinstance(perturbations, Mapping) or not perturbations:
        raise UserError(f"perturbations must be a mapping from name to perturbation, or one; got {perturbations!r}")
    for name, perturbation in perturbations.items():
        if not isinstance(perturbation, Perturbation):
            raise UserError(f"perturbation {name!r} must be an attack or a noise; got a {type(perturbation).__name__}")
    return dict(perturbations)


def _take(source: Iterator[Batch], count: int) -> tuple[list[Tensor], Iterator[Batch]]:
    """The first ``count`` inputs, and the source with nothing missing."""
    seen: list[Batch] = []
    sample: list[Tensor] = []
    while count > 0 and (batch := next(source, None)) is not None:
        seen.append(batch)
        sample.append(batch[0][:count])
        count -= len(sample[-1])
    return sample, chain(seen, source)


def _centres(
    model: nn.Module, sample: list[Tensor], layers: LayerSelection, seed: int, mode: Mode
) -> dict[str, Tensor]:
    """The mean of each layer over the sample, and of the input as ""."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def add(name: str, value: Tensor) -> Tensor:
        if value.dim() and len(value) == len(x):
            total = value.double().sum(0)
            sums[name] = sums[name] + total if name in sums else total
            counts[name] = counts.get(name, 0) + len(value)
        return value

    for x in sample:
        with preserved(model, mode, seed, x.device), torch.no_grad(), watch(model, layers, add):
            call_model(model, x)
        add("", x)
    return {name: (total / counts[name]).float() for name, total in sums.items()}
