"""Batches as loaders give them (pairs, tuples with more in them, dicts, arrays), read as inputs and labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data import Dataset as TorchDataset

from buttress.data.dataset import BATCH, Dataset
from buttress.errors import UserError
from buttress.tasks.task import length_hint

_INPUTS = (
    *("x", "image", "images", "img", "input", "inputs", "data", "features"),
    *("pixel_values", "input_values", "input_features", "input_ids"),
)
_LABELS = ("y", "label", "labels", "target", "targets")
# What a tokeniser or an image processor gives besides, and the number that makes no difference there.
_BESIDE = {"attention_mask": 1, "pixel_mask": 1, "token_type_ids": 0}


def read_batches(data: Any, size: int = BATCH) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and labels, batch by batch, of whatever a user's data are.

    Args:
        data: an iterable of batches, see `read_batch`: a `Split`, a list, a torch ``DataLoader``; or a torch
            ``Dataset`` with examples by index, which is loaded in order.
        size: inputs in a batch, of a torch ``Dataset``.

    Raises:
        UserError: for a whole `Dataset`, one pair in place of a list of them, and what gives no batches.
    """
    if isinstance(data, Dataset):
        raise UserError(f"data is the whole data set {data.name!r}: give one of its splits, such as data.test")
    if isinstance(data, TorchDataset) and not isinstance(data, IterableDataset):
        check_by_index(data)
        data = DataLoader(data, batch_size=size)
    if isinstance(data, Mapping) or (
        isinstance(data, tuple | list) and len(data) > 1 and all(isinstance(part, Tensor | np.ndarray) for part in data)
    ):
        raise UserError(f"data is a single {type(data).__name__}: give a list of batches, [(x, y)]")
    if isinstance(data, Tensor | np.ndarray | str) or not isinstance(data, Iterable):
        raise UserError(f"data must give batches (x, y), as a list or a DataLoader does; got a {type(data).__name__}")
    for item in data:
        yield read_batch(item)


def read_batch(item: Any) -> tuple[Tensor, Tensor]:
    """Inputs (N, ...) and labels (N, ...) of one batch; class labels as int64.

    Args:
        item: a tuple or list of inputs, labels and whatever else, which is left out; or a dict with inputs under one of
            the usual names (image, pixel_values, input, x ...) and labels under one (label, labels, target, y ...).
            Tensors or NumPy arrays; tensors made under ``inference_mode`` are copied, for they carry no gradients.

    Raises:
        UserError: for what is no such batch, lengths that differ, a dict that holds several inputs or labels or none,
            and one with more that the network would need, such as an attention mask that leaves something out.
    """
    first, second = _of_mapping(item) if isinstance(item, Mapping) else _of_sequence(item)
    x, y = _tensor("inputs", first), _tensor("labels", second)
    if x.dim() < 2 or y.dim() == 0 or len(x) != len(y):
        hint = length_hint(y, len(x)) if x.dim() > 1 else ""
        if y.dim() == 0 and x.dim() != 2:
            hint = ": make batches of single examples, torch.utils.data.DataLoader(data, batch_size=128)"
        raise UserError(f"a batch holds as many inputs as labels; got {tuple(x.shape)} and {tuple(y.shape)}{hint}")
    return x, (y if y.is_floating_point() else y.long())


def check_by_index(data: TorchDataset[Any]) -> None:
    """Refuse a torch data set that can neither be read by index nor be iterated over.

    Raises:
        UserError: saying what it lacks.
    """
    if lacking := [name for name in ("__len__", "__getitem__") if not hasattr(data, name)]:
        raise UserError(
            f"the data set {type(data).__name__} has no {' and no '.join(lacking)}: give it both, or make it a torch "
            "IterableDataset"
        )


def _of_sequence(item: Any) -> tuple[Any, Any]:
    if not isinstance(item, list | tuple) or len(item) < 2:
        raise UserError(f"data must give pairs of tensors, batches of (inputs, labels); got a {type(item).__name__}")
    return item[0], item[1]


def _of_mapping(item: Mapping[Any, Any]) -> tuple[Any, Any]:
    found = []
    for what, names in (("inputs", _INPUTS), ("labels", _LABELS)):
        keys = [key for key in item if str(key).lower() in names]
        if len(keys) != 1:
            came = " and ".join(map(repr, keys)) if keys else f"none of its keys {', '.join(map(repr, item))}"
            raise UserError(
                f"a batch that is a dict holds its {what} under one of {', '.join(names)}; got {came}: "
                "say which, [(batch['...'], batch['...']) for batch in data]"
            )
        found.append(item[keys[0]])
    for key, neutral in _BESIDE.items():
        if key in item and bool((_tensor(key, item[key]) != neutral).any()):
            raise UserError(
                f"the batch's {key!r} would not reach the network, which is called with its inputs alone: give inputs "
                "without padding, or a module whose forward makes it from them"
            )
    return found[0], found[1]


def _tensor(what: str, value: Any) -> Tensor:
    if isinstance(value, np.ndarray):
        value = value.copy()  # it may be read-only, which torch cannot express
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise UserError(f"a batch's {what} must be a tensor or an array; got a {type(value).__name__}") from None
    return tensor.clone() if tensor.is_inference() else tensor
