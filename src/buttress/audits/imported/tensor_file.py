"""Adversarial examples from files of others: tensors and nothing else, no code is run."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from buttress.errors import UserError

_SUFFIXES = (".safetensors", ".pt", ".pth", ".npz", ".npy")
# The names that common tools write.
_EXAMPLES, _LABELS, _IDS = ("x_adv", "adv_inputs", "adv_complete", "adv"), ("y", "labels"), ("ids",)


@dataclass(frozen=True)
class Examples:
    """What a file holds.

    Attributes:
        x_adv: (N, ...) floats.
        ids: (N,) int64, whose they are, or None.
        y: (N,) int64 labels, or None.
        eight_bit: whether all values are levels of an 8-bit image.
    """

    x_adv: Tensor
    ids: Tensor | None
    y: Tensor | None
    eight_bit: bool


def read(file: str | Path) -> Examples:
    """Adversarial examples from a .safetensors, .pt, .pth, .npz or .npy file.

    They are called x_adv (or adv_inputs, adv_complete, adv), with them may be ids and y (or labels); a single tensor
    is x_adv.

    Raises:
        UserError: for a file that is missing, damaged, unsafe, or holds something else.
    """
    path = Path(file)
    if path.suffix not in _SUFFIXES:
        raise UserError(f"examples are read from {', '.join(_SUFFIXES)}; got {path}")
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        content = _load(path)
        entries = {str(k): _plain(v) for k, v in content.items() if isinstance(v, Tensor | np.ndarray)}
    except pickle.UnpicklingError:
        raise UserError(f"{path} holds more than tensors, which could run code: save a dict of tensors") from None
    except Exception as error:  # a damaged file makes its reader raise anything
        reason = str(error).partition("\n")[0]
        readable = isinstance(error, SafetensorError | OSError | RuntimeError | ValueError)
        if not reason or "pickle" in reason or not readable:  # advice that is unsafe, or no sentence
            reason = "damaged, or no file of plain tensors"
        raise UserError(f"{path} cannot be read ({reason})") from None
    x_adv = _entry(entries, _EXAMPLES)
    if x_adv is None or x_adv.dim() < 2 or not (x_adv.is_floating_point() or x_adv.dtype == torch.uint8):
        names = ", ".join(f"{name} {tuple(v.shape)} {v.dtype}".replace("torch.", "") for name, v in entries.items())
        raise UserError(f"{path} needs x_adv, (N, ...) floats or uint8; it holds {names or 'no tensors'}")
    ids, y = _entry(entries, _IDS), _entry(entries, _LABELS)
    for name, values in (("ids", ids), ("y", y)):
        if values is not None and (values.is_floating_point() or values.shape != x_adv.shape[:1]):
            raise UserError(f"{path} needs {name} as {len(x_adv)} whole numbers; got {tuple(values.shape)}")
    eight_bit = x_adv.dtype == torch.uint8
    x_adv = x_adv.float().div(255) if eight_bit else x_adv
    return Examples(
        x_adv,
        None if ids is None else ids.long(),
        None if y is None else y.long(),
        eight_bit or _on_levels(x_adv),
    )


def _load(path: Path) -> Mapping[Any, Any]:
    if path.suffix == ".safetensors":
        return load_file(path)
    if path.suffix in (".pt", ".pth"):
        content = torch.load(path, weights_only=True, map_location="cpu")
    else:
        with path.open("rb") as handle:  # numpy leaves a broken file open
            content = np.load(handle, allow_pickle=False)
            if path.suffix == ".npz":
                return dict(content)
    return content if isinstance(content, Mapping) else {"x_adv": content}


def _plain(value: Any) -> Tensor:
    return torch.as_tensor(value).to_dense()


def _entry(entries: Mapping[str, Tensor], names: tuple[str, ...]) -> Tensor | None:
    return next((entries[name] for name in names if name in entries), None)


def _on_levels(x: Tensor) -> bool:
    """Whether floats are levels / 255 throughout, as after a detour through an image file."""
    levels = x.double() * 255
    return x.numel() > 0 and bool((levels - levels.round()).abs().max() < 1e-3)
