"""A folder of images, one sub-folder for each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from buttress.data.dataset import Dataset, as_split, from_arrays
from buttress.errors import UserError
from buttress.registry import dataset

_GREY_MODES = {"1", "L", "LA"}
_DEEP_MODES = ("I", "F")  # modes of more than 8 bits a channel begin with these


@dataset("folder")
def folder(
    *,
    data_dir: str | Path | None = None,
    val: int | None = None,
    test: int | None = None,
    size: int | tuple[int, int] | None = None,
    seed: int = 0,
) -> Dataset:
    """Images by class: ``PATH/train/<class>/*`` with or without ``PATH/test/<class>/*``, or ``PATH/<class>/*``.

    Whatever Pillow reads, of 8 bits; grey if all are grey, else RGB. Classes are the folders' names, sorted. Where
    there is no test folder, the test is a stratified sample that no seed changes, so that figures of different seeds
    are about the same inputs. Names that begin with a dot are passed over.

    Args:
        data_dir: the folder, PATH above.
        val: inputs split off for validation; a tenth by default, at most 5,000.
        test: inputs for the test where there is no test folder; a tenth by default, at most 10,000.
        size: side, or (height, width), to resize to (bicubic); without it all images must have one size.
        seed: decides which inputs go to val.

    Raises:
        UserError: naming the file or folder, for an unreadable image, sizes that differ, or an empty class.
    """
    if data_dir is None:
        raise UserError("folder: expected a folder of images, got none; ask for folder:PATH or give data_dir")
    root = Path(data_dir)
    train_root = root / "train" if (root / "train").is_dir() else root
    classes = class_names(train_root)
    train_files = image_files(train_root, classes)
    has_test = train_root != root and (root / "test").is_dir()
    if has_test and class_names(root / "test") != classes:
        raise UserError(f"{root / 'test'}: expected the classes of train ({', '.join(classes)}), got other folders")
    if has_test and test is not None:
        raise UserError(f"{root / 'test'}: there is a test folder, so expected no size for the test, got test={test}")
    test_files = image_files(root / "test", classes) if has_test else []
    shape, mode = common_format(train_files + test_files, size)
    x, y = load_images(train_files, shape, mode)
    if has_test:
        held_out = load_images(test_files, shape, mode)
    else:
        rest, sample = as_split(x, y).divide(max(1, min(10_000, round(len(y) / 10))) if test is None else test, seed=0)
        (x, y), held_out = (rest.x.numpy(), rest.y.numpy()), (sample.x.numpy(), sample.y.numpy())
    return from_arrays(
        root.resolve().name,
        (x, y),
        held_out,
        classes=classes,
        box=(0, 1),
        provenance=f"images of the folder {root}, taken as they are.",
        val=val,
        seed=seed,
    )


def class_names(root: Path) -> list[str]:
    """The names of the folders in ``root``, sorted: one for each class.

    Raises:
        UserError: where there are fewer than two.
    """
    if not root.is_dir():
        raise UserError(f"{root}: expected a folder with one folder of images for each class, but there is none")
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(names) < 2:
        raise UserError(f"{root}: expected at least 2 folders, one for each class, got {len(names)}")
    return names


def image_files(root: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    """The files of all classes with their labels, class by class and sorted by name.

    Raises:
        UserError: for a class without files.
    """
    files = []
    for label, name in enumerate(classes):
        paths = sorted(path for path in (root / name).rglob("*") if path.is_file() and not path.name.startswith("."))
        if not paths:
            raise UserError(f"{root / name}: expected at least one image of the class, got an empty folder")
        files += [(path, label) for path in paths]
    return files


def common_format(files: Sequence[tuple[Path, int]], size: int | tuple[int, int] | None) -> tuple[tuple[int, int], str]:
    """The (height, width) and mode that all files are converted to, from their headers."""
    shape = (size, size) if isinstance(size, int) else size
    if shape is not None and min(shape) < 1:
        raise UserError(f"expected a size of at least 1 pixel, got {size}")
    grey, (first, _) = True, files[0]
    for path, _ in files:
        with _open(path) as image:
            image_shape = (image.height, image.width)
            if image.mode.startswith(_DEEP_MODES):
                raise UserError(f"{path}: expected an image of 8 bits a channel, got mode {image.mode!r}; convert it")
            grey = grey and image.mode in _GREY_MODES
        if shape is None:
            shape = image_shape
        elif size is None and image_shape != shape:
            raise UserError(f"{path}: expected size {shape} as of {first}, got {image_shape}; give size= to resize all")
    assert shape is not None
    return shape, "L" if grey else "RGB"


def load_images(
    files: Sequence[tuple[Path, int]], shape: tuple[int, int], mode: str
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, C, H, W) of that (height, width) and mode, and labels (N,).

    Raises:
        UserError: naming the file that is no image.
    """
    height, width = shape
    x = np.empty((len(files), len(mode), height, width), dtype=np.uint8)
    for row, (path, _) in enumerate(files):
        with _open(path) as image:
            try:
                ready = image.convert(mode)
            except (OSError, SyntaxError, ValueError) as error:  # the header was sound, the rest is not
                raise UserError(f"{path}: expected an image, but it cannot be decoded: {error}") from error
        if ready.size != (width, height):
            ready = ready.resize((width, height))
        x[row] = np.asarray(ready).reshape(height, width, -1).transpose(2, 0, 1)
    return x, np.array([label for _, label in files], dtype=np.int64)


def _open(path: Path) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(path)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "its format is not known" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"{path}: expected an image, but it cannot be read: {reason}") from error
