"""Writing files so that a crash or a full disk cannot spoil what was there."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from buttress.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of the disk, of what a user may have, of what a file may have


@contextmanager
def full_disk_reported(path: Path) -> Iterator[None]:
    """Turn a full disk into a line for the user.

    Raises:
        UserError: when writing found no space; every other error passes.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        told = re.search(r"os error (\d+)", str(error))  # of a library that is not Python's
        number = error.errno if isinstance(error, OSError) and error.errno else int(told[1]) if told else 0
        if number in _FULL or "No space" in str(error):
            raise UserError(f"no space left to write {path}; what was there before is intact") from None
        raise


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse the name of a file to write that is taken.

    Raises:
        UserError: naming it.
    """
    if path.is_dir() or (path.exists() and not overwrite):
        raise UserError(f"{path} exists: choose another name, or ask for it to be replaced (overwrite)")


def sync(path: Path) -> None:
    """Have the disk hold what was written to a file, or to a folder's list of names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Replace a file's text in one step, as UTF-8; its folder is made when missing.

    Raises:
        UserError: when the disk is full; the file that was there is intact.
    """
    with full_disk_reported(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.tmp")
        try:
            beside.write_text(text, encoding="utf-8")
            sync(beside)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
