"""Files of equal content in two splits."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

from buttress.data.images.image_file import ImageFile, size_of


def repeated(files: Sequence[ImageFile], among: Iterable[ImageFile]) -> list[ImageFile]:
    """Those of ``files`` whose bytes are those of a file of ``among``, in order.

    Only files whose sizes agree are read. The same picture in another encoding is not found.
    """
    by_size: dict[int, list[ImageFile]] = defaultdict(list)
    for path in among:
        by_size[size_of(path)].append(path)
    known: dict[int, set[bytes]] = {}
    found = []
    for path in files:
        size = size_of(path)
        if size not in by_size:
            continue
        if size not in known:
            known[size] = {_digest(other) for other in by_size[size]}
        if _digest(path) in known[size]:
            found.append(path)
    return found


def _digest(path: ImageFile) -> bytes:
    return hashlib.blake2b(path.read_bytes()).digest()
