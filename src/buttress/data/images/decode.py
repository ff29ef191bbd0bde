"""From image files to arrays: upright, of one mode and one size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from buttress.errors import UserError

_GREY_MODES = {"1", "L", "LA", "La"}
_DEEP_MODES = ("I", "F")  # modes of more than 8 bits a channel begin with these
_TURNED = {5, 6, 7, 8}  # EXIF orientations in which height and width change places
_ORIENTATION = 0x0112
_PNG_METADATA = (b"eXIf", b"Raw profile type exif", b"com.adobe.xmp")  # chunks that may say how an image is turned


@dataclass(frozen=True)
class Format:
    """What all images are converted to.

    Attributes:
        height: in pixels.
        width: in pixels.
        mode: "L" for grey, "RGB" for colour.
        crop: whether proportions are kept and the middle is cut out, where an image is of another shape.
        notes: sentences on what is converted, and how.
    """

    height: int
    width: int
    mode: str
    crop: bool
    notes: tuple[str, ...]


def broken_files(files: Iterable[Path]) -> list[Path]:
    """Those that cannot be decoded, found by decoding all."""
    broken = []
    for path in files:
        try:
            _header(path)
            _converted(path, "RGB")
        except _BrokenError:
            broken.append(path)
    return broken


def common_format(files: Sequence[Path], size: int | tuple[int, int] | None, *, crop: bool = False) -> Format:
    """The format that all files are converted to, from their headers.

    Args:
        files: the images.
        size: side, or (height, width), to resize to; None where all images must have one size.
        crop: whether proportions are kept, and the middle is cut out.

    Raises:
        UserError: naming the file, for an unreadable image, more than 8 bits a channel, or sizes that differ.
    """
    shape = None if size is None else _shape(size)
    if crop and shape is None:
        raise UserError("crop has no effect without a size to crop to: give size, too")
    kinds: Counter[str] = Counter()
    shapes: Counter[tuple[int, int]] = Counter()
    for path in files:
        kind, image_shape = _header(path)
        kinds.update(kind)
        shapes[image_shape] += 1
        if size is None and len(shapes) > 1:
            height, width = next(iter(shapes))
            raise UserError(
                f"{path}: expected size {(height, width)} as of {files[0]}, got {image_shape}; give size= to resize "
                f"all (--data-args.size {max(height, width)})"
            )
    height, width = shape or next(iter(shapes))
    mode = "RGB" if kinds["colour"] else "L"
    return Format(height, width, mode, crop, _notes(kinds, shapes, (height, width), crop))


def load_images(files: Sequence[Path], form: Format) -> NDArray[np.uint8]:
    """Images (N, C, H, W) of that format.

    Raises:
        UserError: naming the file that is no image, and for more than fits into memory.
    """
    shape = (len(files), len(form.mode), form.height, form.width)
    try:
        x = np.empty(shape, dtype=np.uint8)
    except (MemoryError, ValueError):
        size = f"{form.height}x{form.width}"
        raise UserError(f"{len(files)} images of {size} do not fit into memory: give a smaller size") from None
    for row, path in enumerate(files):
        ready = _converted(path, form.mode)
        if ready.size != (form.width, form.height):
            ready = _resized(ready, form)
        x[row] = np.asarray(ready).reshape(form.height, form.width, -1).transpose(2, 0, 1)
    return x


def _shape(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width); of a pair, or of the side of a square."""
    sides = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(sides) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) for side in sides):
        raise UserError(f"size: expected a number of pixels, or height,width; got {size!r}")
    if min(sides) < 1:
        raise UserError(f"expected a size of at least 1 pixel, got {size}")
    return sides


class _BrokenError(UserError):
    """A file that is no image, or a damaged one."""


def _header(path: Path) -> tuple[list[str], tuple[int, int]]:
    """What is particular about an image, and its (height, width) when it is upright."""
    with _open(path) as image:
        if image.mode.startswith(_DEEP_MODES):
            raise UserError(f"{path}: expected an image of 8 bits a channel, got mode {image.mode!r}; convert it")
        orientation = _orientation(image, path)
        kind = ["grey" if image.mode in _GREY_MODES else "colour"]
        kind += ["turned"] if orientation > 1 else []
        kind += (
            ["transparent"] if image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info else []
        )
        kind += ["moving"] if getattr(image, "is_animated", False) else []
        kind += ["CMYK"] if image.mode == "CMYK" else []
        turned = orientation in _TURNED and image.format != "TIFF"  # of which Pillow tells the size when it is upright
        shape = (image.width, image.height) if turned else (image.height, image.width)
    return kind, shape


def _orientation(image: Any, path: Path) -> int:
    """The EXIF orientation, 1 for upright."""
    if image.format == "PNG" and not any(tag in path.read_bytes() for tag in _PNG_METADATA):
        return 1  # Pillow would decode the whole image to find that out, since metadata may come after it
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except (OSError, SyntaxError, ValueError, TypeError):  # metadata of no known form turn nothing
        return 1


def _converted(path: Path, mode: str) -> Any:
    """The first frame of an image, upright."""
    from PIL import Image, ImageOps

    with _open(path) as image:
        try:
            upright = ImageOps.exif_transpose(image) if _orientation(image, path) > 1 else image
            if upright.mode == "P" and "transparency" in upright.info:
                upright = upright.convert("RGBA")  # as Pillow asks for, before what is transparent is left out
            return upright.convert(mode)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # the header was sound
            raise _BrokenError(
                f"{path}: expected an image, but it cannot be decoded: {error}; remove it, or pass over all such files "
                "(--data-args.skip_broken true)"
            ) from error


def _resized(image: Any, form: Format) -> Any:
    from PIL import Image, ImageOps

    size = (form.width, form.height)
    return ImageOps.fit(image, size, Image.Resampling.BICUBIC) if form.crop else image.resize(size)


def _open(path: Path) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(path)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "its format is not known" if isinstance(error, UnidentifiedImageError) else error
        raise _BrokenError(
            f"{path}: expected an image, but it cannot be read: {reason}; remove it, or pass over all such files "
            "(--data-args.skip_broken true)"
        ) from error


def _notes(
    kinds: Counter[str], shapes: Counter[tuple[int, int]], shape: tuple[int, int], crop: bool
) -> tuple[str, ...]:
    total, notes = kinds["grey"] + kinds["colour"], []
    resized = total - shapes[shape]
    if resized:
        how = "proportions kept, the middle cut out" if crop else "proportions not kept"
        notes.append(f"of {total} images {resized} are resized to {shape[0]}x{shape[1]} (bicubic, {how})")
    if kinds["grey"] and kinds["colour"]:
        notes.append(f"of {total} images {kinds['grey']} are grey and get three equal channels")
    for kind, done in (
        ("turned", "are turned as their EXIF orientation says"),
        ("transparent", "have transparency, which is left out"),
        ("moving", "have several frames, of which the first is taken"),
        ("CMYK", "are CMYK and converted to RGB without a colour profile"),
    ):
        if kinds[kind]:
            notes.append(f"of {total} images {kinds[kind]} {done}")
    return tuple(notes)


def named(paths: Sequence[Path], most: int = 3) -> str:
    """The first few of some files by name, and how many more there are."""
    more = f" and {len(paths) - most} more" if len(paths) > most else ""
    return ", ".join(str(path) for path in paths[:most]) + more
