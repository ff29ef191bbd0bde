"""What the folders and words that stand for train, val and test are called."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from buttress.errors import UserError

_ROLES = {
    "train": ("train", "training", "trainval", "trn"),
    "val": ("val", "valid", "validate", "validation", "dev", "development"),
    "test": ("test", "testing", "tst", "holdout", "heldout", "evaluation"),
}
_EITHER = "eval"  # the test, but validation where there is a test as well
_KNOWN = {alias: role for role, aliases in _ROLES.items() for alias in aliases} | {_EITHER: _EITHER}
_FILLING = {"set", "data", "dataset", "split", "images", "image", "imgs", "img", "folder"}


def split_of(name: str, common: Collection[str] = ()) -> str | None:
    """Train, val, test or eval for a name such as Training, VAL, test_set or train2017; None for any other.

    Args:
        name: of a folder, or the value of a column.
        common: words that do not count, as those that all names beside it have.
    """
    words = [word for word in _words(name) if word not in common]
    if len(words) != 1:
        return None
    known = {alias: role for role, aliases in _ROLES.items() for alias in aliases} | {_EITHER: _EITHER}
    word = words[0]
    return next(
        (known[form] for form in (word, word.removesuffix("set"), word.removesuffix("s")) if form in known), None
    )


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z]+", name.casefold()) if word and word not in _FILLING]


def splits_of(names: Iterable[str], where: str) -> dict[str, str]:
    """Those of ``names`` that stand for a split, with the split: train, val or test.

    What all names have in common does not count, as in seg_train and seg_test.

    Args:
        names: of folders, or the values of a column.
        where: what holds them, for the error line.

    Raises:
        UserError: when two of them stand for the same one.
    """
    names = sorted(names)
    common = set.intersection(*(set(_words(name)) - set(_KNOWN) for name in names)) if len(names) > 1 else set()
    found = {name: role for name in names if (role := split_of(name, common)) is not None}
    roles = set(found.values())
    found = {name: ("val" if "test" in roles else "test") if role == _EITHER else role for name, role in found.items()}
    for role in _ROLES:
        same = [name for name in found if found[name] == role]
        if len(same) > 1:
            raise UserError(f"{where}: expected one of {' and '.join(same)}, which both stand for {role}; rename one")
    return found
