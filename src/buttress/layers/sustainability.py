"""Layer sustainability analysis: how far each layer is displaced when the input is perturbed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor, nn

from buttress import registry, tasks
from buttress.ambient_state import in_usual_state
from buttress.attacks import Perturbation
from buttress.engine.preserved_model import Mode, preserved
from buttress.engine.runner import Precision
from buttress.errors import UserError
from buttress.layers import measures
from buttress.layers.arguments import check_perturbation, check_settings
from buttress.layers.batches import batches, look_ahead
from buttress.layers.capture import capture
from buttress.layers.displacements import Displacements
from buttress.layers.known_layers import KnownLayers
from buttress.layers.measures import Measure
from buttress.layers.paths import everything_seen
from buttress.layers.profile import LayerProfile
from buttress.layers.rows import CHECKED
from buttress.layers.select import LayerSelection, Selection, followed_modules, user_module
from buttress.layers.watcher import watch
from buttress.model_call import call_model
from buttress.tasks import Task
from buttress.validation import one_of, whole

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
    check_settings(model, layers, seed, batch_size, task)
    one_of("mode", mode, get_args(Mode))
    one_of("precision", precision, get_args(Precision))
    chosen = measures.resolve(measure)
    named, network = _named(perturbations), user_module(model)
    selection, modules = Selection(layers, network), followed_modules(network).values()
    whole("reference", reference, 2)
    known = KnownLayers(model, layers, task, seed)
    known.sample, source = look_ahead(batches(model, data, batch_size), CHECKED)
    if not known.sample:
        raise UserError("a layer analysis needs data; it holds no inputs")
    numbers = Displacements(known, list(named), chosen, mode)
    used = 0
    if chosen.needs_centre:
        sample, source = look_ahead(source, reference)
        sample = _cut(sample, reference)
        used = sum(len(x) for x in sample)
        numbers.centre(sample)
    for x, y, ids in source:
        with (
            preserved(model, mode, seed, x.device),
            torch.no_grad(),
            capture(model, layers, code=known.code) as clean,
        ):
            output = task.read(call_model(model, x))
        if not numbers.sizes:
            task.check(output, y)
        numbers.open(x, clean)
        if len(numbers.sizes) == 1:
            available = partial(everything_seen, model, x, task=task)
            selection.check(known.names, available, modules)  # which other inputs may call
        for name, perturbation in named.items():
            x_adv = perturbation.craft(model, x, y, task=task, seed=seed, ids=ids, mode=mode, precision=precision)
            with (
                preserved(model, mode, seed, x.device),
                torch.no_grad(),
                watch(model, layers, numbers.column(name, x_adv), code=known.code),
            ):
                call_model(model, x_adv)
            numbers.close(name, x_adv)
    selection.check(known.names, available)
    return numbers.profile(used)


def _named(perturbations: Mapping[str, Perturbation] | Perturbation) -> dict[str, Perturbation]:
    if isinstance(perturbations, Perturbation):
        return {registry.attack.name_of(perturbations): perturbations}
    if not isinstance(perturbations, Mapping) or not perturbations:
        raise UserError(f"perturbations must be a mapping from name to perturbation, or one; got {perturbations!r}")
    for name, perturbation in perturbations.items():
        check_perturbation(perturbation, f"perturbation {name!r}")
    return dict(perturbations)


def _cut(sample: list[Tensor], count: int) -> list[Tensor]:
    """The first ``count`` inputs."""
    cut: list[Tensor] = []
    for x in sample:
        cut.append(x if len(x) <= count else x[:count])
        count -= len(cut[-1])
    return cut
