"""fashion-mini: 10,000 images of Fashion-MNIST that come with the package, so that nothing needs the network."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np

from buttress.data.arrays import from_arrays
from buttress.data.dataset import Dataset
from buttress.data.sets.mnist import FASHION_CLASSES
from buttress.errors import UserError
from buttress.registry import dataset

FILE = Path(__file__).parent / "embedded" / "fashion-mini.npz"
SHA256 = "a3e63a64b022d8df738b7333153dcaafdb33130f3e117b35b7f242b43c86a7ed"


@dataset("fashion-mini")
def fashion_mini(*, val: int | None = None, seed: int = 0) -> Dataset:
    """A tenth of Fashion-MNIST, every class equally often: 8,000 for training, 1,000 to validate, 1,000 for the test.

    The first 900 training and the first 100 test images of each class; `scripts/make_fashion_mini.py` makes the file.

    Args:
        val: inputs split off the 9,000 training images for validation; 1,000 by default.
        seed: decides which.

    Raises:
        UserError: when the embedded file is missing or its sha256 is not the one recorded here.
    """
    try:
        raw = FILE.read_bytes()
    except OSError as error:
        raise UserError(
            f"{FILE}: the embedded data set cannot be read ({error.strerror}); install buttress again"
        ) from error
    digest = hashlib.sha256(raw).hexdigest()
    if digest != SHA256:
        raise UserError(f"{FILE}: expected sha256 {SHA256}, got {digest}; the file is damaged, install buttress again")
    with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
        train = arrays["x_train"][:, None], arrays["y_train"]
        test = arrays["x_test"][:, None], arrays["y_test"]
    return from_arrays(
        "fashion-mini",
        train,
        test,
        classes=FASHION_CLASSES,
        box=(0, 1),
        provenance=f"a tenth of Fashion-MNIST by Zalando SE, MIT licence, embedded; sha256 {SHA256} verified.",
        val=1000 if val is None else val,
        seed=seed,
    )
