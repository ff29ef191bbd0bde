"""STL-10: ten classes of 96x96 colour images, 5,000 for training and 8,000 for the test (Coates et al., 2011)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from buttress.data.arrays import from_arrays
from buttress.data.augment import Augment
from buttress.data.checks import check_labels
from buttress.data.dataset import Dataset
from buttress.data.formats.download import cache_folder, fetch
from buttress.data.formats.find_files import candidate_folders, missing_files, read_archive, read_folder
from buttress.errors import UserError
from buttress.registry import dataset

CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")

_BASE = "http://ai.stanford.edu/~acoates/stl10/"
_MD5 = {"stl10_binary.tar.gz": "91f7769df0f17e558f3565bffb0c7dfb"}
_FOLDER = "stl10_binary"
_FILES = ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin")
_SIDE = 96


@dataset("stl10")
def stl10(*, data_dir: str | Path | None = None, val: int | None = None, seed: int = 0) -> Dataset:
    """STL-10 by Coates, Ng and Lee (AISTATS 2011): its labelled images; those without labels are left out.

    Args:
        data_dir: a folder with the binary version, as the archive or unpacked; downloaded otherwise (2.6 GB, of which
            most are images without labels).
        val: inputs split off train for validation; 500 by default.
        seed: decides which.
    """
    if data_dir is None:
        ((file, md5),) = _MD5.items()
        where = fetch(_BASE + file, md5, cache_folder() / "stl10")
        contents = read_archive(where, _FILES)
        state = f"downloaded from {_BASE}, published md5 verified"
    else:
        where, contents = _find(data_dir)
        state = f"files of {data_dir} taken as they are, no checksum asked"
    parts = [
        read_binary(contents[f"{part}_X.bin"], contents[f"{part}_y.bin"], f"{where}, {part}")
        for part in ("train", "test")
    ]
    return from_arrays(
        "stl10",
        *parts,
        classes=CLASSES,
        box=(0, 1),
        provenance=f"STL-10 by Coates et al., images of ImageNet, for research only; {state}.",
        val=val,
        seed=seed,
        augment=Augment(pad=12, flip=True),
    )


def read_binary(images: bytes, labels: bytes, where: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, 3, 96, 96) and labels (N,) from 0, of files with each channel column by column and labels from 1.

    Args:
        images: one file's content.
        labels: that of the other, a byte for each image.
        where: the files, for error lines.

    Raises:
        UserError: when they are not so many whole images, or a label is none.
    """
    size = 3 * _SIDE * _SIDE
    if not images or len(images) != size * len(labels):
        raise UserError(
            f"{where}: expected {size} bytes for each of {len(labels)} labels, got {len(images)}; the files are damaged"
        )
    x = np.frombuffer(images, np.uint8).reshape(-1, 3, _SIDE, _SIDE).transpose(0, 1, 3, 2)
    y = np.frombuffer(labels, np.uint8).astype(np.int64) - 1
    check_labels(y, len(CLASSES), where)
    return np.ascontiguousarray(x), y


def _find(data_dir: str | Path) -> tuple[Path, dict[str, bytes]]:
    (archive,) = _MD5
    for folder in candidate_folders(data_dir, (_FOLDER,)):
        contents = read_folder(folder, _FILES)
        if contents is not None:
            return folder, contents
        if (folder / archive).is_file():
            return folder / archive, read_archive(folder / archive, _FILES)
    raise missing_files("stl10", data_dir, f"{_FOLDER}/, {archive}")
