"""scikit-learn's digits: 1,797 handwritten digits of 8x8 pixels, part of the library itself."""

from __future__ import annotations

import numpy as np
import torch

from buttress.data.arrays import from_arrays
from buttress.data.dataset import Dataset
from buttress.data.stratified import stratified_index
from buttress.errors import UserError
from buttress.registry import dataset


@dataset("digits")
def digits(*, val: int | None = None, test: int = 297, seed: int = 0) -> Dataset:
    """Handwritten digits, 8x8 grey with 17 levels (the test part of the UCI set; Alpaydin and Kaynak, 1998).

    There is no published split: the test is a stratified sample that no seed changes, so that figures of different
    seeds are about the same inputs. The levels 0 to 16 are stored as bytes, rounded to the nearest of 255.

    Args:
        val: inputs split off train for validation; a tenth of it by default.
        test: inputs for the test.
        seed: decides which inputs go to val.
    """
    from sklearn.datasets import load_digits

    levels, y = load_digits(return_X_y=True)
    if not 10 <= test < len(y):
        raise UserError(f"digits: expected 10 to {len(y) - 1} inputs for the test, got {test}")
    x = np.rint(levels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    held_out = np.zeros(len(y), dtype=bool)
    held_out[stratified_index(torch.from_numpy(y), test, seed=0).numpy()] = True
    return from_arrays(
        "digits",
        (x[~held_out], y[~held_out]),
        (x[held_out], y[held_out]),
        classes=[str(digit) for digit in range(10)],
        box=(0, 1),
        provenance="UCI optical recognition of handwritten digits, CC BY 4.0, as shipped inside scikit-learn.",
        val=val,
        seed=seed,
    )
