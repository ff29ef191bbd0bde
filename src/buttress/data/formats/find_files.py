"""Finding the files of a published data set: in a folder of the user's, or else in the download cache."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from buttress.errors import UserError


def candidate_folders(data_dir: str | Path, folders: Sequence[str]) -> list[Path]:
    """The folders to search: the usual ones under ``data_dir`` that exist, then ``data_dir`` itself.

    Raises:
        UserError: when ``data_dir`` is not a folder.
    """
    root = Path(data_dir)
    if not root.is_dir():
        raise UserError(f"expected a folder as data_dir, got {str(root)!r}, which is none")
    return [*(root / folder for folder in folders if (root / folder).is_dir()), root]


def missing_files(name: str, data_dir: str | Path, files: str) -> UserError:
    """The error for a ``data_dir`` that does not hold the data set; nothing is downloaded then."""
    return UserError(f"{data_dir}: expected the files of {name} ({files}), found none; leave data_dir out to download")


def read_folder(folder: Path, names: Sequence[str]) -> dict[str, bytes] | None:
    """The contents of the named files, or None when the first of them is not there.

    Raises:
        UserError: when some are there and others are not, or one cannot be read.
    """
    if not (folder / names[0]).is_file():
        return None
    try:
        return {name: (folder / name).read_bytes() for name in names}
    except OSError as error:
        raise UserError(f"{error.filename}: expected it beside {names[0]}, but: {error.strerror}") from error


def read_archive(archive: Path, names: Sequence[str]) -> dict[str, bytes]:
    """The contents of the named files inside a .tar.gz, in any of its folders; nothing is unpacked to disk.

    Raises:
        UserError: when the archive is damaged or does not hold them all.
    """
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for entry in tar:
                name = entry.name.rsplit("/", 1)[-1]
                content = tar.extractfile(entry) if entry.isfile() and name in names else None
                if content is not None:
                    contents[name] = content.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise UserError(f"{archive}: expected a .tar.gz archive, but it cannot be read: {error}") from error
    absent = [name for name in names if name not in contents]
    if absent:
        raise UserError(f"{archive}: expected {absent[0]} inside, got an archive without it; get the archive again")
    return contents
