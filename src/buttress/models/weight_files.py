"""Every tensor in a file of weights, by where it lies in it: safetensors, torch and NumPy files, whole or in shards."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from buttress.errors import UserError
from buttress.models.inert_pickle import Inert, read_inert
from buttress.models.weight_formats import format_of, refuse_folder
from buttress.plain_data import read_json
from buttress.tensor_forms import parts

_IN_FOLDERS = (
    *("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"),
    *("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json"),
)
_Found = tuple[str, str, Tensor]
_MODULE = {"_modules", "_parameters", "_buffers"}  # in the state of every pickled torch module


@dataclass(frozen=True)
class Contents:
    """The tensors of a file.

    Attributes:
        path: the file.
        tensors: by where they lie, keys and positions joined by dots, as in "state_dict.fc.weight".
        places: of each where the mapping or module lies that holds it: "state_dict".
    """

    path: Path
    tensors: dict[str, Tensor]
    places: dict[str, str]

    def under(self, key: str) -> Contents:
        """What lies under a key.

        Raises:
            UserError: where nothing does, with what there is.
        """
        chosen = {name: value for name, value in self.tensors.items() if f"{name}.".startswith(f"{key}.")}
        if not chosen:
            there = ", ".join(repr(place) for place in sorted(set(self.places.values()))[:6] if place)
            what = f"; weights are under {there}" if there else ""
            raise UserError(f"{self.path} has no tensors under {key!r}{what}")
        return Contents(self.path, chosen, {name: self.places[name] for name in chosen})


def read_weights(path: Path) -> Contents:
    """All tensors in a file, or in a folder in which Hugging Face's libraries or a run of buttress keep weights.

    Of a torch file no code is run (`read_inert`); of a pickled module the parameters and buffers are taken. Arrays of
    NumPy count as tensors.

    Raises:
        UserError: for a file that is missing, corrupt, truncated or unsafe, or holds no tensor.
    """
    if path.is_dir():
        inside = [path / name for name in _IN_FOLDERS if (path / name).is_file()]
        if not inside:
            refuse_folder(path)
        path = inside[0]
    if not path.is_file():
        raise UserError(f"there is no file of weights at {path}")
    content = _read(path)
    found = list(_walk(content, "", "", ()))
    if not found:
        keys = _first([str(key) for key in content]) if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise UserError(
            f"{path} holds no weights: a state dict was expected, under whatever keys, but it holds {keys or 'nothing'}"
        )
    return Contents(path, {name: value for name, _, value in found}, {name: place for name, place, _ in found})


def _read(path: Path) -> Any:
    try:
        if path.name.endswith(".index.json"):
            return _shards(path)
        kind = format_of(path)
        if kind == "safetensors":
            return load_file(path)
        if kind == "npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {name.replace("/", "."): array for name, array in arrays.items()}
        return read_inert(path)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise UserError(f"{path} is no whole safetensors file (corrupt or truncated): {error}") from error
    except Exception as error:  # a damaged pickle can fail in any way
        raise UserError(_told(path, error)) from error


def _told(path: Path, error: Exception) -> str:
    """The line for what kept a torch or NumPy file from being read."""
    if "TorchScript" in str(error):
        return (
            f"{path} is a TorchScript program: save its weights alone, torch.save(torch.jit.load({path.name!r})"
            ".state_dict(), 'weights.pt')"
        )
    if "Only persistent_load of storage is allowed" in str(error):
        return (
            f"{path} is a whole network as torch before 1.6 pickled it, which cannot be read without running its code: "
            f"if you trust it, type in Python, where its classes can be imported, torch.save(torch.load({path.name!r}, "
            "weights_only=False).state_dict(), 'weights.pt') and give that file"
        )
    code = re.search(r"GLOBAL ([\w.]+)|got <class '([\w.<>]+)'>", str(error))
    if isinstance(error, pickle.UnpicklingError) and code is not None:
        what = code[1] or code[2]
        return f"{path} is a pickle that wants to run code ({what}), which is refused: save the state dict alone"
    if zipfile.is_zipfile(path) and path.suffix == ".npz":
        return f"{path} is no file of arrays alone: {error}"
    return f"{path} is no whole torch file of weights: corrupt, truncated, or a plain pickle, which is never run"


def _shards(path: Path) -> dict[str, Tensor]:
    """The tensors that an index spreads over files beside it."""
    try:
        where = read_json(path.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(where.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no index of weights: a JSON file with a weight_map was expected") from error
    tensors: dict[str, Tensor] = {}
    for name in files:
        file = path.parent / str(name)
        if not file.is_file():
            raise UserError(f"{path} names {name}, and there is no {file}")
        content = _read(file)
        tensors |= content if isinstance(content, dict) else {}
    missing = [name for name in where if name not in tensors]
    if missing:
        raise UserError(f"{path} names {_first(missing)}, which its files do not hold")
    return tensors


def _walk(thing: Any, name: str, place: str, above: tuple[int, ...], inside: bool = False) -> Iterator[_Found]:
    """Name, place and tensor of all tensors in a thing; what holds itself is not followed round.

    Args:
        thing: what may hold tensors.
        name: where it lies.
        place: where the mapping or the outermost module lies that holds it.
        above: identities of what holds it.
        inside: whether that is a module.
    """
    if isinstance(thing, np.ndarray) and thing.dtype.kind in "fiub":
        thing = torch.from_numpy(np.array(thing))
    if isinstance(thing, Tensor):
        for part, tensor in parts(thing.detach()).items():
            yield f"{name}.{part}" if part else name, place, tensor
    elif id(thing) not in above:
        module = _is_module(thing)
        for key, value in _held(thing):
            path = f"{name}.{key}" if name else str(key)
            yield from _walk(value, path, place if inside and module else name, (*above, id(thing)), module)


def _is_module(thing: Any) -> bool:
    return isinstance(thing, Inert) and isinstance(thing.state, Mapping) and set(thing.state) >= _MODULE


def _held(thing: Any) -> list[tuple[Any, Any]]:
    """What a thing holds, by key, position or attribute; of a pickled module what is in its state dict."""
    if _is_module(thing):
        lost = thing.state.get("_non_persistent_buffers_set", ())
        kept = [(name, value) for name, value in thing.state["_buffers"].items() if name not in lost]
        return [*thing.state["_parameters"].items(), *kept, *thing.state["_modules"].items()]
    if isinstance(thing, Inert):
        thing = thing.state
    if isinstance(thing, Mapping):
        return list(thing.items())
    if not isinstance(thing, list | tuple):
        return []
    return list(thing) if all(map(_is_named, thing)) else list(enumerate(thing))


def _is_named(thing: Any) -> bool:
    """Whether a thing is a pair of a name and what bears it, as a mapping's items are."""
    return isinstance(thing, list | tuple) and len(thing) == 2 and isinstance(thing[0], str)


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)
