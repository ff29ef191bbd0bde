"""Classes by name or by number, and data without some of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from buttress.data.dataset import Dataset, Split
from buttress.errors import UserError
from buttress.near_names import nearest

ClassName = int | str


def class_indices(names: Sequence[ClassName], classes: Sequence[str]) -> list[int]:
    """Positions of classes given by name or by index; a text that is no name but a number is an index.

    Args:
        names: names or indices.
        classes: the data's names, in the order of the labels.

    Raises:
        UserError: for a class that the data do not have, with the nearest name.
    """
    indices = []
    for name in names:
        if isinstance(name, str) and name in classes:
            indices.append(list(classes).index(name))
            continue
        number = int(name) if isinstance(name, int) or name.isdecimal() else -1
        if isinstance(name, str) and number < 0:
            raise UserError(f"there is no class {name!r}; {nearest(name, list(classes))}")
        if not 0 <= number < len(classes):
            raise UserError(f"classes are numbered 0 to {len(classes) - 1}; got {name!r}")
        indices.append(number)
    return list(dict.fromkeys(indices))


def without_classes(dataset: Dataset, names: Sequence[ClassName]) -> Dataset:
    """The same data set without the inputs of some classes; the labels of the others close the gaps, in their order.

    Inputs keep their ids, so that attacks draw for each what they draw for it in the whole data set.

    Args:
        dataset: one whose truth is a class for each input.
        names: the classes to leave out, by name or by index.

    Raises:
        UserError: for data of another kind, a class that there is not, and where fewer than two classes are left.
    """
    truth = dataset.test.y
    if truth.ndim != 1 or truth.is_floating_point():
        raise UserError(f"classes can be left out of data with one class for each input; {dataset.name} has none")
    removed = set(class_indices(names, dataset.classes))
    kept = [k for k in range(len(dataset.classes)) if k not in removed]
    if len(kept) < 2:
        raise UserError(f"two of the {len(dataset.classes)} classes of {dataset.name} must be left; {len(kept)} would")
    label = torch.full((len(dataset.classes),), -1)
    label[kept] = torch.arange(len(kept))

    def rest(split: Split) -> Split:
        part = split.subset((label[split.y] >= 0).nonzero().flatten())
        return replace(part, y=label[part.y])

    train, val, test = (rest(split) for split in dataset.splits.values())
    return replace(dataset, train=train, val=val, test=test, classes=tuple(dataset.classes[k] for k in kept))
