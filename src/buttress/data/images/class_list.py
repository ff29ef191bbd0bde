"""Classes in the order of a network's outputs: from a list, a file, or the names that the images are found under."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buttress.errors import UserError
from buttress.plain_data import read_json
from buttress.registry import nearest

_MOST = 1_000_000
TEXT_ORDER = "text-order"
_SYNSET = re.compile(r"(n\d{8})[\s:,]+(.+)")
_NUMBERED = re.compile(r"(\d+)\s*[:\t,]\s*(.+)|(\d+)\s+(\S.*)")


@dataclass(frozen=True)
class ClassList:
    """Classes and the numbers of their labels.

    Attributes:
        names: one for each output of the network.
        labels: the label of each name that images are found under.
        given: whether the order was given; else it is that of the names alone.
        note: a sentence on the order.
    """

    names: tuple[str, ...]
    labels: Mapping[str, int]
    given: bool
    note: str


def class_list(found: Iterable[str], given: Sequence[str] | None, where: str) -> ClassList:
    """The classes of images that are found under some names.

    Without a list numbers are ordered as numbers and all else as text.

    Args:
        found: names of folders, or labels of a table.
        given: the network's classes in its order, as names; or one word: a file of them, their number (classes that
            are called 0, 1, 2 ...), or ``text-order`` (of names that are numbers: 0, 1, 10, 2 ...).
        where: what holds the images, for error lines.

    Raises:
        UserError: for names that are not in the list, and a list that cannot be read or is ambiguous.
    """
    names = sorted(set(found))
    if given is None or [word.strip() for word in given] == [TEXT_ORDER]:
        return _by_name(names, as_text=given is not None)
    aliases = _aliases(given)
    labels = {name: _label(name, names, aliases, where) for name in names}
    counts = Counter(labels.values())
    twice = [name for name in names if counts[labels[name]] > 1]
    if twice:
        raise UserError(f"{where}: expected one name for each class, got {' and '.join(twice)} for the same one")
    shown = tuple(one[-1] for one in aliases)
    notes = []
    if len(names) < len(shown):
        notes.append(f"images are of {len(names)} of {len(shown)} classes")
    if list(labels.values()) != sorted(labels.values()) or any(name.isdecimal() for name in names):
        notes.append("labels by the list of classes: " + _listed({name: labels[name] for name in names}))
    return ClassList(shown, labels, True, "; ".join(notes))


def read_class_file(path: Path) -> list[list[str]]:
    """The names of each class in a file, in the order of the labels.

    It may be text, one class a line (``cat``, ``0 cat``, or ImageNet's ``n01440764 tench, Tinca tinca``); or JSON, a
    list, ``{"0": "cat"}``, ``{"0": ["n01440764", "tench"]}`` or ``{"cat": 0}``.

    Raises:
        UserError: for a file that cannot be read, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        tree = read_json(text) if path.suffix.casefold() == ".json" else None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected a list of classes, but it cannot be read: {error}") from None
    if path.suffix.casefold() == ".json":
        return _of_json(tree, path)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    synsets = [_SYNSET.fullmatch(line) for line in lines]
    if lines and all(synsets):
        return [_synset(*match.groups()) for match in synsets if match]
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if lines and all(numbered):
        pairs = {int(m[1] or m[3]): (m[2] or m[4]).strip() for m in numbered if m}
        if len(pairs) == len(lines):
            return _by_index(pairs, path)
    return [[line] for line in lines]


def _by_name(names: Sequence[str], *, as_text: bool) -> ClassList:
    numbers = all(name.isdecimal() for name in names) and len({int(name) for name in names}) == len(names)
    ordered = sorted(names, key=int) if numbers and not as_text else list(names)
    labels = {name: label for label, name in enumerate(ordered)}
    shown = ", ".join(ordered[:4]) + (f" ... {ordered[-1]}" if len(ordered) > 4 else "")
    note = f"classes in the order of their names: {shown}; if the network has others, or another order, give --classes"
    if numbers and list(names) != ordered:
        note = (
            f"classes in the order of their numbers: {shown}; for a network that has them as text "
            f"({', '.join(list(names)[:3])} ...), as torchvision's ImageFolder does, type --classes {TEXT_ORDER}"
        )
    elif numbers and [int(name) for name in ordered] != list(range(len(ordered))):
        note = f"classes {shown} have the labels 0 to {len(ordered) - 1}; if the network has others, give --classes"
    return ClassList(tuple(ordered), labels, False, note)


def _aliases(given: Sequence[str]) -> list[list[str]]:
    """The names that each class goes by; the last is shown."""
    words = [word.strip() for word in given]
    if len(words) == 1 and Path(words[0]).is_file():
        aliases = read_class_file(Path(words[0]))
    elif len(words) == 1 and words[0].isdecimal():
        if len(words[0]) > len(str(_MOST)) or int(words[0]) > _MOST:
            raise UserError(f"--classes: expected at most {_MOST:,} classes; got {words[0]}")
        aliases = [[str(label)] for label in range(int(words[0]))]
    elif len(words) == 1 and ("/" in words[0] or Path(words[0]).suffix in (".txt", ".json", ".csv")):
        raise UserError(f"--classes {words[0]}: expected a file of classes, but there is none")
    else:
        aliases = [[word] for word in words]
    if len(aliases) < 2 or not all(all(one) for one in aliases):
        raise UserError(
            f"--classes: expected at least 2 names, a file of them, or their number; got {', '.join(words)}"
        )
    shown = [one[-1] for one in aliases]
    if len(set(shown)) < len(shown):  # ImageNet calls two classes crane, and two maillot
        shown = [one[0] for one in aliases]
        aliases = [[*one, one[0]] for one in aliases]
    if twice := [name for name, count in Counter(shown).items() if count > 1]:
        raise UserError(f"--classes: expected each class once, got {twice[0]} twice")
    return aliases


def _label(name: str, names: Sequence[str], aliases: Sequence[Sequence[str]], where: str) -> int:
    """The class that a name stands for: as it is, in any case and with blanks, or as a number of the list's."""
    for form in (str, _plain):
        matching = [label for label, one in enumerate(aliases) if form(name) in map(form, one)]
        if len(matching) == 1:
            return matching[0]
        if matching:
            raise UserError(f"{where}: expected one class for {name}, --classes has {len(matching)} of that name")
    if all(other.isdecimal() for other in names) and int(name) < len(aliases):
        return int(name)  # of folders that are numbers all are positions, for the list has none of these names
    hint = nearest(name, [one[-1] for one in aliases]) if len(aliases) <= 50 else f"it has {len(aliases)} others"
    raise UserError(f"{where}: {name} is none of the classes given; {hint}")


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _of_json(tree: Any, path: Path) -> list[list[str]]:
    if isinstance(tree, list):
        return [_strings(one, path) for one in tree]
    if isinstance(tree, dict) and tree:
        if all(str(key).isdecimal() for key in tree):
            return _by_index({int(key): value for key, value in tree.items()}, path)
        if all(isinstance(value, int) for value in tree.values()) and len(set(tree.values())) == len(tree):
            return _by_index({value: key for key, value in tree.items()}, path)
    raise UserError(f'{path}: expected a list of classes, {{"0": "cat", ...}} or {{"cat": 0, ...}}, got something else')


def _by_index(pairs: Mapping[int, Any], path: Path) -> list[list[str]]:
    first = min(pairs)
    if first not in (0, 1) or sorted(pairs) != list(range(first, first + len(pairs))):
        raise UserError(f"{path}: expected classes numbered without gaps from 0, got {first} to {max(pairs)}")
    return [_strings(pairs[index], path) for index in sorted(pairs)]


def _strings(value: Any, path: Path) -> list[str]:
    parts = value if isinstance(value, list) else [value]
    if not parts or not all(isinstance(part, str | int) and not isinstance(part, bool) for part in parts):
        raise UserError(f"{path}: expected names of classes, got {value!r}")
    return [str(part).strip() for part in parts]


def _synset(identity: str, words: str) -> list[str]:
    """ImageNet's identity of a class, its words together, and the first of them."""
    return [identity, words.strip(), words.split(",")[0].strip()]


def _listed(labels: Mapping[str, int], most: int = 4) -> str:
    shown = [f"{name} is {label}" for name, label in list(labels.items())[:most]]
    return ", ".join(shown) + (f" and {len(labels) - most} more" if len(labels) > most else "")
