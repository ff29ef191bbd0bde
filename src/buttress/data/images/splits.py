"""Which of the images that were found are train, val and test, and what is to be said of that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from buttress.data.arrays import default_val_size
from buttress.data.images.duplicates import repeated
from buttress.data.images.layout import WHOLE, Labelled, Layout
from buttress.data.images.split_names import split_of
from buttress.data.stratified import divided_index
from buttress.errors import UserError
from buttress.validation import whole


@dataclass
class Splits:
    """Images by split.

    Attributes:
        train: empty where all images are the test.
        val: empty where nothing is chosen; the images of the test where these are all that there are besides train.
        test: never empty.
        places: the folder, or the word of a table, that the images of each split are from.
        notes: sentences on how they were told apart.
    """

    train: Labelled
    val: Labelled
    test: Labelled
    places: dict[str, str]
    notes: list[str]

    @classmethod
    def of_layout(
        cls, layout: Layout, root: Path, *, test_only: bool, val: int | None, test: int | None, seed: int
    ) -> Splits:
        """The splits of a folder.

        Args:
            layout: what is in it.
            root: the folder, for sentences.
            test_only: whether the network is trained already: without a test all else that was not trained on is one.
            val: images to split off for validation, where there are none.
            test: images to split off for the test, where there are none.
            seed: decides which images go to val; the test is the same for every seed.

        Raises:
            UserError: for sizes of splits that there are already, and where there is nothing to train on.
        """
        for part, count in (("val", val), ("test", test)):
            if count is not None:
                whole(part, count)
            if layout.parts.get(part) and count is not None:
                place = root / layout.places[part]
                raise UserError(
                    f"{place}: there are {part} images, so expected no size for the {part}, got {part}={count}"
                )
        if test_only:
            if val is not None or test is not None:
                raise UserError("nothing is split off for a network that is trained already: leave val and test out")
            splits = _of_trained(layout, root)
        else:
            splits = _for_training(layout, root, val, test, seed)
        if not splits.test:
            raise UserError(f"{root}: expected images for the test, got none")
        splits._tell_repeated()
        return splits

    def _tell_repeated(self) -> None:
        test = [path for path, _ in self.test]
        for name, part in (("train", self.train), ("val", self.val)):
            if part is self.test or not (again := repeated(test, (path for path, _ in part))):
                continue
            self.notes.append(
                f"{len(again)} of {len(test)} test images are in {name} as well, with the same bytes, such as "
                f"{again[0]}: figures on them say nothing of new images"
            )


def _of_trained(layout: Layout, root: Path) -> Splits:
    """The splits for a network that is trained already: nothing is lost to training or validation."""
    parts, places = layout.parts, layout.places
    if WHOLE in parts:
        whole = parts[WHOLE]
        notes = [f"all {len(whole)} images of {root} are the test"]
        if split_of(root.resolve().name) == "train":
            notes.append(_SEEN.format(place=root))
        return Splits([], [], whole, {"test": places[WHOLE]}, notes)
    train, val, test = (parts.get(part, []) for part in ("train", "val", "test"))
    if test:
        return Splits(train, val, test, dict(places), [])
    if val:
        note = (
            f"{root} has no test images: those of {places['val']} are the test; if the network was chosen on them, "
            "figures are a little too good"
        )
        return Splits(train, [], val, places | {"test": places["val"]}, [note])
    notes = [f"{root} has train images alone", _SEEN.format(place=root / places.get("train", ""))]
    return Splits([], [], train, {"test": places.get("train", "")}, notes)


_SEEN = "the images of {place} are the test; if the network was trained on them, figures say nothing of new images"


def _for_training(layout: Layout, root: Path, val: int | None, test: int | None, seed: int) -> Splits:
    parts, places = layout.parts, layout.places
    train = parts.get("train") or parts.get(WHOLE, [])
    if not train:
        raise UserError(
            f"{root}: expected train images beside {' and '.join(places.values())}, got none; for a network that is "
            "trained already, audit it on them (in Python: test_only=True)"
        )
    notes: list[str] = []
    own = places.get("train") or places[WHOLE]
    places = {"train": own, "val": own, "test": own} | places
    val_images, test_images = parts.get("val", []), parts.get("test", [])
    if val_images and not test_images and test is None:
        notes.append(
            f"{root} has no test images: those of {places['val']} are for validation and for the test, "
            "so that figures may be a little too good"
        )
        return Splits(train, val_images, val_images, places | {"test": places["val"]}, notes)
    if not test_images:
        count = max(1, min(10_000, round(len(train) / 10))) if test is None else test
        train, test_images = _divided(train, count, 0)
        notes.append(
            f"{root} has no test images: {count} are set aside for the test; a network that was trained on this folder "
            "elsewhere may have seen them"
        )
    if not val_images:
        count = default_val_size(len(train)) if val is None else val
        train, val_images = _divided(train, count, seed)
        notes.append(f"{root} has no validation images: {count} are split off train")
    return Splits(train, val_images, test_images, places, notes)


def _divided(files: Labelled, count: int, seed: int) -> tuple[Labelled, Labelled]:
    names = sorted({name for _, name in files})
    labels = torch.tensor([names.index(name) for _, name in files])
    rest, chosen = divided_index(labels, count, seed)
    return [files[i] for i in rest.tolist()], [files[i] for i in chosen.tolist()]
