"""Split and Dataset: a small data set in memory, always as train, val and test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from buttress.data.augment import Augment
from buttress.data.checks import as_float, check_box, check_columns, check_truth, description
from buttress.data.stratified import divided_index, stratified_index
from buttress.errors import UserError
from buttress.threat.box import Box
from buttress.validation import whole

BATCH = 256
_INTEGERS = (torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Inputs with their labels, held in memory; iterating gives ``(x, y)`` batches of 256 in order, x as float32.

    Args:
        x: uint8 images, shape (N, C, H, W), read as x / 255; or float32, shape (N, features) or (N, C, H, W).
        y: class labels, int64, shape (N,); several labels of 0 and 1, int64, shape (N, L); or values, float32, shape
            (N,) or (N, D), or that of images.
        ids: identity of each input, int64, shape (N,): stays with it in every subset and seeds an attack's draws.

    Raises:
        UserError: for other dtypes, lengths that differ, labels or values that are none of these, or values that are
            not finite.
    """

    x: Tensor
    y: Tensor
    ids: Tensor

    def __post_init__(self) -> None:
        if self.x.dtype not in (torch.uint8, torch.float32) or self.x.ndim < (4 if self.x.dtype == torch.uint8 else 2):
            tokens = "; for tokens train models.FromEmbedding(network) on x.float(), and audit it on its embed(x)"
            hint = tokens if self.x.dtype in _INTEGERS else ""
            raise UserError(
                f"expected uint8 images (N, C, H, W) or float32 inputs (N, features), got {description(self.x)}{hint}"
            )
        if self.ids.dtype != torch.int64 or self.ids.shape != self.x.shape[:1]:
            raise UserError(f"expected ids of type int64 and shape ({len(self.x)},), got {description(self.ids)}")
        check_truth(self.y, len(self.x))
        if self.x.is_floating_point() and not self.x.isfinite().all():
            raise UserError("expected finite inputs, got NaN or infinity; clean the data first")

    def __repr__(self) -> str:
        return f"Split({description(self.x)})"

    def __len__(self) -> int:
        return len(self.y)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self), BATCH):
            yield self.read(self.x[start : start + BATCH]), self.y[start : start + BATCH]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input as a network takes it."""
        return tuple(self.x.shape[1:])

    def channel(self, index: int) -> Tensor:
        """All values of a channel of images, or of a feature of rows, as stored."""
        return self.x[:, index].flatten()

    def read(self, stored: Tensor) -> Tensor:
        """Some rows of ``x`` as a network takes them: float32 in the data's units."""
        return as_float(stored)

    def take(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The rows at ``index``: x as float32 in the data's units, y, ids."""
        return self.read(self.x[index]), self.y[index], self.ids[index]

    def subset(self, index: Tensor) -> Split:
        """The rows at ``index`` as a split of their own, still as stored."""
        return replace(self, x=self.x[index], y=self.y[index], ids=self.ids[index])

    def stratified(self, limit: int, seed: int = 0) -> Split:
        """At most ``limit`` inputs, class proportions and order kept, each class at least once where limit allows.

        Raises:
            UserError: when ``limit`` is below 1.
        """
        whole("limit", limit)
        return self if limit >= len(self) else self.subset(stratified_index(self.y, limit, seed))

    def pooled(self, side: int) -> Split:
        """The same images with the mean of each square of ``side`` pixels as a pixel; see `Dataset.pooled`."""
        return Split(torch.nn.functional.avg_pool2d(as_float(self.x), side), self.y, self.ids)

    def divide(self, count: int, seed: int) -> tuple[Split, Split]:
        """Split off ``count`` inputs, stratified by class: ``(the rest, those split off)``, order kept in both.

        Raises:
            UserError: when either part would be empty.
        """
        rest, index = divided_index(self.y, count, seed)
        return self.subset(rest), self.subset(index)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set: three splits, and what is known about them.

    Args:
        name: the name that it was loaded by.
        train: what a network learns from; empty where a network is trained already and all inputs are the test.
        val: for choosing checkpoints and settings; empty where there is nothing to choose.
        test: for the final figures only.
        classes: the classes' names, in the order of the labels; where ``y`` is several labels, or values, the name of
            each; of images any.
        box: lowest and highest value an input may have, numbers or tensors of one input's shape; an end may be
            infinite, and None is where any value is an input.
        provenance: one sentence: where the data are from, their licence, whether their checksum was verified.
        augment: what training does to a float batch, or None.
        ordered: whether labels are known to be those of whoever made the network; of a folder without a list of
            classes only the names are known, so that a network for more classes is refused.
        notes: sentences for the user on what was used as what, and what was done to it.

    Raises:
        UserError: for an empty test, shapes that differ between splits, labels out of range, an id in two splits,
            or values outside the box.
    """

    name: str
    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]
    box: tuple[float, float] | None
    provenance: str
    augment: Augment | None = None
    ordered: bool = True
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for part, split in self.splits.items():
            where = f"data set {self.name!r}, {part}"
            if not len(split) and part == "test":
                raise UserError(f"{where}: expected at least 1 input, got none")
            if split.x.shape[1:] != self.train.x.shape[1:]:
                raise UserError(
                    f"{where}: expected inputs of shape {self.shape} as in train, got {description(split.x)}"
                )
            check_columns(split.y, len(self.classes), where)
            check_box(split.x, self.box, where)
        if len(self.classes) < 2 and self.test.y.ndim == 1 and not self.test.y.is_floating_point():
            raise UserError(f"data set {self.name!r}: expected at least 2 classes, got {len(self.classes)}")
        object.__setattr__(self, "box", Box.read(self.box))
        ids = torch.cat([split.ids for split in self.splits.values()])
        if (ids.sort().values.diff() == 0).any():
            raise UserError(
                f"data set {self.name!r}: expected ids to differ over train, val and test, got repeated ones"
            )

    @property
    def splits(self) -> dict[str, Split]:
        """The three splits by name."""
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def usual(self) -> Split:
        """Inputs that say what all are like: those of train, or of the test where there is no other."""
        return self.train if len(self.train) else self.test

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input: (C, H, W) or (features,)."""
        return self.train.shape

    @property
    def channels(self) -> int:
        """Channels of an image, or features of a row."""
        return self.shape[0]

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel (or feature) over train, or over the test where there is no other."""
        return self._statistics[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel (or feature) over the same inputs; 1 where it is constant."""
        return self._statistics[1]

    @cached_property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        means, stds = [], []
        for channel in range(self.channels):
            values = self.usual.channel(channel)
            if values.dtype == torch.uint8:  # by the histogram: exact, and no float copy of the images
                counts = torch.bincount(values, minlength=256).double()
                levels = torch.arange(256, dtype=torch.float64) / 255
            else:
                levels, counts = values.double(), torch.ones(len(values), dtype=torch.float64)
            mean = (levels * counts).sum() / counts.sum()
            std = (((levels - mean).square() * counts).sum() / counts.sum()).sqrt()
            means.append(mean.item())
            stds.append(std.item() if values.min() < values.max() else 1.0)
        return tuple(means), tuple(stds)

    def limited(self, limit: int, seed: int = 0) -> Dataset:
        """The same data set with at most ``limit`` inputs in each split (``Split.stratified``)."""
        train, val, test = (split.stratified(limit, seed) for split in self.splits.values())
        return replace(self, train=train, val=val, test=test)

    def pooled(self, side: int) -> Dataset:
        """The same images at a lower resolution, as float32: the mean of each square of ``side`` pixels.

        Augmentation is left out: what it does in pixels is meant for the original size.

        Raises:
            UserError: when the inputs are no images of whole squares, or the truth is an image itself.
        """
        whole("pool", side)
        if len(self.shape) != 3 or any(size % side for size in self.shape[1:]):
            raise UserError(f"pool needs images whose sides are multiples of {side}; {self.name} has {self.shape}")
        if self.train.y.ndim > 2:
            raise UserError(f"pool needs classes, labels or values; the truth of {self.name} is an image itself")
        train, val, test = (split.pooled(side) for split in self.splits.values())
        return replace(self, train=train, val=val, test=test, augment=None)


def from_arrays(
    name: str,
    train: tuple[NDArray[Any], NDArray[Any]],
    test: tuple[NDArray[Any], NDArray[Any]],
    *,
    classes: Sequence[str],
    box: tuple[float, float] | None,
    provenance: str,
    val: int | None = None,
    seed: int = 0,
    augment: Augment | None = None,
) -> Dataset:
    """A data set from published train and test arrays; val is split off train, stratified, by ``seed``.

    Ids are positions: train (and so val) counts from 0, test goes on from there.

    Args:
        name: its name.
        train: inputs uint8 (N, C, H, W), float32 (N, features) or integer tokens (N, T), which are kept as float32; and
            integer labels (N,), labels of 0 and 1 (N, L), or values, floats (N,) or (N, D).
        test: the same for the test split, which no seed changes.
        classes: names of the classes, of the labels, or of the values.
        box: as in ``Dataset``.
        provenance: as in ``Dataset``.
        val: inputs to split off; by default a tenth of train, at most 5,000.
        seed: decides which inputs go to val.
        augment: as in ``Dataset``.
    """
    full, held_out = as_split(*train), as_split(*test, first_id=len(train[1]))
    check_columns(full.y, len(classes), f"data set {name!r}, train")
    rest, validation = full.divide(default_val_size(len(full)) if val is None else val, seed)
    return Dataset(name, rest, validation, held_out, tuple(classes), box, provenance, augment)


def default_val_size(count: int, cap: int = 5000) -> int:
    """How many of ``count`` inputs are split off by default: a tenth, at least 1 and at most ``cap``."""
    return max(1, min(cap, round(count / 10)))


def as_split(x: NDArray[Any], y: NDArray[Any], first_id: int = 0) -> Split:
    """A split from arrays; ids count from ``first_id``."""
    if x.dtype.kind in "iu" and x.dtype != np.uint8 and x.ndim == 2:
        x = x.astype(np.float32)  # exact for any vocabulary, which has fewer than 2**24 tokens
    images = torch.from_numpy(np.require(x, requirements=["C", "W"]))
    kind = np.float32 if y.dtype.kind == "f" else np.int64
    return Split(images, torch.from_numpy(y.astype(kind)), torch.arange(first_id, first_id + len(y)))
