"""Folders of images that are none, and images that cannot be read or are of no use."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tests.cli.wrong_inputs.case import Case

WORDS = "train new --data folder:images --model cnn --epochs 1 --dry-run"


def encoded(kind: str = "PNG", size: tuple[int, int] = (8, 8), mode: str = "RGB", **options: object) -> bytes:
    """An image of random pixels as a file's content."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def images(here: Path, content: bytes | None = None, classes: str = "ab", count: int = 6, name: str = "{}.png") -> Path:
    """A folder for each class, of good images, and one more with the given content."""
    for number, one in enumerate(classes):
        (here / "images" / one).mkdir(parents=True)
        for row in range(count):
            (here / "images" / one / name.format(row)).write_bytes(encoded())
        if content is not None and number == 0:
            (here / "images" / one / "z.png").write_bytes(content)
    return here / "images"


def bomb(side: int = 20_000) -> bytes:
    """A PNG whose header tells of many pixels, and that holds none."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


CONTENTS = {
    "zero bytes": b"",
    "text": b"no image at all\n",
    "half a PNG": encoded(size=(64, 64))[:4000],
    "half a JPEG": encoded("JPEG", (64, 64))[:900],
    "a JPEG of zeros": encoded("JPEG", (64, 64))[:300] + b"\0" * 3000,
    "20,000 x 20,000": bomb(),
    "2,000,000,000 pixels": bomb(44_721),
    "another size": encoded(size=(9, 7)),
    "one pixel": encoded(size=(1, 1)),
    "a ZIP": b"PK\3\4" + b"\0" * 60,
}
GOOD = {  # that are taken, and said to be
    "CMYK": encoded("JPEG", mode="CMYK"),
    "animated": encoded("GIF"),
    "palette": encoded("GIF", mode="P"),
}


def _deep(here: Path, kind: str) -> None:
    file = io.BytesIO()
    pixels = np.zeros((8, 8), np.uint16 if kind == "PNG" else np.float32)
    Image.fromarray(pixels).save(file, kind)
    images(here, file.getvalue())


def cases() -> Iterator[Case]:
    """All of these."""
    words = tuple(WORDS.split())
    for content in CONTENTS.values():
        prepare = partial(images, content=content)
        yield Case("image", words, prepare)
        yield Case("image in a test", ("audit", "digits", "--out", "new", *words[2:4]), prepare)
    yield Case("image", words, partial(_deep, kind="PNG"))
    yield Case("image", words, partial(_deep, kind="TIFF"))
    for content in GOOD.values():
        yield Case("unusual image", words, partial(images, content=content), (0, 2))
    yield Case("unusual image", words, partial(images, name="{}\n.png"), (0, 2))
    yield Case("unusual image", words, partial(images, name="{}\udce9.png"), (0, 2))
    yield Case("unusual image", words, partial(images, classes=["a\nb", "c\udce9"]), (0, 2))
    yield from (Case("folder", words, prepare) for prepare in FOLDERS)
    for given in (
        "--data-args.size 0",
        "--data-args.size x",
        "--data-args.size 3,4,5",
        "--data-args.crop",
        "--data-args.val -1",
        "--data-args.val 100",
        "--data-args.test 0",
        "--data-args.nothing 3",
        "--data-args.test_only 3",
        "--data-dir nowhere",
        "--data-args.val 1.5",
        "--pool 3",
        "--pool 100",
        "--data-args.size 999999999",
        "--data-args.classes a",
        "--data-args.seed 3",
    ):
        yield Case("options of a folder", (*words, *_valued(given)), images)
    for data in (
        "folder:",
        "folder:images/a",
        "folder:mine.py",
        "folder:nowhere",
        "folder:/dev/null",
        "folder:\udce9",
        "folder:moons",
        "folder:images/a/0.png",
        "folder:/proc/self/fd",
        "images",
        "images/",
    ):
        yield Case("names of data", ("train", "new", "--data", data, *words[4:]), images)
    yield Case("closed", words, partial(_closed, place="images"), user=True)
    yield Case("closed", words, partial(_closed, place="images/a"), user=True)
    yield Case("closed", words, partial(_closed, place="images/a/0.png"), user=True)


def _valued(given: str) -> list[str]:
    option, _, value = given.partition(" ")
    return [option, value or "true"]


def _closed(here: Path, place: str) -> None:
    images(here)
    (here / place).chmod(0)


def _folder(prepare: Callable[[Path], object]) -> Callable[[Path], None]:
    def lay_out(here: Path) -> None:
        (here / "images").mkdir()
        prepare(here / "images")

    return lay_out


def _empty_classes(folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "b").mkdir()


def _other_classes(folder: Path) -> None:
    for place in ("train/a", "train/b", "test/c", "test/d"):
        (folder / place).mkdir(parents=True)
        for row in range(4):
            (folder / place / f"{row}.png").write_bytes(encoded())


def _flat(folder: Path) -> None:
    for row in range(4):
        (folder / f"{row}.png").write_bytes(encoded())


def _both(folder: Path) -> None:
    images(folder.parent / "more", classes="ab")
    (folder / "train").symlink_to(folder.parent / "more" / "images")
    (folder / "Train").symlink_to(folder.parent / "more" / "images")
    (folder / "training").symlink_to(folder.parent / "more" / "images")


def _loop(folder: Path) -> None:
    for name in "ab":
        (folder / name).mkdir()
        (folder / name / "again").symlink_to(folder)


def _broken_links(folder: Path) -> None:
    for name in "ab":
        (folder / name).mkdir()
        (folder / name / "0.png").symlink_to(folder / "nowhere.png")


def _broken_class(folder: Path) -> None:
    images(folder.parent / "more", classes="ab")
    (folder / "a").symlink_to(folder.parent / "more" / "images" / "a")
    (folder / "b").symlink_to(folder / "nowhere")


def _pipes(folder: Path) -> None:
    import os

    for name in "ab":
        (folder / name).mkdir()
        os.mkfifo(folder / name / "0.png")


FOLDERS: list[Callable[[Path], object]] = [
    lambda here: None,
    lambda here: (here / "images").write_text("no folder"),
    lambda here: (here / "images").symlink_to("nowhere"),
    lambda here: (here / "images").symlink_to("images"),
    _folder(lambda folder: None),
    _folder(lambda folder: (folder / "a").mkdir()),
    _folder(_empty_classes),
    _folder(_other_classes),
    _folder(_flat),
    _folder(_both),
    _folder(_loop),
    _folder(_broken_links),
    _folder(_broken_class),
    _folder(_pipes),
    partial(images, classes="a"),
    partial(images, count=1),
    partial(images, count=0),
]
