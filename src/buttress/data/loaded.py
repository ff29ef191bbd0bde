"""Data of a user's own as loaders give them: torch data sets, DataLoaders, anything that iterates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data import Dataset as TorchDataset

from buttress.data import memory
from buttress.data.batches import check_by_index, read_batch, read_batches
from buttress.data.checks import as_float
from buttress.data.dataset import BATCH
from buttress.data.examples import Examples, by_index, collated, has_columns, stacked
from buttress.data.lazy_inputs import LazyInputs
from buttress.errors import UserError

_PARTS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}


class Loaded(NamedTuple):
    """A part of the data: inputs (N, ...) and labels (N, ...), and the classes' names where they are known."""

    x: NDArray[Any] | LazyInputs
    y: NDArray[Any]
    classes: tuple[str, ...] | None


def parts_of(name: str, result: Any, *, test_only: bool) -> dict[str, Any] | None:
    """By "train", "val" and "test" what a function of the user's returned, where these are things that give batches.

    Args:
        name: as the user wrote it, for error messages.
        result: a tuple of train and test, or of train, val and test; or a dict of them.
        test_only: whether a test alone will do, which then is one thing alone, or a dict of it.

    Returns:
        None for anything else, as for arrays.

    Raises:
        UserError: for a dict with other parts, and for one thing alone to train on, which leaves nothing to test on.
    """
    if isinstance(result, Mapping):
        return _named(name, result, ("test",) if test_only else ("train", "test"))
    if isinstance(result, tuple) and len(result) in (2, 3) and all(map(gives_batches, result)):
        return dict(zip(("train", "test") if len(result) == 2 else ("train", "val", "test"), result, strict=True))
    if gives_batches(result) and test_only:
        return {"test": result}
    if gives_batches(result):
        raise UserError(
            f"{name!r}: expected train and test, got one {type(result).__name__}, which would do for an audit alone: "
            "return (train, test), or a dict of train, val and test"
        )
    return None


def gives_batches(value: Any) -> bool:
    """Whether this is a data set or a loader, and no pair of arrays."""
    if isinstance(value, DataLoader | TorchDataset) or has_columns(value):
        return True
    if isinstance(value, list):
        return bool(value) and not any(isinstance(part, Tensor | np.ndarray | int | float) for part in value)
    arrays = isinstance(value, Tensor | np.ndarray | str | tuple | Mapping)
    return isinstance(value, Iterable) and not arrays


def load_all(where: str, data: Any) -> Loaded:
    """Read everything into memory; or the labels alone, where there is not room and examples can be read by index.

    Images of float numbers that are all whole multiples of 1/255, as torchvision's ToTensor makes them, are kept in a
    quarter of the memory; the network gets the same numbers. What has examples by index is read in their order, also
    where a loader shuffles them: figures and runs would depend on its draws else.

    Args:
        where: what it is, for error messages.
        data: a torch ``Dataset`` (of tensors, arrays or Pillow's images), a ``DataLoader``, a Hugging Face data set, or
            any iterable of batches; see `read_batches`.

    Raises:
        UserError: for what gives no batches, for inputs of several shapes, and for more than fits into memory of what
            has no examples by index.
    """
    xs: list[Tensor] = []
    ys: list[Tensor] = []
    indexed, room, used = by_index(data), memory.room(), 0
    for x, y in _batches(data):
        x = _in_bytes(x)
        if not xs and indexed is not None and len(indexed) * x[0].nbytes > room:
            return Loaded(*_lazy(where, indexed), _class_names(data))
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
        if used > room and indexed is not None:
            return Loaded(*_lazy(where, indexed), _class_names(data))
        if used > room:
            raise UserError(
                f"{where}: more than {used / 1e9:.1f} GB of inputs, which do not fit into memory: give fewer of them, "
                "smaller ones, or a torch Dataset with examples by index, which are read as they are needed"
            )
    if not xs:
        raise UserError(f"{where}: expected at least 1 input, got none")
    return Loaded(torch.cat(xs).numpy(), torch.cat(ys).numpy(), _class_names(data))


def _named(name: str, result: Mapping[Any, Any], needed: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in result.items():
        part = next((part for part, words in _PARTS.items() if str(key).lower() in words), None)
        if part is None or part in found:
            raise UserError(f"{name!r}: expected a dict of train, val and test, got {', '.join(map(repr, result))}")
        found[part] = value
    if any(part not in found for part in needed):
        raise UserError(f"{name!r}: expected {' and '.join(needed)}, got only {', '.join(map(repr, result))}")
    return found


def _lazy(where: str, indexed: Any) -> tuple[LazyInputs, NDArray[Any]]:
    x, y = Examples(where, indexed).lazy()
    return x, y.numpy()


def _batches(data: Any) -> Iterator[tuple[Tensor, Tensor]]:
    if has_columns(data):
        for start in range(0, len(data), BATCH):
            yield read_batch({key: stacked(column) for key, column in data[start : start + BATCH].items()})
        return
    if isinstance(data, TorchDataset) and not isinstance(data, IterableDataset):
        check_by_index(data)
        data = DataLoader(data, batch_size=BATCH, collate_fn=collated)
    elif isinstance(data, DataLoader) and by_index(data) is not None:
        in_order = {name: getattr(data, name) for name in ("batch_size", "num_workers", "worker_init_fn")}
        data = DataLoader(data.dataset, **in_order)
    yield from read_batches(data)


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
    if has_columns(data):
        for feature in data.features.values():
            if isinstance(names := getattr(feature, "names", None), list | tuple):
                return tuple(map(str, names))
    inner = data.dataset if isinstance(data, DataLoader) else data
    while hasattr(inner, "dataset") and not hasattr(inner, "classes"):  # a Subset of another
        inner = inner.dataset
    names = getattr(inner, "classes", None)
    return tuple(map(str, names)) if isinstance(names, list | tuple) else None
