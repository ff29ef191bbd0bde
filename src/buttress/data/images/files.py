"""The images under a folder: hidden things and other files passed over, links followed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from buttress.errors import UserError

# What file managers, archivers and notebooks leave behind, beside names that begin with a dot.
_LITTER = {"thumbs.db", "desktop.ini", "__macosx", "__pycache__", "@eadir", "$recycle.bin", "lost+found"}
# Photographs that Pillow does not read by itself: passing over these would lose data.
_PHOTOS = {".heic", ".heif", ".jxl", ".svg", ".cr2", ".nef", ".dng", ".arw"}


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no data of the user's."""
    return name.startswith((".", "~$")) or name.casefold() in _LITTER


def folders_in(root: Path) -> list[Path]:
    """The folders in ``root``, sorted, links among them; hidden ones left out.

    Raises:
        UserError: where ``root`` is no folder.
    """
    if not root.is_dir():
        got = "it is a file" if root.exists() else "there is none"
        raise UserError(f"{root}: expected a folder with one folder of images for each class, but {got}")
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and not is_hidden(entry.name))


def files_under(root: Path) -> Iterator[Path]:
    """All files under ``root`` at any depth, in the order of their paths; hidden ones left out.

    Raises:
        UserError: for a link that points nowhere, or to a folder that it is in.
    """
    for folder, inside, names in os.walk(root, followlinks=True):
        here = Path(folder).resolve()
        inside[:] = sorted(name for name in inside if not is_hidden(name))
        for name in inside:
            target = Path(folder, name).resolve()
            if target == here or target in here.parents:
                raise UserError(f"{Path(folder, name)}: expected images, got a link to a folder that it is in")
        for name in sorted(names):
            path = Path(folder, name)
            if is_hidden(name):
                continue
            if not path.exists():
                raise UserError(f"{path}: expected a file, got a link to {os.readlink(path)}, which is not there")
            yield path


def is_image(path: Path) -> bool:
    """Whether a file is to be decoded: by its suffix, in any case, and where that says nothing by its first bytes.

    Raises:
        UserError: for photographs in a format that Pillow does not read.
    """
    from PIL import Image, UnidentifiedImageError

    suffix = path.suffix.casefold()
    if suffix in _PHOTOS:
        raise UserError(f"{path}: expected an image that Pillow reads, got {suffix}; convert it to PNG or JPEG")
    if Image.registered_extensions().get(suffix) in Image.OPEN:
        return True
    if suffix and not suffix[1:].isdecimal():  # a name such as 0001.5 has no suffix
        return False
    try:
        Image.open(path).close()
    except UnidentifiedImageError:
        return False
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return True  # an image, which decoding will have to say more about
    return True


def images_under(root: Path) -> tuple[list[Path], list[Path]]:
    """The images under ``root`` and its other files, each in the order of their paths."""
    images: list[Path] = []
    others: list[Path] = []
    for path in files_under(root):
        (images if is_image(path) else others).append(path)
    return images, others


def loose_images(root: Path) -> list[Path]:
    """The images in ``root`` itself, sorted."""
    return sorted(path for path in root.iterdir() if path.is_file() and not is_hidden(path.name) and is_image(path))
