"""CIFAR-10 and CIFAR-100: 32x32 colour images, 50,000 for training and 10,000 for the test (Krizhevsky, 2009)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from buttress.data.arrays import from_arrays
from buttress.data.augment import Augment
from buttress.data.checks import check_labels
from buttress.data.dataset import Dataset
from buttress.data.formats.download import cache_folder, fetch
from buttress.data.formats.find_files import candidate_folders, missing_files, read_archive, read_folder
from buttress.data.formats.unpickle import read_pickle
from buttress.errors import UserError
from buttress.registry import dataset

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR100_CLASSES = (
    *("apple", "aquarium_fish", "baby", "bear", "beaver"),
    *("bed", "bee", "beetle", "bicycle", "bottle"),
    *("bowl", "boy", "bridge", "bus", "butterfly"),
    *("camel", "can", "castle", "caterpillar", "cattle"),
    *("chair", "chimpanzee", "clock", "cloud", "cockroach"),
    *("couch", "crab", "crocodile", "cup", "dinosaur"),
    *("dolphin", "elephant", "flatfish", "forest", "fox"),
    *("girl", "hamster", "house", "kangaroo", "keyboard"),
    *("lamp", "lawn_mower", "leopard", "lion", "lizard"),
    *("lobster", "man", "maple_tree", "motorcycle", "mountain"),
    *("mouse", "mushroom", "oak_tree", "orange", "orchid"),
    *("otter", "palm_tree", "pear", "pickup_truck", "pine_tree"),
    *("plain", "plate", "poppy", "porcupine", "possum"),
    *("rabbit", "raccoon", "ray", "road", "rocket"),
    *("rose", "sea", "seal", "shark", "shrew"),
    *("skunk", "skyscraper", "snail", "snake", "spider"),
    *("squirrel", "streetcar", "sunflower", "sweet_pepper", "table"),
    *("tank", "telephone", "television", "tiger", "tractor"),
    *("train", "trout", "tulip", "turtle", "wardrobe"),
    *("whale", "willow_tree", "wolf", "woman", "worm"),
)

_BASE = "https://www.cs.toronto.edu/~kriz/"
_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class _Layout:
    """One published form of a data set: its archive, the folder inside, its files (the last is the test)."""

    archive: str
    folder: str
    files: tuple[str, ...]
    labels: int | str  # bytes before each image, of which the last is the label; or the labels' key in the pickle


_CIFAR10 = (
    _Layout(
        "cifar-10-binary.tar.gz",
        "cifar-10-batches-bin",
        (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"),
        1,
    ),
    _Layout(
        "cifar-10-python.tar.gz",
        "cifar-10-batches-py",
        (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"),
        "labels",
    ),
)
_CIFAR100 = (
    _Layout("cifar-100-binary.tar.gz", "cifar-100-binary", ("train.bin", "test.bin"), 2),
    _Layout("cifar-100-python.tar.gz", "cifar-100-python", ("train", "test"), "fine_labels"),
)


@dataset("cifar10")
def cifar10(*, data_dir: str | Path | None = None, val: int | None = None, seed: int = 0) -> Dataset:
    """CIFAR-10: ten classes of animals and vehicles.

    Args:
        data_dir: a folder with the binary or the Python version, as the archive or unpacked; downloaded otherwise.
        val: inputs split off train for validation; 5,000 by default.
        seed: decides which.
    """
    return _cifar("cifar10", _CIFAR10, "c32a1d4ab5d03f1284b67883e8d87530", CIFAR10_CLASSES, data_dir, val, seed)


@dataset("cifar100")
def cifar100(*, data_dir: str | Path | None = None, val: int | None = None, seed: int = 0) -> Dataset:
    """CIFAR-100: a hundred classes (the fine labels).

    Args:
        data_dir: a folder with the binary or the Python version, as the archive or unpacked; downloaded otherwise.
        val: inputs split off train for validation; 5,000 by default.
        seed: decides which.
    """
    return _cifar("cifar100", _CIFAR100, "03b5dce01913d631647c71ecec9e9cb8", CIFAR100_CLASSES, data_dir, val, seed)


def read_binary(raw: bytes, where: str, label_bytes: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images (N, 3, 32, 32) and labels (N,) from a file of the binary version.

    Args:
        raw: the file's content: records of ``label_bytes`` bytes and 3,072 pixels.
        where: the file, for error lines.
        label_bytes: 1 for CIFAR-10, 2 for CIFAR-100 (coarse, then fine: the fine one is taken).

    Raises:
        UserError: when the content is not a whole number of records.
    """
    record = label_bytes + _PIXELS
    if not raw or len(raw) % record:
        raise UserError(f"{where}: expected records of {record} bytes, got {len(raw)} bytes; the file is damaged")
    rows = np.frombuffer(raw, np.uint8).reshape(-1, record)
    return rows[:, label_bytes:].reshape(-1, *_SHAPE), rows[:, label_bytes - 1]


def _cifar(
    name: str,
    layouts: tuple[_Layout, ...],
    md5: str,
    classes: tuple[str, ...],
    data_dir: str | Path | None,
    val: int | None,
    seed: int,
) -> Dataset:
    if data_dir is None:
        layout = layouts[0]
        archive = fetch(_BASE + layout.archive, md5, cache_folder() / name)
        contents: Mapping[str, bytes] = read_archive(archive, layout.files)
        where, state = archive, f"downloaded from {_BASE}, published md5 verified"
    else:
        layout, where, contents = _find(name, layouts, data_dir)
        state = f"files of {data_dir} taken as they are, no checksum asked"
    parts = [_read(contents[file], f"{where / file}", layout, len(classes)) for file in layout.files]
    train = np.concatenate([x for x, _ in parts[:-1]]), np.concatenate([y for _, y in parts[:-1]])
    provenance = f"{name} by Alex Krizhevsky, free for research without a formal licence; {state}."
    return from_arrays(
        name,
        train,
        parts[-1],
        classes=classes,
        box=(0, 1),
        provenance=provenance,
        val=val,
        seed=seed,
        augment=Augment(pad=4, flip=True),
    )


def _find(name: str, layouts: tuple[_Layout, ...], data_dir: str | Path) -> tuple[_Layout, Path, dict[str, bytes]]:
    for layout in layouts:
        for folder in candidate_folders(data_dir, (layout.folder,)):
            contents = read_folder(folder, layout.files)
            if contents is not None:
                return layout, folder, contents
            archive = folder / layout.archive
            if archive.is_file():
                return layout, archive, read_archive(archive, layout.files)
    raise missing_files(name, data_dir, " or ".join(f"{layout.folder}/, {layout.archive}" for layout in layouts))


def _read(raw: bytes, where: str, layout: _Layout, classes: int) -> tuple[NDArray[Any], NDArray[Any]]:
    x: NDArray[Any]
    y: NDArray[Any]
    if isinstance(layout.labels, int):
        x, y = read_binary(raw, where, layout.labels)
    else:
        x, y = read_pickle(raw, where, "data", layout.labels)
        if x.ndim != 2 or x.shape[1] != _PIXELS or y.shape != (len(x),):
            raise UserError(
                f"{where}: expected 'data' of shape (N, {_PIXELS}) and N labels, got {x.shape} and {y.shape}"
            )
        x = x.reshape(-1, *_SHAPE)
    check_labels(y, classes, where)
    return x, y
