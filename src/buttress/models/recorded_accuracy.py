"""What a file of weights says of the network's accuracy, where whoever trained it has written that beside them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from buttress.models.inert_pickle import read_inert

_ACCURACY = re.compile(r"(^|[^a-z])(acc|accuracy|acc1|top1|top_1|prec1)([^a-z]|$)", re.IGNORECASE)
_OTHERS = re.compile(r"train|adv|robust|top.?5|acc5|pgd|attack", re.IGNORECASE)


def recorded_accuracy(path: Path) -> tuple[str, float] | None:
    """The highest accuracy that a file of weights records, and under which name; None where it records none.

    Read are the metadata of a safetensors file and the entries beside the weights of a torch file, such as ``best_acc``
    or ``metrics: {val_accuracy: ...}``; those of training images, of other than the first guess and under attack are
    passed over. A number above 1 is in percent.

    Args:
        path: a file that `load_weights` has read.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                content: Any = file.metadata()
        else:
            content = read_inert(path)
    except Exception:  # a file may be damaged in any way, which is for those to tell who need it
        return None
    found = {name: share for name, value in _entries(content) if (share := _share(value)) is not None}
    return max(found.items(), key=lambda one: one[1], default=None)


def _entries(content: Any, depth: int = 2) -> Iterator[tuple[str, Any]]:
    for name, value in content.items() if isinstance(content, Mapping) else ():
        if isinstance(value, Mapping) and depth > 1:
            yield from _entries(value, depth - 1)
        elif isinstance(name, str) and _ACCURACY.search(name) and not _OTHERS.search(name):
            yield name, value


def _share(value: Any) -> float | None:
    try:
        number = float(value) if not isinstance(value, Tensor) or value.numel() == 1 else math.nan
    except (TypeError, ValueError):
        return None
    share = number / 100 if number > 1 else number
    return share if 0 < share <= 1 else None
