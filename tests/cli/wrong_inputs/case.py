"""One wrong input: what is laid out, what is typed, and what a command may answer."""

import ctypes
import fcntl
import hashlib
import os
import resource
import shutil
import stat
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from buttress.cli import main

OTHER = "\udce9"  # how Python holds a byte of another encoding, here the name of an output folder


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
        chatty: whether what the user gave writes to standard error itself.
    """

    kind: str
    words: tuple[str, ...]
    prepare: Callable[[Path], object] = nothing
    statuses: tuple[int, ...] = (2,)
    late: bool = False
    user: bool = False
    most: int | None = None
    chatty: bool = False

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
    if case.chatty:
        lines = lines[-1:]
    found = []
    if answer.status not in case.statuses:
        found.append(f"status {answer.status}")
    if "Traceback" in answer.err:
        found.append("a traceback")
    if len(lines) != (answer.status != 0):
        found.append(f"{len(lines)} lines on standard error")
    if answer.status == 2 and not (lines and lines[0].startswith("buttress: ") and 20 < len(lines[0]) < 1000):
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
    if case.user and os.getuid() == 0:
        _heed_permissions()
    before = tree(here, late=case.late)
    told = _Pipe(), _Pipe()
    for number, pipe in enumerate(told, 1):
        os.dup2(pipe.end, number)
    if case.most is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (case.most, resource.RLIM_INFINITY))
    begin = time.perf_counter()
    status = main(list(case.words))
    sys.stdout.flush()
    sys.stderr.flush()
    seconds = time.perf_counter() - begin
    if case.most is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    after = tree(here, late=case.late)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return Answer(status, told[1].text(), changed, seconds)


def _heed_permissions() -> None:
    """Have this process of root's ask permission for its own files, as every other user's does: by capset(2)."""
    system, header = ctypes.CDLL(None), struct.pack("Ii", 0x20080522, 0)  # version 3, this process
    sets = (ctypes.c_uint32 * 6)()
    assert system.capget(header, sets) == 0
    for index in (0, 1):  # effective and permitted: CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        sets[index] &= ~(1 << 1 | 1 << 2)
    assert system.capset(header, sets) == 0


class _Pipe:
    """What is written to a stream, in no file: files may be limited."""

    def __init__(self) -> None:
        self.begin, self.end = os.pipe()
        fcntl.fcntl(self.end, fcntl.F_SETPIPE_SZ, 1 << 20)
        os.set_blocking(self.begin, False)

    def text(self) -> str:
        """What has been written by now."""
        try:
            return os.read(self.begin, 1 << 20).decode("utf-8", "replace")
        except BlockingIOError:
            return ""


def tree(folder: Path, *, late: bool) -> dict[str, str]:
    """By place what a folder holds, but for compiled Python, and for the output folder of work that has begun."""
    found = {}
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__" and not (late and name in ("new", OTHER))]
        for path in (Path(place, name) for name in [*folders, *files]):
            kind = path.lstat().st_mode
            content = os.readlink(path) if stat.S_ISLNK(kind) else f"mode {kind:o}"
            if stat.S_ISREG(kind) and os.access(path, os.R_OK):
                content += hashlib.sha256(path.read_bytes()).hexdigest()
            found[ascii(str(path.relative_to(folder)))] = content
    return found
