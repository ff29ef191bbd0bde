"""A user's data beside its adversarial examples, as the analyses read them that change a layer's value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from buttress.attacks import Perturbation
from buttress.errors import UserError
from buttress.layers.batches import batches
from buttress.layers.capture import layer_names
from buttress.layers.paths import everything_seen
from buttress.layers.select import LayerSelection, Selection, followed_modules, user_module
from buttress.tasks import Task


def attacked_batches(
    model: nn.Module,
    data: Iterable[Any],
    perturbation: Perturbation,
    layers: LayerSelection,
    found: Sequence[str],
    *,
    seed: int,
    batch_size: int,
    task: Task,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The data as (x, perturbed x, y), on the model's device.

    Args:
        model: the network.
        data: batches (x, y), see `read_batches`.
        perturbation: the attack.
        layers: which layers the caller wants.
        found: those that it has found, batch by batch.
        seed: of the attack.
        batch_size: inputs at once.
        task: what the output is for.

    Raises:
        UserError: for no data, and an entry of ``layers`` that matches nothing, be it before the first batch or, as
            another input might have called it, after the last.
    """
    selection, modules = Selection(layers), followed_modules(user_module(model)).values()
    available = None
    for x, y, ids in batches(model, data, batch_size):
        x_adv = perturbation.craft(model, x, y, task=task, seed=seed, ids=ids)
        if available is None:
            available = partial(everything_seen, model, x, task=task)
            selection.check(layer_names(model, x, layers, check=False), available, modules)
        yield x, x_adv, y
    if available is None:
        raise UserError("a layer analysis needs data; it holds no inputs")
    selection.check(found, available)
