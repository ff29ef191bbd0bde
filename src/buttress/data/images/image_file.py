"""What an image is read from: a file, or a member of an archive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class ImageFile(Protocol):
    """A file; its text names it in error lines, and its order is that of inputs."""

    def read_bytes(self) -> bytes:
        """All of it.

        Raises:
            OSError: where it is not there any more.
        """
        ...

    def __lt__(self, other: Any, /) -> bool: ...

    def __hash__(self) -> int: ...


@dataclass(frozen=True, order=True)
class TarMember:
    """A member of an archive that is not compressed, read by its place there.

    Attributes:
        archive: its path.
        name: of the member.
        offset: of its first byte in the archive.
        size: in bytes.
    """

    archive: str
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.archive}, {self.name}"

    def read_bytes(self) -> bytes:
        """All of it.

        Raises:
            OSError: where the archive cannot be read, or ends before it.
        """
        with open(self.archive, "rb") as file:
            file.seek(self.offset)
            content = file.read(self.size)
        if len(content) < self.size:
            raise OSError(f"the archive ends before {self.name}")
        return content


def size_of(file: ImageFile) -> int:
    """In bytes."""
    if isinstance(file, Path):
        return file.stat().st_size
    return file.size if isinstance(file, TarMember) else len(file.read_bytes())


class FileTable:
    """Files by number, in a tenth of the memory of a list, which each worker process would copy page by page.

    Args:
        files: paths, or members of archives; not both.
    """

    def __init__(self, files: Sequence[ImageFile]) -> None:
        members = [file for file in files if isinstance(file, TarMember)]
        self._archives = sorted({member.archive for member in members})
        number = {archive: place for place, archive in enumerate(self._archives)}
        self._places = np.array([(number[m.archive], m.offset, m.size) for m in members], dtype=np.int64).reshape(-1, 3)
        names = [member.name for member in members] if members else list(map(str, files))
        self._names = np.array([name.encode(errors="surrogateescape") for name in names], dtype=np.bytes_)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, number: int) -> ImageFile:
        name = self._names[number].decode(errors="surrogateescape")
        if not self._archives:
            return Path(name)
        archive, offset, size = self._places[number].tolist()
        return TarMember(self._archives[archive], name, offset, size)
