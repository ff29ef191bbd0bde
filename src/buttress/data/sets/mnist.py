"""MNIST and Fashion-MNIST: ten classes of 28x28 grey images, 60,000 for training and 10,000 for the test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from buttress.data.arrays import from_arrays
from buttress.data.checks import check_labels
from buttress.data.dataset import Dataset
from buttress.data.formats.download import cache_folder, fetch
from buttress.data.formats.find_files import candidate_folders, missing_files
from buttress.data.formats.idx import read_idx
from buttress.errors import UserError
from buttress.registry import dataset

FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)

_IMAGES, _LABELS = "{}-images-idx3-ubyte.gz", "{}-labels-idx1-ubyte.gz"
_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_MNIST_MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_FASHION_MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}


@dataset("mnist")
def mnist(*, data_dir: str | Path | None = None, val: int | None = None, seed: int = 0) -> Dataset:
    """MNIST: handwritten digits (LeCun, Bottou, Bengio, Haffner, 1998).

    Args:
        data_dir: a folder that holds the four idx files, or a ``mnist`` folder with them; downloaded otherwise.
        val: inputs split off train for validation; 5,000 by default.
        seed: decides which.
    """
    folders = ("mnist", "MNIST", "MNIST/raw")
    train, test, state = _load("mnist", data_dir, folders, _MNIST, _MNIST_MD5)
    provenance = f"MNIST by LeCun, Cortes and Burges, CC BY-SA 3.0; {state}."
    classes = [str(digit) for digit in range(10)]
    return from_arrays("mnist", train, test, classes=classes, box=(0, 1), provenance=provenance, val=val, seed=seed)


@dataset("fashion-mnist")
def fashion_mnist(*, data_dir: str | Path | None = None, val: int | None = None, seed: int = 0) -> Dataset:
    """Fashion-MNIST: clothes from Zalando's shop (Xiao, Rasul, Vollgraf, 2017).

    Args:
        data_dir: a folder that holds the four idx files, or a ``fashion-mnist`` folder with them; downloaded otherwise.
        val: inputs split off train for validation; 5,000 by default.
        seed: decides which.
    """
    folders = ("fashion-mnist", "FashionMNIST", "FashionMNIST/raw")
    train, test, state = _load("fashion-mnist", data_dir, folders, _FASHION, _FASHION_MD5)
    provenance = f"Fashion-MNIST by Zalando SE, MIT licence; {state}."
    name, classes = "fashion-mnist", FASHION_CLASSES
    return from_arrays(name, train, test, classes=classes, box=(0, 1), provenance=provenance, val=val, seed=seed)


def read_pair(images: Path, labels: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images (N, 1, H, W) and labels (N,) from a pair of idx files.

    Raises:
        UserError: when a file is damaged, they differ in length, or a label is not one of ten classes.
    """
    x, y = read_idx(images, 3), read_idx(labels, 1)
    if len(x) != len(y):
        raise UserError(f"{labels}: expected {len(x)} labels, as many as images in {images.name}, got {len(y)}")
    check_labels(y, 10, str(labels))
    return x[:, None], y


def _load(
    name: str, data_dir: str | Path | None, folders: tuple[str, ...], base: str, md5: Mapping[str, str]
) -> tuple[Any, Any, str]:
    if data_dir is None:
        paths = {file: fetch(base + file, md5[file], cache_folder() / name) for file in md5}
        state = f"downloaded from {base}, published md5 verified"
    else:
        paths = {file: _find(name, data_dir, folders, file) for file in md5}
        state = f"files of {data_dir} taken as they are, no checksum asked"
    train, test = (read_pair(paths[_IMAGES.format(part)], paths[_LABELS.format(part)]) for part in ("train", "t10k"))
    return train, test, state


def _find(name: str, data_dir: str | Path, folders: tuple[str, ...], file: str) -> Path:
    plain = file.removesuffix(".gz")
    dotted = plain.replace("-idx", ".idx")  # the name that some unpackers give
    for folder in candidate_folders(data_dir, folders):
        for spelling in (plain, file, dotted, f"{dotted}.gz"):
            if (folder / spelling).is_file():
                return folder / spelling
    raise missing_files(name, data_dir, f"{plain} or {file}")
