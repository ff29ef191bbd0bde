"""What a torch file holds, all but tensors and plain data as empty objects: no code of the file's is run."""

from __future__ import annotations

import functools
import pickle
import re
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch

_UNKNOWN = re.compile(r"Unsupported global: GLOBAL ([\w.<>]+)")
_WRONG_KIND = re.compile(r"Can only (?P<what>SETITEM|append|extend).*but got <class '(?P<path>[\w.<>]+)'>", re.DOTALL)
_MOST_TRIES = 200  # more classes than any training script keeps beside its weights
Kind = Literal["object", "mapping", "list"]


class Inert:
    """Stands for an object of a class that is not looked up: it keeps the state that was saved, and does nothing.

    The state is what it was made of, as the values of a named tuple, until another is set.
    """

    kind: Kind = "object"
    state: Any

    def __new__(cls, *made_of: Any) -> Any:
        """An object that holds this alone; of a class that the file fills like a mapping or a list, a plain one."""
        if cls.kind == "mapping":
            return OrderedDict()
        if cls.kind == "list":
            return []
        made = super().__new__(cls)
        made.state = made_of
        return made

    def __init__(self, *_: Any) -> None:
        """Nothing is left to do."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


def read_inert(path: Path) -> Any:
    """The content of a file that ``torch.save`` wrote, read by torch's ``weights_only`` reader.

    That reader builds tensors and plain data alone. The names of all other classes and functions, as those of a pickled
    module, of settings or of NumPy's numbers beside the weights, are handed to it as `Inert` ones of our own, so that
    nothing of theirs is imported or called. NumPy's arrays are read.

    Raises:
        pickle.UnpicklingError: for a file that asks for what torch never lets through, such as the module os.
        Exception: of any kind, for a damaged file.
    """
    kinds: dict[str, Kind] = dict.fromkeys(_unknown_names(path), "object")
    for _ in range(_MOST_TRIES):
        stand_ins: list[Any] = [(_stand_in(name, kind), name) for name, kind in kinds.items()]
        try:
            with warnings.catch_warnings(), torch.serialization.safe_globals([*stand_ins, *_arrays()]):
                warnings.simplefilter("ignore")  # torch's, about old pickle protocols
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            if unknown := _UNKNOWN.search(str(error)):
                name, kind = unknown[1], "object"
            elif wrong := _WRONG_KIND.search(str(error)):
                name, kind = wrong["path"], "mapping" if wrong["what"] == "SETITEM" else "list"
            else:
                raise
            name = name if "." in name else f"builtins.{name}"  # torch's messages leave that out
            if kinds.get(name) == kind:
                raise
            kinds[name] = cast(Kind, kind)
    raise pickle.UnpicklingError(f"it holds objects of more than {_MOST_TRIES} classes")


def _unknown_names(path: Path) -> list[str]:
    """All at once where the format tells them, so that large files are read once; else they come one by one."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (ValueError, RuntimeError, pickle.UnpicklingError, OSError):
        return []
    return [name for name in names if name not in {name for _, name in _arrays()}]


@functools.cache
def _stand_in(name: str, kind: Kind) -> type[Inert]:
    where, _, what = name.rpartition(".")
    return type(what, (Inert,), {"__module__": where, "__qualname__": what, "kind": kind})


@functools.cache
def _arrays() -> list[tuple[Any, str]]:
    """What arrays of numbers are made of, under NumPy's names of before and after 2.0."""
    rebuild: Any = np.zeros(1).__reduce__()[0]
    scalar: Any = np.float64(1).__reduce__()[0]
    kinds = [vars(np.dtypes)[name] for name in np.dtypes.__all__]
    functions = [
        (function, f"numpy.{core}.multiarray.{function.__name__}")
        for function in (rebuild, scalar)
        for core in ("_core", "core")
    ]
    return [*functions, (np.ndarray, "numpy.ndarray"), (np.dtype, "numpy.dtype")] + [
        (kind, f"numpy.dtypes.{kind.__name__}") for kind in kinds
    ]
