"""Tar archives of images with labels, as the webdataset package writes them: an index of what lies where."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

from buttress.data.images.files import is_hidden
from buttress.data.images.image_file import TarMember
from buttress.data.images.layout import WHOLE, Labelled, Layout
from buttress.data.images.split_names import splits_of
from buttress.errors import UserError

_IMAGES = ("jpg", "jpeg", "png", "ppm", "pgm", "webp", "bmp", "tif", "tiff", "gif")
_PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")


def read_shards(root: Path, label: str) -> Layout:
    """The images of ``PATH/*.tar``, or of ``PATH/train/*.tar`` and other splits, with their labels.

    Members of one name but for what follows its first dot are one example (000017.jpg, 000017.cls). Shards are of the
    split that their folder, or the letters of their name, stand for (val/000000.tar, train-000000.tar), else all are
    one collection.

    Args:
        root: the folder, or one archive.
        label: the member that holds an example's label, by what follows the first dot: ``cls``; of JSON with the key
            after a colon: ``json:label``.

    Raises:
        UserError: naming the archive, for one that is damaged or compressed, and an example without a label.
    """
    shards = [root] if root.is_file() else sorted(path for path in root.rglob("*.tar") if not is_hidden(path.name))
    if not shards:
        packed = sorted(path for path in root.rglob("*") if path.name.endswith(_PACKED))
        got = f"{packed[0].name}, which is compressed: unpack it, as in gunzip" if packed else "none"
        raise UserError(f"{root}: expected archives such as train-000000.tar, got {got}")
    words = {shard: _word(shard, root) for shard in shards}
    splits = splits_of(set(words.values()), str(root))
    if splits and len(splits) < len(set(words.values())):
        other = next(word for word in words.values() if word not in splits)
        raise UserError(f"{root}: expected all archives to be of a split, as {next(iter(splits))} is, got {other}")
    layout = Layout({}, {})
    for shard in shards:
        part = splits.get(words[shard], WHOLE)
        layout.parts.setdefault(part, []).extend(_examples(shard, label))
        layout.places[part] = words[shard] if splits else root.name
    return layout


def _word(shard: Path, root: Path) -> str:
    """What says which split a shard is of: the folder it is in, else the letters that its name begins with."""
    if root.is_dir() and shard.parent != root:
        return shard.relative_to(root).parts[0]
    return shard.stem.rstrip("0123456789{}.-_") or shard.stem


def _examples(shard: Path, label: str) -> Labelled:
    suffix, _, key = label.partition(":")
    images: dict[str, TarMember] = {}
    labels: dict[str, str] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for name, kind, member in _members(archive):
                if kind.rpartition(".")[2] in _IMAGES:
                    if name in images:
                        raise UserError(f"{shard}: expected one image of {name}, got several")
                    images[name] = TarMember(str(shard), member.name, member.offset_data, member.size)
                elif kind == suffix and (file := archive.extractfile(member)) is not None:
                    labels[name] = _label(file.read(), key, f"{shard}, {member.name}")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"{shard}: expected a tar archive that is not compressed, but: {error}") from None
    for name in images:
        if name not in labels:
            raise UserError(
                f"{shard}: expected a label of {name} in {name}.{suffix}, got none; say where labels are, as in "
                "--data-args.label json:label"
            )
    if not images:
        raise UserError(f"{shard}: expected images and their labels, got none")
    return [(images[name], labels[name]) for name in images]


def _members(archive: tarfile.TarFile) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Files with the name of their example and what kind of member each is."""
    for member in archive:
        folder, _, file = member.name.rpartition("/")
        name, _, kind = file.partition(".")
        if member.isfile() and name and not is_hidden(file):
            yield (f"{folder}/{name}" if folder else name), kind.casefold(), member


def _label(content: bytes, key: str, where: str) -> str:
    """A label's text."""
    try:
        text = content.decode().strip()
        return str(json.loads(text)[key]) if key else text
    except (ValueError, KeyError, TypeError, IndexError):
        expected = f"JSON with {key!r}" if key else "text"
        raise UserError(f"{where}: expected {expected}, got {content[:40]!r}") from None
