"""Weights to and from files: safetensors of our own, and torch files of others without running their code."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from buttress.errors import UserError
from buttress.models.wrapping.wrappers import nested
from buttress.tensor_forms import formed_state, plain_state

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
PREFIXES = ("module.", "model.")


def save_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the model's state dict as safetensors.

    The file appears whole or not at all: written beside its place, flushed to the disk, then moved there. A file
    that lies there is replaced.

    Raises:
        UserError: when the name does not end in .safetensors, the state holds more than tensors, or the disk refuses.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UserError(f"weights are written as safetensors: give a name ending in .safetensors; got {path}")
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise UserError(f"{name!r} in the model's state is a {type(value).__name__}: only tensors can be written")
    # A copy each: safetensors refuses tensors that share memory (tied weights).
    plain = plain_state(model.state_dict())
    tensors = {name: value.to("cpu", copy=True).contiguous() for name, value in plain.items()}
    written = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with written.open("wb") as file:
            file.write(save(tensors))
            file.flush()
            os.fsync(file.fileno())
        written.replace(path)
        # The move itself is on the disk only when the folder is; some systems cannot open one.
        with contextlib.suppress(PermissionError):
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            written.unlink(missing_ok=True)


def load_weights(model: nn.Module, path: str | os.PathLike[str], *, strict: bool = True) -> tuple[list[str], list[str]]:
    """Put weights from a file into the model.

    A name ending in .safetensors is read as such, any other file as a torch file with ``weights_only``: a pickle that
    calls code is refused, not run. The weights may lie under ``state_dict``, ``model_state_dict``, ``model`` or
    ``net``, their names may begin with ``module.`` or ``model.``, and weights of the network alone fit into
    ``Normalized`` and the other wrappers of this package. The model is changed only when everything fits.

    Args:
        model: the network; its tensors keep their device and dtype.
        path: the file.
        strict: whether every weight of the model must be in the file and the other way round. Weights of another
            shape are refused in any case, and so is a file of which nothing fits.

    Returns:
        The names that the file lacked and the names that the model has not; both empty when strict.

    Raises:
        UserError: for a file that is missing, corrupt, truncated, unsafe or does not fit, and what does not.
    """
    path = Path(path)
    state = _read(path)
    fits = [_Fit(target, names) for target in nested(model) for names in _renamings(state)]
    best = min(fits, key=lambda fit: fit.wrong)
    if best.reshaped or (best.wrong and (strict or not best.fitting)):
        raise UserError(f"{path} does not fit {type(best.target).__name__}: {best}; create the model as it was trained")
    best.target.load_state_dict(formed_state(best.state, best.target.state_dict()), strict=False)
    return best.missing, best.unexpected


class _Fit:
    """How far a state dict fits a module."""

    def __init__(self, target: nn.Module, state: dict[str, Tensor]) -> None:
        self.target, self.state = target, state
        own = plain_state({name: value for name, value in target.state_dict().items() if isinstance(value, Tensor)})
        # Old checkpoints have no such counters and need none.
        self.missing = [n for n in own if n not in state and not n.endswith("num_batches_tracked")]
        self.unexpected = [n for n in state if n not in own]
        self.reshaped = [
            f"{name} is {_shape(state[name])}, not {_shape(value)}"
            for name, value in own.items()
            if name in state and state[name].shape != value.shape
        ]
        self.fitting = sum(name in own for name in state) - len(self.reshaped)
        self.wrong = len(self.missing) + len(self.unexpected) + len(self.reshaped)

    def __str__(self) -> str:
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": self.reshaped}
        return ", ".join(f"{len(names)} {kind} ({_first(names)})" for kind, names in kinds.items() if names)


def _renamings(state: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The state dict as it is, then with the prefixes taken off that training scripts put before the names."""
    versions = [state]
    for names in versions:
        for prefix in PREFIXES:
            stripped = {name.removeprefix(prefix): value for name, value in names.items()}
            if len(stripped) == len(names) and all(stripped.keys() != other.keys() for other in versions):
                versions.append(stripped)
    return versions


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"there is no file of weights at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about old pickle protocols
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise UserError(f"{path} is no whole safetensors file (corrupt or truncated): {error}") from error
    except Exception as error:  # a damaged pickle can fail in any way
        code = re.search(r"GLOBAL ([\w.]+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if code is None:
            raise UserError(
                f"{path} is no whole torch file of weights: corrupt, truncated, or a plain pickle, which is never run"
            ) from error
        raise UserError(
            f"{path} is a pickle that wants to run code ({code[1]}), which is refused: save the state dict alone"
        ) from error
    return _unwrapped(path, content)


def _unwrapped(path: Path, content: Any) -> dict[str, Tensor]:
    while isinstance(content, dict):
        if content and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
            return plain_state(content)
        wrapper = next((key for key in WRAPPERS if isinstance(content.get(key), dict)), None)
        if wrapper is None:
            raise UserError(
                f"{path} holds no weights: a state dict, or one under {', '.join(WRAPPERS)}, was expected, "
                f"but it holds {_first([str(key) for key in content]) or 'nothing'}"
            )
        content = content[wrapper]
    raise UserError(f"{path} holds a {type(content).__name__}, not a state dict")


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"
