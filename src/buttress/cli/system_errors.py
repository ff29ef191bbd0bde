"""What the system refuses and the user can mend: places, permissions, space, memory; in one line."""

from __future__ import annotations

import errno
import os
import re

import torch

_PLACES = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    *(errno.ENOTEMPTY, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.EMFILE, errno.ENFILE),
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
}
_LOOP = re.compile(r"Symlink loop from '(.*)'", re.DOTALL)  # how Python tells of one before 3.13
_NO_MEMORY = re.compile(r"can't allocate memory|Unable to allocate|array is too big|out of memory", re.IGNORECASE)
_MEMORY = "there is not enough memory: give a smaller --batch-size, or fewer or smaller inputs"


def system_mistake(error: BaseException) -> str | None:
    """One line where the system refused what was asked for; None for any other error."""
    if isinstance(error, OSError) and error.errno in _PLACES:
        place = "the disk" if error.filename is None else os.fsdecode(error.filename)
        return f"{place}: {error.strerror or os.strerror(error.errno)}"
    if isinstance(error, RuntimeError) and (loop := _LOOP.search(str(error))):
        return f"{loop[1]}: {os.strerror(errno.ELOOP)}"
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return _MEMORY
    return _MEMORY if isinstance(error, RuntimeError | ValueError) and _NO_MEMORY.search(str(error)) else None
