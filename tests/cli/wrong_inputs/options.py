"""Every option of every command with a value of the wrong kind, and with values that are odd."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_origin

from tests.cli.wrong_inputs.case import Case

from buttress.cli.commands import JOBS, job
from buttress.config.annotations import alternatives, is_group, is_mapping, item_of
from buttress.config.job_spec import job_spec
from buttress.config.roles import role_of

COMMANDS = {
    "train": "train new --data moons --model mlp --epochs 1 --dry-run",
    "audit": "audit moons --out new --dry-run",
    "harden": "harden moons --out new --epochs 1 --dry-run",
    "compare": "compare audit audit --out new --dry-run",
    "attack": "attack moons --out new --dry-run",
    "export": "export moons --onnx new.onnx --dry-run",
    "reproduce": "reproduce lsa-table2-moon --dry-run",
}
SURROGATE = "caf\udce9"  # how Python holds a byte of another encoding
# Of the wrong kind, whatever the option means.
WRONG = {
    bool: ("--{}=maybe", "--{}=3", "--{}=''", "--{}=nan"),
    int: ("1.5", "nan", "many", "", "1,2", "/etc/passwd", "0x", "1e400", "[1]", "{a: 1}", "é"),
    float: ("many", "", "1,2", "8/0", "[1]", "{a: 1}", "/etc/passwd", "½", SURROGATE),
    "choice": ("", "AUTO ", "nan", "3", "auto,cpu", "{a: 1}", SURROGATE),
    "member": ("", "nothing-such", "3", "é", "nowhere.py:Thing", "{name: }", "{steps: 3}", "[", SURROGATE),
    "mapping": ("3", "a", "[1]", "", "{a", "true"),
    "group": ("3", "a", "[1]", "", "{a: 1}", "{"),
}
# What an option may or may not take: it is refused in a sentence, or nothing happens in a dry run.
ODD = {
    int: ("-1", "0", "99999999999999999999999999", "-99999999999999999999", "2147483648"),
    float: ("nan", "inf", "-inf", "-1", "1e308", "1e-320", "0"),
    "text": (
        "",
        " ",
        "nowhere/é",
        "/dev/null",
        "a\nb",
        "x" * 5000,
        SURROGATE,
        "[",
        "{}",
        "none",
        "3",
        "~/\0"[:2],
        "..",
    ),
}
SET_BY_BASE = ("dry_run",)


def kind_of(annotation: object) -> object:
    """Which of these kinds of values an option takes."""
    kinds = alternatives(annotation)
    if len(kinds) > 1 or item_of(kinds[0]) is not None:
        return "member" if any(role_of(item_of(kind) or kind) for kind in kinds) else "text"
    (kind,) = kinds
    if kind in (bool, int, float):
        return kind
    if get_origin(kind) is Literal:
        return "choice"
    if is_mapping(kind):
        return "mapping"
    if role_of(kind) is not None:
        return "member"
    return "group" if is_group(kind) else "text"


def cases() -> Iterator[Case]:
    """One wrong value for each option of each command, and some odd ones for each option there is."""
    turns = {kind: itertools.cycle(values) for kind, values in WRONG.items()}
    odd = {kind: itertools.cycle(values) for kind, values in ODD.items()}
    seen: dict[str, int] = {}
    for command in JOBS:
        for name, parameter in job_spec(job(command)).known.items():
            kind = kind_of(parameter.annotation)
            option = name.replace("_", "-")
            if kind in WRONG:
                value = next(turns[kind])
                given = (value.format(option),) if kind is bool else (f"--{option}", value)
                yield Case(f"wrong {_called(kind)}", (*COMMANDS[command].split(), *given))
            seen[name] = seen.get(name, 0) + 1
            if kind in ODD and seen[name] <= 3 and name not in SET_BY_BASE:
                given = (f"--{option}", next(odd[kind]))
                yield Case(f"odd {_called(kind)}", (*COMMANDS[command].split(), *given), _fresh, (0, 2))


def _called(kind: object) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _fresh(here: Path) -> None:
    (here / "claims").mkdir()
