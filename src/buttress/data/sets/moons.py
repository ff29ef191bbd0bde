"""Two interleaved half circles in the plane, the toy problem whose decision boundary can be drawn."""

from __future__ import annotations

import numpy as np

from buttress.data.arrays import as_split
from buttress.data.dataset import Dataset, Split
from buttress.random import derive
from buttress.registry import dataset
from buttress.validation import not_negative, whole


@dataset("moons")
def moons(
    *, samples: int = 1000, val: int | None = None, test: int = 1000, noise: float = 0.2, seed: int = 0
) -> Dataset:
    """Two moons (scikit-learn's ``make_moons``), each split drawn independently of the others; no box.

    Args:
        samples: inputs for training.
        val: inputs for validation; 500 by default.
        test: inputs for the test.
        noise: standard deviation of the Gaussian noise on both coordinates.
        seed: decides all draws.

    Raises:
        UserError: for sizes below 2 or a noise that is negative or not finite.
    """
    sizes = {"train": samples, "val": 500 if val is None else val, "test": test}
    for option, size in (("samples", samples), ("val", sizes["val"]), ("test", test)):
        whole(option, size, 2)
    not_negative("noise", noise)
    first, splits = 0, []
    for part, size in sizes.items():
        splits.append(_draw(size, noise, derive(seed, "moons", part), first))
        first += size
    provenance = f"drawn by scikit-learn's make_moons with noise {noise:g} and seed {seed}."
    return Dataset("moons", splits[0], splits[1], splits[2], ("upper", "lower"), None, provenance)


def _draw(size: int, noise: float, seed: int, first_id: int) -> Split:
    from sklearn.datasets import make_moons

    x, y = make_moons(size, noise=noise, random_state=seed % 2**32)
    return as_split(x.astype(np.float32), y, first_id)
