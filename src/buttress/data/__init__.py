"""Data sets: registered ones, a folder of images, or whatever a function of the user's returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from buttress import registry
from buttress.data.arrays import from_arrays
from buttress.data.augment import Augment
from buttress.data.class_names import without_classes
from buttress.data.dataset import Dataset, Split
from buttress.data.from_function import dataset_from
from buttress.errors import UserError
from buttress.tasks import Task, classification

__all__ = ["Augment", "Dataset", "Split", "from_arrays", "load", "names", "without_classes"]


def load(
    name: str,
    *,
    data_dir: str | Path | None = None,
    val: int | None = None,
    seed: int = 0,
    limit: int | None = None,
    task: Task = classification,
    test_only: bool = False,
    **options: Any,
) -> Dataset:
    """A data set by name, always with train, val and test.

    Only a published data set that is named without ``data_dir`` is downloaded.

    Args:
        name: a registered name (see `names`), ``folder:PATH`` for images by class, or ``package.module:function`` or
            ``file.py:function`` for a function that returns a `Dataset`, ``((x, y), (x_test, y_test))`` arrays, or
            torch data sets, loaders and the like as ``(train, test)``, ``(train, val, test)`` or a dict of them; with
            ``test_only`` also one of these alone, or ``(x, y)``.
        data_dir: a folder that has the original files already; they are used as they are.
        val: inputs split off train for validation; the data set's own default without it.
        seed: decides that split, the sample of ``limit``, and what a synthetic data set draws.
        limit: at most so many inputs in each split, classes in proportion.
        task: what the data are for, which decides whether a function's integers are classes or values.
        test_only: whether a network is trained already, so that nothing is set aside for training, and a folder, or
            what a function returns, may be a test alone.
        options: what else the data set takes, such as ``noise`` for moons.

    Raises:
        UserError: for an unknown name or option, and for data that are missing, damaged or out of range.
    """
    if name.startswith("folder:"):
        if data_dir is not None:
            raise UserError(f"{name!r} names its folder, so expected no data_dir, got {str(data_dir)!r}")
        name, data_dir = "folder", name.removeprefix("folder:")
    arguments = options if data_dir is None else {"data_dir": data_dir, **options}
    data = dataset_from(name, registry.dataset.get(name), seed, val, arguments, task, test_only=test_only)
    return data if limit is None else data.limited(limit, seed)


def names() -> list[str]:
    """The registered data sets' names, sorted."""
    return registry.dataset.names()
