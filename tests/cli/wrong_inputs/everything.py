"""All wrong inputs there are, by name."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path

from tests.cli.wrong_inputs import (
    checkpoints,
    configurations,
    folders,
    options,
    places,
    records,
    tables,
    users_code,
    words,
)
from tests.cli.wrong_inputs.case import Case, run_case

FAMILIES = (words, options, configurations, folders, tables, checkpoints, users_code, places, records)


def named() -> dict[str, Case]:
    """By a name of its own each."""
    found: dict[str, Case] = {}
    for case in _all():
        name, number = str(case), 2
        while name in found:
            name, number = f"{case} ({number})", number + 1
        found[name] = case
    return found


def _all() -> Iterator[Case]:
    return chain.from_iterable(family.cases() for family in FAMILIES)


def answer_to(name: str, base: Path, folder: Path) -> None:
    """Run a case in this process, and write its answer to ``folder``."""
    answer = run_case(named()[name], base, folder / "here")
    (folder / "answer.json").write_text(json.dumps(asdict(answer)))
