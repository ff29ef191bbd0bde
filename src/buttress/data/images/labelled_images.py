"""A data set of images that were found with the names of their classes, in files or in archives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from buttress.data.dataset import Dataset, Split
from buttress.data.images.class_list import ClassList, class_list
from buttress.data.images.decode import common_format
from buttress.data.images.image_file import FileTable
from buttress.data.images.image_inputs import Inputs, image_inputs
from buttress.data.images.layout import Labelled, Layout
from buttress.data.images.split_names import split_of
from buttress.data.images.splits import Splits
from buttress.errors import UserError


def labelled_images(
    layout: Layout,
    root: Path,
    *,
    classes: Sequence[str] | None,
    val: int | None,
    test: int | None,
    test_only: bool,
    size: int | tuple[int, int] | None,
    crop: bool,
    skip_broken: bool,
    seed: int,
) -> Dataset:
    """The data set of a layout; settings as of the data set ``folder``.

    Raises:
        UserError: naming the file or folder.
    """
    for option, value in (("test_only", test_only), ("crop", crop), ("skip_broken", skip_broken)):
        if not isinstance(value, bool):
            raise UserError(f"{option}: expected true or false, got {value!r}")
    layout = layout.without_broken() if skip_broken else layout
    known = class_list(_names(layout.parts, classes, root), classes, str(root))
    splits = Splits.of_layout(layout, root, test_only=test_only, val=val, test=test, seed=seed)
    form = common_format([path for path, _ in _all_of(splits)], size, crop=crop)
    found = [splits.train, [] if splits.val is splits.test else splits.val, splits.test]
    inputs, decoding = image_inputs([FileTable([path for path, _ in rows]) for rows in found], form)
    train, validation, held_out = _labelled(splits, known, inputs)
    sizes = {"train": len(train), "val": len(validation), "test": len(held_out)}
    used = ", ".join(f"{part} {size} from {splits.places[part]}" for part, size in sizes.items() if size)
    return Dataset(
        _name(root.resolve()),
        train,
        validation,
        held_out,
        known.names,
        (0, 1),
        f"images of the folder {root}: {used}.",
        ordered=known.given,
        notes=tuple(filter(None, (*layout.notes, *splits.notes, *form.notes, decoding, known.note))),
    )


def _name(root: Path) -> str:
    """The folder's name; with the one above where it only says which split this is."""
    return root.name if split_of(root.name) is None else f"{root.parent.name}/{root.name}"


def _names(parts: dict[str, Labelled], given: Sequence[str] | None, root: Path) -> list[str]:
    """The names of classes that images are found under.

    Raises:
        UserError: where there are fewer than two, or the test has others than train, and no list is given.
    """
    names = {part: {name for _, name in files} for part, files in parts.items()}
    together = set().union(*names.values())
    if given is not None:
        return sorted(together)
    if len(together) < 2:
        raise UserError(f"{root}: expected at least 2 folders, one for each class, got {len(together)}; see --classes")
    for part, others in names.items():
        if "train" in names and (new := sorted(others - names["train"])):
            expected = ", ".join(sorted(names["train"])[:10])
            raise UserError(f"{root}, {part}: expected the classes of train ({expected}), got {', '.join(new[:5])}")
    return sorted(together)


def _all_of(splits: Splits) -> Labelled:
    return [*splits.train, *(splits.val if splits.val is not splits.test else []), *splits.test]


def _labelled(splits: Splits, known: ClassList, inputs: Sequence[Inputs]) -> tuple[Split, Split, Split]:
    """The splits with labels; ids are positions: train and val as they were found together, then the test."""
    train, val, test = splits.train, splits.val, splits.test
    order = {path: row for row, (path, _) in enumerate(sorted([*train, *val]))}
    parts: list[Split] = []
    for part, rows, x in zip(("train", "val", "test"), (train, val, test), inputs, strict=True):
        ids = [len(order) + row if part == "test" else order[path] for row, (path, _) in enumerate(rows)]
        y = [known.labels[name] for _, name in rows]
        if part == "val" and val is test:
            x = inputs[2]
        parts.append(Split(x, torch.tensor(y, dtype=torch.int64), torch.tensor(ids, dtype=torch.int64)))
    return parts[0], parts[1], parts[2]
