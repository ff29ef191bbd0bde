"""Configuration files that are none, or say what no job understands."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.cli.wrong_inputs.case import Case
from tests.cli.wrong_inputs.options import COMMANDS

TEXTS = {
    "tabs": b"epochs:\t3\n\tseed: 4\n",
    "twice": b"epochs: 3\nepochs: 4\n",
    "twice, further in": b"threat: {eps: 0.1, eps: 0.2}\n",
    "a list": b"[epochs, 3]\n",
    "a list for a mapping": b"threat: [0.1, 0.2]\n",
    "a mapping for a number": b"epochs: {a: 3}\n",
    "a list for a number": b"epochs: [3]\n",
    "empty": b"",
    "only a comment": b"# epochs: 3\n",
    "two documents": b"epochs: 3\n---\nepochs: 4\n",
    "an alias of nothing": b"epochs: *nothing\n",
    "an alias of itself": b"model_args: &a {b: *a}\n",
    "a bomb": b"a: &a [x,x,x,x,x,x,x,x,x]\n"
    + b"".join(b"%c: &%c [%s]\n" % (n, n, b",".join([b"*%c" % (n - 1)] * 9)) for n in range(98, 108)),
    "a tag": b"epochs: !!python/object/apply:os.system ['touch hacked']\n",
    "a tag of nobody": b"epochs: !mine 3\n",
    "binary": bytes(range(256)),
    "NUL": b"epochs: \x003\n",
    "UTF-16": "epochs: 3".encode("utf-16"),
    "Latin-1": "model: café".encode("latin-1"),
    "no key": b"? [a, b]\n: 3\n",
    "a key of no text": b"3: 4\n",
    "a key of nothing": b"~: 4\n",
    "a date": b"epochs: 2026-01-01\n",
    "no end": b"epochs: 'three\n",
    "deep": b"model_args: " + b"[" * 3000 + b"]" * 3000,
    "unknown": b"epochz: 3\n",
    "unknown, further in": b"threat: {epz: 3}\n",
    "null": b"epochs:\n",
    "a number for a text": b"data: 3\n",
    "yes for a number": b"epochs: yes\n",
    "a sexagesimal": b"epochs: 1:30\n",
    "a path for a member": b"defence: /etc/passwd\n",
    "a member without a name": b"defence: {beta: 6}\n",
    "a class that is not there": b"defence: {class_path: os.system, init_args: {command: ls}}\n",
    "a class of ours that is none": b"defence: {class_path: buttress.attacks.PGD}\n",
    "settings that are no mapping": b"defence: {class_path: buttress.defences.TRADES, init_args: [3]}\n",
    "a list of no members": b"monitors: [3]\n",
    "nan": b"clip: .nan\n",
    "another job's": b"audits: [robustness]\n",
    "itself": b"config: job.yaml\n",
    "JSON with a comma too many": b'{"epochs": 3,}}\n',
}


def cases() -> Iterator[Case]:
    """A file of each, and what is no file."""
    words = (*COMMANDS["train"].split(), "--config", "job.yaml")
    for text in TEXTS.values():
        yield Case("configuration", words, partial(_write, text))
    yield Case("configuration", words, _large)
    yield Case("configuration", words, lambda here: (here / "job.yaml").mkdir())
    yield Case("configuration", words, lambda here: (here / "job.yaml").symlink_to("job.yaml"))
    yield Case("configuration", words)
    yield Case("configuration", (*words[:-1], "/dev/null"))
    yield Case("configuration", words, _closed, user=True)
    yield Case("configuration", words[:-1])
    yield Case("configuration", (*words[:-1], "mine.py"))
    yield Case("configuration", (*words[:-1], "moons"))
    yield Case("configuration", (*words[:-1], "moons/model.safetensors"))
    yield Case("recipe", ("reproduce", "./job.yaml", "--dry-run"), partial(_write, b"epochs: 3\n"))
    for text in (b"claim: 3\n", b"summary: x\nclaim: {kind: nothing}\n", b"", b"[", b"\xff\xfe", b"claim: {}\n"):
        yield Case("recipe", ("reproduce", "./job.yaml", "--dry-run"), partial(_write, text))


def _write(text: bytes, here: Path) -> None:
    (here / "job.yaml").write_bytes(text)


def _large(here: Path) -> None:
    with (here / "job.yaml").open("wb") as file:
        file.write(b"epochs: 3\nx: '")
        file.truncate(50_000_000)


def _closed(here: Path) -> None:
    _write(b"epochs: 3\n", here)
    (here / "job.yaml").chmod(0)
