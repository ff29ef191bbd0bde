"""The idx format of MNIST: a magic number, big-endian sizes, then the bytes."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from buttress.errors import UserError


def read_idx(path: Path, ndim: int) -> NDArray[np.uint8]:
    """Read an idx file of unsigned bytes, compressed by gzip or not.

    The format is the one described on the MNIST page (LeCun, Cortes, Burges): two zero bytes, the type (8 for unsigned
    bytes), the number of dimensions, one big-endian 32-bit size each, then the values in C order.

    Args:
        path: the file.
        ndim: dimensions it must have: 3 for images, 1 for labels.

    Raises:
        UserError: naming the file, when it cannot be read or its magic number, dimensions or length are wrong.
    """
    raw = _read(path)
    magic = bytes([0, 0, 8, ndim])
    if raw[:4] != magic:
        raise UserError(
            f"{path}: expected an idx file that begins with {magic.hex()}, got {raw[:4].hex() or 'no bytes'}"
        )
    head = 4 + 4 * ndim
    if len(raw) < head:
        raise UserError(f"{path}: expected a header of {head} bytes, got {len(raw)} bytes; the file is cut short")
    shape = [int.from_bytes(raw[at : at + 4], "big") for at in range(4, head, 4)]
    expected = head + math.prod(shape)
    if len(raw) != expected:
        raise UserError(f"{path}: expected {expected} bytes for the sizes {shape}, got {len(raw)}; get the file again")
    return np.frombuffer(raw, np.uint8, offset=head).reshape(shape)


def _read(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        # By content, not by name: browsers and servers unpack .gz files without renaming them.
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: expected an idx file, but it cannot be read: {error}") from error
