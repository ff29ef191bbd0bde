"""A user's data beside its adversarial examples, as the analyses read them that change a layer's value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from buttress.attacks import Perturbation
from buttress.errors import UserError
from buttress.layers.attacked_batch import AttackedBatch
from buttress.layers.batches import batches, look_ahead
from buttress.layers.known_layers import KnownLayers
from buttress.layers.paths import everything_seen
from buttress.layers.rows import CHECKED
from buttress.layers.select import Selection, followed_modules, user_module


def attacked_batches(
    known: KnownLayers, data: Iterable[Any], perturbation: Perturbation, batch_size: int
) -> Iterator[AttackedBatch]:
    """The clean and the attacked pass of each batch.

    Args:
        known: the network and the selection, and the layers that are found, batch by batch.
        data: batches (x, y), see `read_batches`.
        perturbation: the attack.
        batch_size: inputs at once.

    Raises:
        UserError: for no data, and an entry of the selection that matches nothing, be it in the first batch or, as
            another input might have called it, after the last.
    """
    model, task = known.model, known.task
    network = user_module(model)
    selection, modules = Selection(known.layers, network), followed_modules(network).values()
    available = None
    known.sample, source = look_ahead(batches(model, data, batch_size), CHECKED)
    for x, y, ids in source:
        batch = AttackedBatch(known, x, perturbation.craft(model, x, y, task=task, seed=known.seed, ids=ids), y)
        if available is None:
            available = partial(everything_seen, model, x, task=task)
            selection.check(known.names, available, modules)
        yield batch
    if available is None:
        raise UserError("a layer analysis needs data; it holds no inputs")
    selection.check(known.names, available)
