"""One wrong input: what is laid out, what is typed, and what a command may answer."""

import hashlib
import os
import resource
import shutil
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from buttress.cli import main

NOBODY = 65534


def nothing(here: Path) -> None:
    """Lays out nothing."""


@dataclass(frozen=True)
class Case:
    """A command that must be refused.

    Args:
        kind: what is wrong, in a word or two; the first cases of each are run without ``--full``.
        words: what is typed after ``buttress``; in the working directory are ``mine.py``, the runs ``moons`` and
            ``digits``, and audits of them, ``audit`` and ``audit-digits``.
        prepare: lays out what is wrong in the working directory.
        statuses: that the command may end with.
        late: whether the mistake shows only when work has begun, so that the output folder may be left.
        user: whether an ordinary user runs the command, for whom permissions count.
        most: bytes, the largest file that may be written.
    """

    kind: str
    words: tuple[str, ...]
    prepare: Callable[[Path], object] = nothing
    statuses: tuple[int, ...] = (2,)
    late: bool = False
    user: bool = False
    most: int | None = None

    def __str__(self) -> str:
        return ascii(f"{self.kind}: {' '.join(self.words)}")[1:-1][:150]


@dataclass(frozen=True)
class Answer:
    """What a command did."""

    status: int
    err: str
    changed: list[str]
    seconds: float


def judge(case: Case, answer: Answer) -> list[str]:
    """What is wrong with an answer, in words; nothing where it is as it should be."""
    lines = answer.err.splitlines()
    found = []
    if answer.status not in case.statuses:
        found.append(f"status {answer.status}")
    if "Traceback" in answer.err:
        found.append("a traceback")
    if len(lines) != (answer.status != 0) or not answer.err.isprintable() ^ bool(lines):
        found.append(f"{len(lines)} lines on standard error")
    if answer.status == 2 and not (answer.err.startswith("buttress: ") and 20 < len(answer.err) < 600):
        found.append("no sentence")
    for word in ("<class", "<function", "object at 0x", "Namespace", "this is our fault"):
        if word in answer.err:
            found.append(f"{word!r} in the sentence")
    if answer.changed:
        found.append(f"changed {answer.changed}")
    return found


def run_case(case: Case, base: Path, here: Path) -> Answer:
    """Run the command, in a process that is there for nothing else."""
    shutil.copytree(base, here, symlinks=True, dirs_exist_ok=True)
    os.chdir(here)
    sys.path[0] = ""
    case.prepare(here)
    before = tree(here, late=case.late)
    if case.user and os.getuid() == 0:
        here.chmod(0o777)
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    if case.most is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (case.most, resource.RLIM_INFINITY))
    told, begin = here.parent / "err", time.perf_counter()
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(here.parent / name, os.O_CREAT | os.O_RDWR | os.O_TRUNC), number)
    status = main(list(case.words))
    sys.stdout.flush()
    sys.stderr.flush()
    seconds = time.perf_counter() - begin
    after = tree(here, late=case.late)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return Answer(status, told.read_text(encoding="utf-8", errors="surrogateescape"), changed, seconds)


def tree(folder: Path, *, late: bool) -> dict[str, str]:
    """By place what a folder holds, but for compiled Python, and for the output folder of work that has begun."""
    found = {}
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__" and not (late and name == "new")]
        for path in (Path(place, name) for name in [*folders, *files]):
            kind = path.lstat().st_mode
            content = os.readlink(path) if stat.S_ISLNK(kind) else f"mode {kind:o}"
            if stat.S_ISREG(kind) and os.access(path, os.R_OK):
                content += hashlib.sha256(path.read_bytes()).hexdigest()
            found[ascii(str(path.relative_to(folder)))] = content
    return found
