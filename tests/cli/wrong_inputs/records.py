"""Runs and audits that were edited by hand, damaged, or written by another version."""

import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.cli.wrong_inputs.case import Case

COMPARE = ("compare", "audit", "audit-digits", "--out", "new")
AUDIT = ("audit", "moons", "--out", "new", "--audits", "robustness", "--attacks", "fgsm", "--inputs", "8")
OTHERS = (None, 3, -1, "x", [], {}, [1, 2], {"a": 1}, True, float("nan"), float("inf"), 1e300, "")
FILES = {
    "audit/findings.json": ("compare", "audit", "audit", "--out", "new"),
    "moons/model.json": AUDIT,
}
TEXTS = (
    "",
    "{",
    "[]",
    "3",
    "null",
    "{}",
    "\ud83d"[:0] + "é",
    "NaN",
    '{"facts": {}, "networks": {}}',
    '{"model": null}',
)


def cases() -> Iterator[Case]:
    """Each file with other texts, and with a value that is gone or another."""
    for file, words in FILES.items():
        for text in TEXTS:
            yield Case("records", words, partial(_text, file, text))
        yield Case("records", words, partial(_bytes, file, lambda data: data[: len(data) // 2]))
        yield Case("records", words, partial(_bytes, file, lambda data: b"\xff\xfe" + data))
        yield Case("records", words, partial(_bytes, file, lambda data: b"[" * 100_000))
        yield Case("records", words, lambda here, file=file: (here / file).unlink())
        yield Case("records", words, partial(_closed, file), user=True)
        for seed in range(60):
            yield Case("edited records", words, partial(_edited, file, seed), (0, 2), late=True)
    for part in ("model.safetensors", "history.json", "run.json", "metrics.csv"):
        yield Case("runs", AUDIT, partial(_bytes, f"moons/{part}", lambda data: data[:20]), (0, 2), late=True)


def _text(file: str, text: str, here: Path) -> None:
    (here / file).write_text(text)


def _bytes(file: str, change: Callable[[bytes], bytes], here: Path) -> None:
    (here / file).write_bytes(change((here / file).read_bytes()))


def _closed(file: str, here: Path) -> None:
    (here / file).chmod(0)


def _edited(file: str, seed: int, here: Path) -> None:
    """One value somewhere is gone, or is another."""
    draw = random.Random(seed)
    tree = json.loads((here / file).read_text())
    holder, key = draw.choice(list(_places(tree)))
    if draw.random() < 0.4:
        del holder[key]
    else:
        holder[key] = draw.choice(OTHERS)
    (here / file).write_text(json.dumps(tree))


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in list(keys)[:12]:
        yield tree, key
        yield from _places(tree[key])
