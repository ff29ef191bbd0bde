"""A data set from arrays, as the published ones come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from buttress.data.augment import Augment
from buttress.data.checks import check_columns
from buttress.data.dataset import Dataset, Split
from buttress.data.lazy_inputs import LazyInputs


def from_arrays(
    name: str,
    train: tuple[NDArray[Any] | LazyInputs, NDArray[Any]],
    test: tuple[NDArray[Any] | LazyInputs, NDArray[Any]],
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
            integer labels (N,), labels of 0 and 1 (N, L), or values, floats (N,) or (N, D). Inputs may be `LazyInputs`.
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


def as_split(x: NDArray[Any] | LazyInputs, y: NDArray[Any], first_id: int = 0) -> Split:
    """A split from arrays; ids count from ``first_id``."""
    kind = np.float32 if y.dtype.kind == "f" else np.int64
    labels, ids = torch.from_numpy(y.astype(kind)), torch.arange(first_id, first_id + len(y))
    if isinstance(x, LazyInputs):
        return Split(x, labels, ids)
    if x.dtype.kind in "iu" and x.dtype != np.uint8 and x.ndim == 2:
        x = x.astype(np.float32)  # exact for any vocabulary, which has fewer than 2**24 tokens
    return Split(torch.from_numpy(np.require(x, requirements=["C", "W"])), labels, ids)
