"""A user's data as a layer analysis reads them: on the network's device, in small batches, each input with its id."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from buttress.data.batches import read_batches
from buttress.engine.call_checks import check_inputs
from buttress.errors import UserError

Batch = tuple[Tensor, Tensor, Tensor]


def batches(model: nn.Module, data: Iterable[Any], batch_size: int) -> Iterator[Batch]:
    """The data as (x, y, ids) on the model's device, at most ``batch_size`` inputs at once.

    Args:
        model: the network.
        data: batches in any form that `read_batches` knows. Ids are ``data.ids`` where that is a tensor of integers,
            else the inputs' positions.
        batch_size: inputs at once; larger batches are divided.

    Raises:
        UserError: for what is no batch, inputs that the network cannot take, and fewer ids than inputs.
    """
    ids = getattr(data, "ids", None)
    if not isinstance(ids, Tensor) or ids.dim() != 1 or ids.is_floating_point():
        ids = None
    weight = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    position = 0
    for inputs, labels in read_batches(data, batch_size):
        for start in range(0, len(inputs), batch_size):
            x, y = inputs[start : start + batch_size], labels[start : start + batch_size]
            x, y = (part.to(part.device if weight is None else weight.device) for part in (x, y))
            check_inputs(model, x, y, None)
            end = position + len(x)
            if ids is not None and end > len(ids):
                raise UserError(f"data.ids names {len(ids)} inputs, and data gives more: give one id for each")
            yield x, y, torch.arange(position, end) if ids is None else ids[position:end]
            position = end


def look_ahead(source: Iterator[Batch], count: int) -> tuple[list[Tensor], Iterator[Batch]]:
    """The inputs of the first batches, ``count`` or more if there are so many; and the source with nothing missing."""
    seen: list[Batch] = []
    while count > 0 and (batch := next(source, None)) is not None:
        seen.append(batch)
        count -= len(batch[0])
    return [x for x, _, _ in seen], chain(seen, source)
