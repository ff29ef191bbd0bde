"""WebDataset shards: images and labels in tar archives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from buttress.data.dataset import Dataset
from buttress.data.images.labelled_images import labelled_images
from buttress.data.images.shards import read_shards
from buttress.errors import UserError
from buttress.registry import dataset


@dataset("webdataset")
def webdataset(
    *,
    data_dir: str | Path | None = None,
    label: str = "cls",
    classes: Sequence[str] | None = None,
    val: int | None = None,
    test: int | None = None,
    test_only: bool = False,
    size: int | tuple[int, int] | None = None,
    crop: bool = False,
    skip_broken: bool = False,
    seed: int = 0,
) -> Dataset:
    """Images in ``PATH/train-000000.tar`` and the like, or ``PATH/train/*.tar``, as the webdataset package writes them.

    The headers of the archives are read once, by Python's own tarfile; from then on images are read by their place, so
    that their order, and what depends on it, is as reproducible as of a folder. Splits, sizes and what is held in
    memory are those of the data set ``folder``, see there. Archives are local, and not compressed.

    Args:
        data_dir: the folder, PATH above, or one archive.
        label: the member with an example's label: ``cls``, or of JSON with a key, ``json:label``.
        classes: the network's classes in its order, as of ``folder``. Without it labels that are numbers are the
            network's own, and names are in the order of text.
        val: images split off for validation where there are none.
        test: images for the test where there are none.
        test_only: whether nothing is split off for training, as the network is trained already.
        size: side, or (height, width), to resize to (bicubic); without it all images must have one size.
        crop: whether resizing keeps proportions, and cuts out the middle.
        skip_broken: whether images that cannot be decoded are passed over; else they are refused.
        seed: decides which images go to val.

    Raises:
        UserError: naming the archive, for one that cannot be read, and as ``folder``.
    """
    if data_dir is None:
        raise UserError("webdataset: expected a folder of tar archives, got none; give its folder (--data-dir)")
    root = Path(data_dir)
    if not root.exists():
        raise UserError(f"{root}: expected a folder of tar archives, but there is none")
    layout = read_shards(root, label)
    found = {name for rows in layout.parts.values() for _, name in rows}
    if classes is None and all(name.isdecimal() for name in found):
        classes = [str(max(2, 1 + max(map(int, found))))]
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
