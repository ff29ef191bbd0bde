"""Examples of a torch data set or of a Hugging Face one, as tensors; all at once or as they are needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler, default_collate
from torch.utils.data import Dataset as TorchDataset

from buttress.data.batches import read_batch
from buttress.data.dataset import BATCH
from buttress.data.lazy_inputs import LazyInputs
from buttress.data.read_ahead import read_ahead, usual_workers
from buttress.errors import UserError


def has_columns(data: Any) -> bool:
    """Whether it is a Hugging Face data set, of which a slice is a dict of columns."""
    return all(hasattr(data, name) for name in ("features", "column_names", "with_format", "__getitem__", "__len__"))


def by_index(data: Any) -> Any:
    """What gives the same examples by their index, in any order: a data set, or the one inside a plain loader; or None.

    A loader is plain where it gives each example once, shuffled or not, and makes batches as torch does; else its
    batches are what counts.
    """
    if isinstance(data, DataLoader):
        sampler: Any = data.sampler
        plain = isinstance(sampler, SequentialSampler) or (
            isinstance(sampler, RandomSampler) and not sampler.replacement
        )
        whole = plain and data.batch_size is not None and not data.drop_last and data.collate_fn is default_collate
        inner = by_index(data.dataset) if whole else None
        return inner if inner is not None and len(sampler) == len(inner) else None
    known = isinstance(data, TorchDataset) and not isinstance(data, IterableDataset) and hasattr(data, "__len__")
    return data if known or has_columns(data) else None


def collated(examples: Sequence[Any]) -> Any:
    """Examples as one batch; Pillow's images as bytes (C, H, W)."""
    if isinstance(examples[0], Mapping):
        return {key: stacked([example[key] for example in examples]) for key in examples[0]}
    return tuple(stacked(list(column)) for column in zip(*examples, strict=True))


def stacked(column: Any) -> Any:
    """One tensor of all examples' values; what is no numbers as it is.

    Raises:
        UserError: for values of several shapes.
    """
    values = [_tensor(value) for value in column]
    if any(not isinstance(value, Tensor) for value in values):
        return column
    shapes = sorted({tuple(value.shape) for value in values})
    if len(shapes) > 1:
        raise UserError(f"expected inputs of one shape, got {shapes[0]} and {shapes[-1]}: resize them in the data set")
    return torch.stack(values)


class Examples:
    """A source of inputs for `LazyInputs`, whose labels are held.

    Args:
        where: what it is, for error lines.
        data: as `by_index` gives it; not empty.

    Raises:
        UserError: where it gives no pairs.
    """

    def __init__(self, where: str, data: Any) -> None:
        self._where, self._data = where, data
        x, self._labels = self.both([0])
        self.shape: tuple[int, ...] = tuple(x.shape[1:])
        self.dtype = torch.uint8 if x.dtype == torch.uint8 and x.dim() == 4 else torch.float32

    def lazy(self) -> tuple[LazyInputs, Tensor]:
        """The inputs, to be read as they are needed, and their labels.

        Labels are the data set's ``targets``, as torchvision's have them, where there is one for each example and no
        transform of targets; else all examples are read once for them. Whenever an example is read again, its label is
        held against these.
        """
        self._labels = self._found_labels()
        return LazyInputs(self, torch.arange(len(self._data))), self._labels

    def read(self, rows: Sequence[int]) -> Tensor:
        """The inputs with these indices.

        Raises:
            UserError: where the data set fails, and where a label is another one than at first.
        """
        x, y = self.both(rows)
        if not torch.equal(y, self._labels[list(rows)]):
            raise UserError(f"{self._where}: expected the same label for an example each time, got another one")
        return x if x.dtype == self.dtype else x.float()

    def both(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Inputs and labels.

        Raises:
            UserError: naming the examples at which the data set fails.
        """
        try:
            if has_columns(self._data):
                found = {key: stacked(column) for key, column in self._data[list(rows)].items()}
            else:
                found = collated([self._data[row] for row in rows])
        except UserError:
            raise
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(f"{self._where}: an example among {_listed(rows)} cannot be read: {reason}") from error
        return read_batch(found)

    def _found_labels(self) -> Tensor:
        count, targets = len(self._data), getattr(self._data, "targets", None)
        if targets is not None and getattr(self._data, "target_transform", None) is None:
            known = _tensor(targets)
            if isinstance(known, Tensor) and known.shape == (count, *self._labels.shape[1:]):
                return known.to(self._labels.dtype)
        every = torch.arange(count)
        batches = torch.split(every, BATCH)
        return torch.cat(list(read_ahead(LazyInputs(_Labels(self, self._labels), every), batches, usual_workers())))


class _Labels:
    """The labels of examples as a source, so that they are read as inputs are."""

    def __init__(self, examples: Examples, like: Tensor) -> None:
        self._examples, self.dtype = examples, like.dtype
        self.shape: tuple[int, ...] = tuple(like.shape[1:])

    def read(self, rows: Sequence[int]) -> Tensor:
        return self._examples.both(rows)[1]


def _listed(rows: Sequence[int], most: int = 4) -> str:
    return ", ".join(map(str, rows[:most])) + (f" and {len(rows) - most} more" if len(rows) > most else "")


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
