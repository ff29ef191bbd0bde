"""A folder of images, one sub-folder for each class, or a table of labels beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from buttress.data.dataset import Dataset
from buttress.data.images.labelled_images import labelled_images
from buttress.data.images.layout import read_layout
from buttress.errors import UserError
from buttress.registry import dataset


@dataset("folder")
def folder(
    *,
    data_dir: str | Path | None = None,
    classes: Sequence[str] | None = None,
    labels: str | Path | None = None,
    val: int | None = None,
    test: int | None = None,
    test_only: bool = False,
    size: int | tuple[int, int] | None = None,
    crop: bool = False,
    skip_broken: bool = False,
    seed: int = 0,
) -> Dataset:
    """Images by class: ``PATH/train/<class>/*`` and the like, ``PATH/<class>/*``, or a table of labels.

    Folders that are called train, val or test, or mean that (training, valid, dev, eval, testing, in any case), are
    used as what they are. Where there is no test, it is a stratified sample that no seed changes, so that figures of
    different seeds are about the same inputs; where there is val alone, it is both. ``Dataset.notes`` says what was
    used as what.

    Whatever Pillow reads of 8 bits, upright as EXIF says, the first frame, without transparency; grey if all are grey,
    else RGB. Hidden files and what is no image are passed over. Images of any depth below a class's folder are its own.

    They are decoded once where all of them take no more than half of the free memory; else whenever they are needed, by
    several processes where a network is trained. No figure depends on that.

    Args:
        data_dir: the folder, PATH above.
        classes: the network's classes in its order: names, a file of them, their number, or ``text-order``; by default
            the folders' names, sorted, numbers by their value. See `read_class_file` for the forms of files.
        labels: a table of labels (CSV, TSV, JSON, JSON lines) with columns such as file, label and split.
        val: inputs split off for validation where there are none; a tenth by default, at most 5,000.
        test: inputs for the test where there are none; a tenth by default, at most 10,000.
        test_only: whether nothing is split off for training, as the network is trained already.
        size: side, or (height, width), to resize to (bicubic); without it all images must have one size.
        crop: whether resizing keeps proportions, and cuts out the middle.
        skip_broken: whether files that cannot be decoded are passed over; else they are refused.
        seed: decides which inputs go to val.

    Raises:
        UserError: naming the file or folder, for an unreadable image, sizes that differ, or an empty class.
    """
    if data_dir is None:
        raise UserError("folder: expected a folder of images, got none; ask for folder:PATH or give data_dir")
    root = Path(data_dir)
    layout = read_layout(root, None if labels is None else Path(labels), classes or ())
    return labelled_images(
        layout,
        root,
        classes=classes,
        val=val,
        test=test,
        test_only=test_only,
        size=size,
        crop=crop,
        skip_broken=skip_broken,
        seed=seed,
    )
