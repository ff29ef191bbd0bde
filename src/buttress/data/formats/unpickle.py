"""CIFAR's Python batches read without running the code that a pickle may hold.

A pickle is a program: it can call anything that can be imported. Here every name in it is looked up in a short table of
replacements that only record their arguments, so the file calls neither numpy nor anything else.
"""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from buttress.errors import UserError


class _Dtype:
    """Replaces ``numpy.dtype``: records the type's code."""

    def __init__(self, code: str | bytes, *_: object) -> None:
        self.code = code.decode("ascii") if isinstance(code, bytes) else code

    def __setstate__(self, state: object) -> None:
        """Byte order and the like: of no meaning for single bytes, and other types are refused."""


class _Array:
    """Replaces ``numpy.ndarray``: records shape, type and bytes."""

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Dtype, bool, bytes]) -> None:
        _, self.shape, self.dtype, self.fortran, self.raw = state

    def bytes_array(self) -> NDArray[np.uint8]:
        if self.dtype.code.lstrip("|") != "u1" or len(self.raw) != math.prod(self.shape):
            raise ValueError(f"an array of type {self.dtype.code} and shape {self.shape} with {len(self.raw)} bytes")
        flat = np.frombuffer(self.raw, np.uint8)
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":  # any other codec would be imported by its name
        raise ValueError(f"the codec {encoding!r}")
    return text.encode("latin1")


_REPLACEMENTS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, raw: bytes, where: str) -> None:
        super().__init__(io.BytesIO(raw), encoding="bytes")
        self.where = where

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _REPLACEMENTS:
            raise UserError(
                f"{self.where}: expected a pickle of arrays only, got one that asks for {module}.{name}; refused"
            )
        return _REPLACEMENTS[module, name]


def read_pickle(raw: bytes, where: str, images: str, labels: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Two entries of a pickled dictionary, as CIFAR's Python version has them.

    Args:
        raw: the pickle.
        where: the file it is from, for error lines.
        images: key of a uint8 array.
        labels: key of a list of integers, or of a uint8 array.

    Raises:
        UserError: naming the file, when it is damaged, lacks an entry, or asks for anything but arrays of bytes.
    """
    try:
        content = _Unpickler(raw, where).load()
        # Keys are bytes when Python 2 wrote the file.
        x, y = (content[key.encode()] if key.encode() in content else content[key] for key in (images, labels))
        if isinstance(y, _Array):
            y = y.bytes_array()
        return x.bytes_array(), np.asarray(y).astype(np.int64, casting="safe")
    except UserError:
        raise
    except Exception as error:  # a damaged stream fails in as many ways as there are opcodes
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"{where}: expected a pickled batch with {images!r} and {labels!r}, but: {reason}") from error
