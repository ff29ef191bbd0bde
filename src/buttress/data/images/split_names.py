"""What the folders and words that stand for train, val and test are called."""

from __future__ import annotations

import re
from collections.abc import Iterable

from buttress.errors import UserError

_ROLES = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validate", "validation", "dev", "development"),
    "test": ("test", "testing", "holdout", "heldout", "evaluation"),
}
_EITHER = "eval"  # the test, but validation where there is a test as well
_FILLING = {"set", "data", "dataset", "split", "images", "image", "imgs", "img", "folder"}


def split_of(name: str) -> str | None:
    """Train, val, test or eval for a name such as Training, VAL, test_set or train2017; None for any other."""
    words = [word for word in re.split(r"[^a-z]+", name.casefold()) if word and word not in _FILLING]
    if len(words) != 1:
        return None
    known = {alias: role for role, aliases in _ROLES.items() for alias in aliases} | {_EITHER: _EITHER}
    return known.get(words[0]) or known.get(words[0].removesuffix("set"))


def splits_of(names: Iterable[str], where: str) -> dict[str, str]:
    """Those of ``names`` that stand for a split, with the split: train, val or test.

    Args:
        names: of folders, or the values of a column.
        where: what holds them, for the error line.

    Raises:
        UserError: when two of them stand for the same one.
    """
    found = {name: role for name in sorted(names) if (role := split_of(name)) is not None}
    roles = set(found.values())
    found = {name: ("val" if "test" in roles else "test") if role == _EITHER else role for name, role in found.items()}
    for role in _ROLES:
        same = [name for name in found if found[name] == role]
        if len(same) > 1:
            raise UserError(f"{where}: expected one of {' and '.join(same)}, which both stand for {role}; rename one")
    return found
