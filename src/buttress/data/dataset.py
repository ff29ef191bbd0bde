"""Split and Dataset: inputs in memory, or read when they are asked for; always as train, val and test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from buttress.data.augment import Augment
from buttress.data.checks import as_float, check_box, check_columns, check_truth, description
from buttress.data.lazy_inputs import LazyInputs
from buttress.data.memory import fits, require_memory
from buttress.data.stratified import divided_index, stratified_index
from buttress.errors import UserError
from buttress.random import Random, derive
from buttress.threat.box import Box
from buttress.validation import whole

BATCH = 256
_INTEGERS = (torch.int16, torch.int32, torch.int64)
_LARGE, _SAMPLE = 2**28, 2**26  # bytes of a split that is known by a sample, and of that sample


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Inputs with their labels; iterating gives ``(x, y)`` batches of 256 in order, x as float32.

    Args:
        x: uint8 images, shape (N, C, H, W), read as x / 255; or float32, shape (N, features) or (N, C, H, W). A tensor,
            or `LazyInputs`, which are read when they are asked for.
        y: class labels, int64, shape (N,); several labels of 0 and 1, int64, shape (N, L); or values, float32, shape
            (N,) or (N, D), or that of images.
        ids: identity of each input, int64, shape (N,): stays with it in every subset and seeds an attack's draws.

    Raises:
        UserError: for other dtypes, lengths that differ, labels or values that are none of these, or values that are
            not finite.
    """

    x: Tensor | LazyInputs
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
        if isinstance(self.x, Tensor) and self.x.is_floating_point() and not self.x.isfinite().all():
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

    @property
    def sample(self) -> Split:
        """What inputs are like, in memory: all of them, or of more than 256 MiB as many, spread evenly, as take 64 MiB.

        These are the same wherever the inputs are, in memory or not.
        """
        if self.x.nbytes <= _LARGE:
            return self._loaded()
        count = max(1, _SAMPLE * len(self) // self.x.nbytes)
        return self.subset(torch.linspace(0, len(self) - 1, count).long())._loaded()

    def _loaded(self) -> Split:
        return replace(self, x=self.x[:]) if isinstance(self.x, LazyInputs) else self

    def channel(self, index: int) -> Tensor:
        """All values of a channel of images, or of a feature of rows, as stored; of inputs in memory."""
        return self.in_memory("a channel of all")[:, index].flatten()

    def in_memory(self, what: str) -> Tensor:
        """All inputs as stored, for what cannot do with some at a time.

        Raises:
            UserError: where they do not fit, with ``what``, the subject of a sentence.
        """
        if isinstance(self.x, LazyInputs):
            require_memory(self.x.nbytes, f"{what}: all {len(self)} inputs at once")
        return self.x[:]

    def held(self) -> Split:
        """The same split, in memory where that is small enough; for what reads it again and again."""
        return self._loaded() if fits(4 * self.x.nbytes) else self

    def read(self, stored: Tensor) -> Tensor:
        """Some rows of ``x`` as a network takes them: float32 in the data's units."""
        return as_float(stored)

    def take(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The rows at ``index``: x as float32 in the data's units, y, ids.

        Raises:
            UserError: for more rows than fit into memory, where inputs are not there already.
        """
        if isinstance(self.x, LazyInputs):
            self.x.require_room(len(index), torch.float32.itemsize)
        return self.read(self.x[index]), self.y[index], self.ids[index]

    def subset(self, index: Tensor) -> Split:
        """The rows at ``index`` as a split of their own, still as stored."""
        x = self.x.subset(index) if isinstance(self.x, LazyInputs) else self.x[index]
        return replace(self, x=x, y=self.y[index], ids=self.ids[index])

    def stratified(self, limit: int, seed: int = 0) -> Split:
        """At most ``limit`` inputs, class proportions and order kept, each class at least once where limit allows.

        Raises:
            UserError: when ``limit`` is below 1.
        """
        whole("limit", limit)
        return self if limit >= len(self) else self.subset(stratified_index(self.y, limit, seed))

    def pooled(self, side: int) -> Split:
        """The same images with the mean of each square of ``side`` pixels as a pixel; see `Dataset.pooled`."""
        if isinstance(self.x, LazyInputs):
            return replace(self, x=self.x.pooled(side))
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
            if isinstance(split.x, Tensor):
                check_box(split.x, self.box, where)
            else:  # what is not read yet is checked when it is
                object.__setattr__(self, part, replace(split, x=replace(split.x, box=self.box)))
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
        """Mean of each channel (or feature) over `Split.sample` of train, or of the test where there is no other."""
        return self._statistics[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel (or feature) over the same inputs; 1 where it is constant."""
        return self._statistics[1]

    @cached_property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        means, stds = [], []
        sample = self.usual.sample
        for channel in range(self.channels):
            values = sample.channel(channel)
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

    def halved(self, number: int) -> Dataset:
        """The same data set with each training input kept or left out at random, a half of them on average.

        Halves 0 and 1 are each other's rest, so are 2 and 3, and so on: of networks trained on both of a pair one has
        seen each input, and the other one has not.

        Args:
            number: which half; the choice depends on nothing else but the input's id.

        Raises:
            UserError: when nothing would be left.
        """
        pair, rest = divmod(whole("half", number, 0), 2)
        first = Random(derive(pair, "half"), self.train.ids).uniform() < 0.5
        kept = (first ^ bool(rest)).nonzero().squeeze(1)
        if not len(kept):
            raise UserError(f"half leaves none of the {len(self.train)} training inputs: choose another number")
        return replace(self, train=self.train.subset(kept))

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
