"""Data of a user's own as loaders give them, read into memory: torch data sets, DataLoaders, anything that iterates."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data import Dataset as TorchDataset

from buttress.data.batches import check_by_index, read_batch, read_batches
from buttress.data.checks import as_float
from buttress.data.dataset import BATCH
from buttress.errors import UserError

_PARTS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_MOST = 0.8  # of the memory that is free


class Loaded(NamedTuple):
    """All of a part of the data: inputs (N, ...) and labels (N, ...), and the classes' names where they are known."""

    x: NDArray[Any]
    y: NDArray[Any]
    classes: tuple[str, ...] | None


def parts_of(name: str, result: Any) -> dict[str, Any] | None:
    """By "train", "val" and "test" what a function of the user's returned, where these are things that give batches.

    Args:
        name: as the user wrote it, for error messages.
        result: a tuple of train and test, or of train, val and test; or a dict of them.

    Returns:
        None for anything else, as for arrays.

    Raises:
        UserError: for a dict with other parts, and for one thing alone, which leaves nothing to train or to test on.
    """
    if isinstance(result, Mapping):
        return _named(name, result)
    if isinstance(result, tuple) and len(result) in (2, 3) and all(map(gives_batches, result)):
        return dict(zip(("train", "test") if len(result) == 2 else ("train", "val", "test"), result, strict=True))
    if gives_batches(result):
        raise UserError(
            f"{name!r}: expected train and test, got one {type(result).__name__}: return (train, test), or a dict of "
            "train, val and test"
        )
    return None


def gives_batches(value: Any) -> bool:
    """Whether this is a data set or a loader, and no pair of arrays."""
    if isinstance(value, DataLoader | TorchDataset) or _has_columns(value):
        return True
    if isinstance(value, list):
        return bool(value) and not any(isinstance(part, Tensor | np.ndarray | int | float) for part in value)
    arrays = isinstance(value, Tensor | np.ndarray | str | tuple | Mapping)
    return isinstance(value, Iterable) and not arrays


def load_all(where: str, data: Any) -> Loaded:
    """Read everything.

    Images of float numbers that are all whole multiples of 1/255, as torchvision's ToTensor makes them, are kept in a
    quarter of the memory; the network gets the same numbers.

    Args:
        where: what it is, for error messages.
        data: a torch ``Dataset`` (of tensors, arrays or Pillow's images), a ``DataLoader``, a Hugging Face data set, or
            any iterable of batches; see `read_batches`.

    Raises:
        UserError: for what gives no batches, for inputs of several shapes, and for more than fits into memory.
    """
    xs: list[Tensor] = []
    ys: list[Tensor] = []
    free, used = _free_memory(), 0
    for x, y in _batches(data):
        x = _in_bytes(x)
        if xs and x.shape[1:] != xs[0].shape[1:]:
            raise UserError(
                f"{where}: expected inputs of one shape, got {tuple(xs[0].shape[1:])} and {tuple(x.shape[1:])}: resize "
                "them in the data set"
            )
        if xs and x.dtype != xs[-1].dtype:  # some of the values of a part are no bytes: then none are kept as such
            xs, x = [as_float(part) for part in xs], as_float(x)
        xs.append(x)
        ys.append(y)
        used += x.nbytes + y.nbytes
        if used > _MOST * free:
            raise UserError(
                f"{where}: more than {used / 1e9:.1f} GB of inputs, which do not fit into memory: give fewer of them, "
                "or smaller ones"
            )
    if not xs:
        raise UserError(f"{where}: expected at least 1 input, got none")
    return Loaded(torch.cat(xs).numpy(), torch.cat(ys).numpy(), _class_names(data))


def _named(name: str, result: Mapping[Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in result.items():
        part = next((part for part, words in _PARTS.items() if str(key).lower() in words), None)
        if part is None or part in found:
            raise UserError(f"{name!r}: expected a dict of train, val and test, got {', '.join(map(repr, result))}")
        found[part] = value
    for needed in ("train", "test"):
        if needed not in found:
            raise UserError(f"{name!r}: expected train and test, got only {', '.join(map(repr, result))}")
    return found


def _batches(data: Any) -> Iterator[tuple[Tensor, Tensor]]:
    if _has_columns(data):
        for start in range(0, len(data), BATCH):
            yield read_batch({key: _stacked(column) for key, column in data[start : start + BATCH].items()})
        return
    if isinstance(data, TorchDataset) and not isinstance(data, IterableDataset):
        check_by_index(data)
        data = DataLoader(data, batch_size=BATCH, collate_fn=_collated)
    yield from read_batches(data)


def _has_columns(data: Any) -> bool:
    """Whether it is a Hugging Face data set, of which a slice is a dict of columns."""
    return all(hasattr(data, name) for name in ("features", "column_names", "with_format", "__getitem__", "__len__"))


def _collated(examples: list[Any]) -> Any:
    if isinstance(examples[0], Mapping):
        return {key: _stacked([example[key] for example in examples]) for key in examples[0]}
    return tuple(_stacked(list(column)) for column in zip(*examples, strict=True))


def _stacked(column: Any) -> Any:
    """One tensor of all examples' values; what is no numbers as it is."""
    values = [_tensor(value) for value in column]
    if any(not isinstance(value, Tensor) for value in values):
        return column
    shapes = sorted({tuple(value.shape) for value in values})
    if len(shapes) > 1:
        raise UserError(f"expected inputs of one shape, got {shapes[0]} and {shapes[-1]}: resize them in the data set")
    return torch.stack(values)


def _tensor(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, int | float | np.ndarray | np.generic) or (isinstance(value, list) and value):
        try:
            return torch.as_tensor(np.asarray(value))
        except (TypeError, ValueError):
            return value
    if hasattr(value, "convert") and hasattr(value, "getbands"):  # an image of Pillow's
        image = value if value.mode in ("L", "RGB") else value.convert("L" if value.mode in ("1", "LA") else "RGB")
        pixels = np.asarray(image)
        return torch.as_tensor(pixels[None].copy() if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())
    return value


def _in_bytes(x: Tensor) -> Tensor:
    """Images as bytes where that loses nothing."""
    x = x.detach().cpu()
    if x.dim() != 4 or x.dtype == torch.uint8:
        return x
    x = x.float()
    levels = (x * 255).round()
    exact = bool(((levels >= 0) & (levels <= 255)).all()) and torch.equal(levels / 255, x)
    return levels.to(torch.uint8) if exact else x


def _class_names(data: Any) -> tuple[str, ...] | None:
    """As torchvision's data sets and Hugging Face's have them."""
    if _has_columns(data):
        for feature in data.features.values():
            if isinstance(names := getattr(feature, "names", None), list | tuple):
                return tuple(map(str, names))
    inner = data.dataset if isinstance(data, DataLoader) else data
    while hasattr(inner, "dataset") and not hasattr(inner, "classes"):  # a Subset of another
        inner = inner.dataset
    names = getattr(inner, "classes", None)
    return tuple(map(str, names)) if isinstance(names, list | tuple) else None


def _free_memory() -> float:
    """Bytes; infinite where the system does not say."""
    try:
        with open("/proc/meminfo") as lines:
            known = dict(line.split(":", 1) for line in lines)
        return float(known["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (OSError, ValueError, AttributeError):
        return float("inf")
