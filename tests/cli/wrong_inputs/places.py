"""Places to write to that are taken, or where nothing can be written."""

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.cli.wrong_inputs.case import OTHER, Case

AUDIT = "audit moons --audits robustness --attacks fgsm --inputs 8 --out"
COMMANDS = {
    "train": "train {} --data moons --model mlp --epochs 1 --data-args.samples 80",
    "audit": f"{AUDIT} {{}}",
    "attack": "attack moons --inputs 8 --out {}",
    "harden": "harden moons --inputs 8 --out {} --epochs 1",
    "compare": "compare audit audit --out {}",
    "export": "export moons --onnx {}/net.onnx",
    "reproduce": "reproduce lsa-table2-moon --seeds 1 --workers 0 --out claims --work {}",
}
OTHER_BYTES = f"{OTHER}/\udce8"
PLACES = ("file", "full", "file/inside", "moons", "loop", "/proc/new", "/dev/null", "link", "x" * 300, "audit")


def _lay_out(here: Path) -> None:
    (here / "file").write_text("mine")
    (here / "full").mkdir()
    (here / "full" / "notes.txt").write_text("mine")
    (here / "loop").symlink_to("loop")
    (here / "link").symlink_to("full")


def _read_only(here: Path) -> None:
    (here / "closed").mkdir(mode=0o555)
    for path in here.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)


def cases() -> Iterator[Case]:
    """Each command with each."""
    for command, words in COMMANDS.items():
        for place in PLACES:
            if command == "export" and place in ("full", "link", "audit", "moons"):
                continue  # one file, beside what is there
            yield Case("places", tuple(word.format(place) for word in words.split()), _lay_out)
        if command not in ("harden", "reproduce"):
            given = tuple(word.format(OTHER_BYTES) for word in words.split())
            yield Case("places of other bytes", given, statuses=(0, 2), late=True)
        yield Case("closed places", tuple(word.format("closed/new") for word in words.split()), _read_only, user=True)
        if command not in ("harden", "reproduce"):
            given = tuple(word.format("new") for word in words.split())
            yield Case("a full disk", given, most=20, late=True)
            yield Case("a full disk", given, most=600, late=True)
            yield Case("a full disk", given, most=3000, late=True, statuses=(0, 2))
    for command, words in COMMANDS.items():
        given = tuple(word.format("moons") for word in words.split())
        if command in ("train", "audit", "attack", "harden"):
            yield Case("resuming", (*given, "--resume"))
            yield Case("resuming", (*given, "--resume"), partial(_other_version, {"settings": 3}))
            yield Case(
                "resuming",
                (*given, "--resume"),
                partial(_other_version, {"settings": {}, "versions": {"buttress": "99.0"}}),
            )
            yield Case("resuming", (*given, "--resume"), partial(_other_version, []))
    yield Case("resuming", ("attack", "moons", "--out", "audit", "--resume"))
    yield Case("resuming", ("audit", "moons", "--out", "digits", "--resume"))
    yield Case(
        "resuming", ("reproduce", "lsa-table2-moon", "--out", "claims", "--work", "moons", "--resume", "--workers", "0")
    )
    yield Case("resuming", ("reproduce", "lsa-table2-moon", "--out", "claims", "--judge"))
    yield Case("documents", ("reproduce", "lsa-table2-moon", "--out", "claims", "--document", "mine.py", "--dry-run"))
    yield Case("documents", ("reproduce", "lsa-table2-moon", "--out", "claims", "--document", "moons", "--dry-run"))
    yield Case("documents", ("reproduce", "lsa-table2-moon", "--out", "mine.py", "--dry-run"))
    for text in ("", "{", "[]", "{}", '{"recipe": 3}', "null"):
        yield Case("results", ("reproduce", "lsa-table2-moon", "--out", "claims", "--judge"), partial(_result, text))


def _other_version(content: object, here: Path) -> None:
    (here / "moons" / "run.json").write_text(json.dumps(content))


def _result(text: str, here: Path) -> None:
    shutil.rmtree(here / "claims", ignore_errors=True)
    (here / "claims").mkdir()
    (here / "claims" / "lsa-table2-moon.json").write_text(text)
