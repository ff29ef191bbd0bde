"""Many groups as one safetensors file, written part by part: no more than one group is ever in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from buttress.audits.base.evaluation.groups import Group, tensors_of
from buttress.safe_files import sync

_DTYPES = {torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.uint8: "U8"}


def save_file(path: Path, groups: Iterable[Group], count: int, names: Sequence[str]) -> None:
    """Write some tensors of all groups, each joined along its rows; the file appears whole or not at all.

    The format is that of safetensors: the header's length in 8 bytes, a header of names, types, shapes and places, and
    the values, those of wide types first so that all lie at multiples of their size.

    Args:
        path: of the file.
        groups: in order, at least one; read once.
        count: inputs in all groups.
        names: which of `tensors_of` are kept.
    """
    beside = path.with_name(f".{path.name}.tmp")
    groups = iter(groups)
    first = next(groups)
    try:
        with beside.open("wb") as file:
            header, places = _header({name: tensors_of(first)[name] for name in names}, count)
            file.write(header)
            for group in chain([first], groups):
                tensors = tensors_of(group)
                for name in names:
                    raw = tensors[name].numpy().tobytes()
                    file.seek(len(header) + places[name])
                    file.write(raw)
                    places[name] += len(raw)
        sync(beside)
        os.replace(beside, path)
        sync(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def _header(tensors: dict[str, Tensor], count: int) -> tuple[bytes, dict[str, int]]:
    """The bytes before the values, and where the values of each tensor begin behind them."""
    entries: dict[str, object] = {}
    places: dict[str, int] = {}
    end = 0
    for name in sorted(tensors, key=lambda name: (-tensors[name].element_size(), name)):
        value = tensors[name]
        places[name], start = end, end
        end += count * value[0].numel() * value.element_size()
        shape = [count, *value.shape[1:]]
        entries[name] = {"dtype": _DTYPES[value.dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, places
