"""SVHN: house numbers from street views, 32x32 colour crops, 73,257 for training and 26,032 for the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from buttress.data.arrays import from_arrays
from buttress.data.augment import Augment
from buttress.data.checks import check_labels
from buttress.data.dataset import Dataset
from buttress.data.formats.download import cache_folder, fetch
from buttress.data.formats.find_files import candidate_folders, missing_files
from buttress.errors import UserError
from buttress.registry import dataset

_BASE = "http://ufldl.stanford.edu/housenumbers/"
_MD5 = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}


@dataset("svhn")
def svhn(*, data_dir: str | Path | None = None, val: int | None = None, seed: int = 0) -> Dataset:
    """Street View House Numbers, cropped digits (Netzer et al., 2011). Digits are not mirrored in training.

    Args:
        data_dir: a folder that holds train_32x32.mat and test_32x32.mat, or a ``svhn`` folder with them; downloaded
            otherwise.
        val: inputs split off train for validation; 5,000 by default.
        seed: decides which.
    """
    if data_dir is None:
        paths = [fetch(_BASE + file, md5, cache_folder() / "svhn") for file, md5 in _MD5.items()]
        state = f"downloaded from {_BASE}, published md5 verified"
    else:
        paths = [_find(data_dir, file) for file in _MD5]
        state = f"files of {data_dir} taken as they are, no checksum asked"
    train, test = (read_mat(path) for path in paths)
    return from_arrays(
        "svhn",
        train,
        test,
        classes=[str(digit) for digit in range(10)],
        box=(0, 1),
        provenance=f"SVHN by Netzer et al., for non-commercial use only; {state}.",
        val=val,
        seed=seed,
        augment=Augment(pad=4, flip=False),
    )


def read_mat(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, 3, H, W) and labels (N,) from a MATLAB file with X (H, W, 3, N) and y (N, 1), where 10 means digit 0.

    Raises:
        UserError: naming the file, when it is damaged or holds something else.
    """
    from scipy.io import loadmat

    try:
        content: dict[str, Any] = loadmat(path, variable_names=["X", "y"])
    except Exception as error:  # scipy lets errors of every layer through: struct, zlib, OSError, its own
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: expected a MATLAB file with X and y, but it cannot be read: {reason}") from error
    if not {"X", "y"} <= content.keys():
        raise UserError(f"{path}: expected the variables X and y, got a file without them")
    x, y = content["X"], content["y"].ravel()
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[2] != 3 or len(y) != x.shape[3]:
        raise UserError(f"{path}: expected uint8 X (H, W, 3, N) and N labels, got {x.dtype} {x.shape} and {len(y)}")
    labels = y.astype(np.int64)
    labels[labels == 10] = 0
    check_labels(labels, 10, str(path))
    return x.transpose(3, 2, 0, 1), labels


def _find(data_dir: str | Path, file: str) -> Path:
    for folder in candidate_folders(data_dir, ("svhn", "SVHN")):
        if (folder / file).is_file():
            return folder / file
    raise missing_files("svhn", data_dir, file)
