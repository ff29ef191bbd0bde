"""Labels in a table beside the images: CSV, TSV, JSON or JSON lines, with columns known by their names."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buttress.data.images.files import files_under
from buttress.data.images.split_names import split_of, splits_of
from buttress.errors import UserError
from buttress.plain_data import read_json

# In the order in which they are preferred, without blanks, underscores and case.
_FILES = (
    "filename",
    "filepath",
    "file",
    "imagepath",
    "imagefile",
    "imagename",
    "path",
    "image",
    "img",
    "imageid",
    "id",
)
_LABELS = ("label", "labels", "class", "target", "classname", "labelname", "category", "classid", "labelid", "y")
_SPLITS = ("split", "subset", "partition", "set", "phase")


@dataclass(frozen=True)
class LabelTable:
    """What a table says.

    Attributes:
        rows: image, name of its class, and the word for its split, or None where the table has none.
        note: a sentence on the columns that were read.
    """

    rows: list[tuple[Path, str, str | None]]
    note: str


def read_label_table(path: Path, root: Path) -> LabelTable:
    """The images of a table with the names of their classes.

    Images are looked for in ``root`` and beside the table; where a row has only the name, with or without its suffix,
    anywhere under ``root``.

    Args:
        path: the table.
        root: the folder of images.

    Raises:
        UserError: naming the file and the line, for columns that are not there, images that are not there or are
            listed twice, and labels that are missing.
    """
    lines = _records(path)
    columns = list(dict.fromkeys(name for _, record in lines for name in record))
    file, label = (_column(columns, names, what, path) for names, what in ((_FILES, "images"), (_LABELS, "labels")))
    split = next((name for wanted in _SPLITS for name in columns if _plain(name) == wanted), None)
    places = _Places(root, path.parent)
    rows: list[tuple[Path, str, str | None]] = []
    seen: dict[Path, int] = {}
    for number, record in lines:
        where = f"{path}, line {number}"
        image, name = places.find(_cell(record, file, where), where), _cell(record, label, where)
        if image in seen:
            raise UserError(f"{where}: expected each image once, got {image} as in line {seen[image]}")
        seen[image] = number
        rows.append((image, name, None if split is None else _cell(record, split, where)))
    if all(re.fullmatch(r"\d+\.0+", name) for _, name, _ in rows):  # whole numbers as pandas writes them
        rows = [(image, name.split(".")[0], part) for image, name, part in rows]
    _check_splits(rows, path)
    by = f", splits of {split!r}" if split is not None else ""
    return LabelTable(rows, f"{len(rows)} labels of column {label!r} of {path.name}, images of {file!r}{by}")


def _check_splits(rows: Sequence[tuple[Path, str, str | None]], path: Path) -> None:
    words = {word for _, _, word in rows if word is not None}
    splits_of(words, str(path))
    if unknown := sorted(word for word in words if split_of(word) is None):
        raise UserError(f"{path}: expected splits such as train, val and test, got {unknown[0]!r}")


def _records(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The rows by column, with the numbers of their lines."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        kind = path.suffix.casefold()
        if kind in (".jsonl", ".ndjson"):
            records = [(n, read_json(line)) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
        elif kind == ".json":
            records = list(enumerate(read_json(text), 1))
        else:
            header = text.partition("\n")[0]
            sign = max("\t;,", key=header.count)
            reader = csv.DictReader(text.splitlines(), delimiter=sign, skipinitialspace=True)
            records = [(reader.line_num, record) for record in reader]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{path}: expected a table of labels, but it cannot be read: {error}") from None
    if not records or not all(isinstance(record, dict) for _, record in records):
        raise UserError(f"{path}: expected rows with a column of images and one of labels, got none")
    return records


def _column(columns: Sequence[str], names: Sequence[str], what: str, path: Path) -> str:
    for wanted in names:
        for name in columns:
            if name is not None and _plain(name) == wanted:
                return name
    got = ", ".join(str(name) for name in columns[:6])
    raise UserError(f"{path}: expected a column of {what}, called {', '.join(names[:5])} or so, got {got}")


def _cell(record: dict[str, Any], column: str, where: str) -> str:
    value = record.get(column)
    if not isinstance(value, str | int | float) or isinstance(value, bool) or not str(value).strip():
        raise UserError(f"{where}: expected one name or number in column {column!r}, got {value!r}")
    return str(value).strip()


class _Places:
    """Where the images of a table are: by path, by name, or by name without suffix."""

    def __init__(self, root: Path, beside: Path) -> None:
        self._bases = (root, beside)
        self._by_name: dict[str, list[Path]] | None = None

    def find(self, text: str, where: str) -> Path:
        """The file that a row means.

        Raises:
            UserError: for none, or several.
        """
        for base in self._bases:
            if (base / text).is_file():
                return base / text
        found = self._names().get(text, []) if "/" not in text else []
        if len(found) != 1:
            got = f"{len(found)}, as {found[0]} and {found[1]}" if found else "none"
            raise UserError(f"{where}: expected one image {text!r} in {self._bases[0]}, got {got}")
        return found[0]

    def _names(self) -> dict[str, list[Path]]:
        if self._by_name is None:
            self._by_name = {}
            for path in files_under(self._bases[0]):
                for name in {path.name, path.stem}:
                    self._by_name.setdefault(name, []).append(path)
        return self._by_name


def _plain(name: str | None) -> str:
    return re.sub(r"[^a-z0-9]", "", (name or "").casefold())
