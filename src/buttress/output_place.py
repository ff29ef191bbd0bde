"""The place that a job writes to: tried and claimed before its work, and given back after it.

A claim is a lock on a small file there. The system drops it with the process that holds it, so that nothing of a job
that was killed stands in the way of the next.
"""

from __future__ import annotations

import datetime
import functools
import inspect
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import ParamSpec, TypeVar

from buttress.errors import UserError
from buttress.started import started

P = ParamSpec("P")
R = TypeVar("R")
Hold = Callable[[Path], AbstractContextManager[None]]

CLAIM = ".buttress-job"
_held: set[Path] = set()  # by this process, whose jobs run other jobs


def entries(folder: Path) -> set[str]:
    """The names in a folder, but for the claim of a job; empty where there is no folder."""
    return {entry.name for entry in folder.iterdir()} - {CLAIM} if folder.is_dir() else set()


def taken(folder: Path) -> bool:
    """Whether something is there that a job could overwrite: a file, or a folder that is not empty."""
    return bool(entries(folder)) or (folder.exists() and not folder.is_dir())


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a folder for a job of this process; it is made where missing, and removed again where nothing came of it.

    Where the file system has no locks, the place is only tried.

    Raises:
        UserError: for a folder that cannot be made or written, and one that another job holds, saying which.
    """
    with _locked(folder, folder / CLAIM):
        yield


@contextmanager
def claimed_file(path: Path) -> Iterator[None]:
    """As `claimed`, a file and not all of its folder.

    Raises:
        UserError: likewise, and for what can be no file's name.
    """
    if not path.name:
        raise UserError(f"{path} is no name of a file: give one")
    with _locked(path, path.with_name(f".{path.name}{CLAIM}")):
        yield


def claims(option: str, hold: Hold = claimed) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a job hold the place that an option of its own names, for as long as it runs.

    A dry run holds nothing, nor do other processes of a job than its first, nor does a job whose option is None.

    Args:
        option: the name of its parameter.
        hold: `claimed` or `claimed_file`.
    """

    def around(job: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(job)

        @functools.wraps(job)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            given = signature.bind_partial(*args, **kwargs).arguments
            place = None if given.get("dry_run") or not _is_first() else given.get(option)
            holding: AbstractContextManager[None] = nullcontext() if place is None else hold(Path(place))
            with holding:
                return job(*args, **kwargs)

        return call

    return around


def _is_first() -> bool:
    """Whether this is the first of the processes that share a job, also before they are joined."""
    from torch import distributed  # here, for what needs no torch imports this file

    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() == 0
    process = started()
    return process is None or process.rank == 0


@contextmanager
def _locked(place: Path, mark: Path) -> Iterator[None]:
    mark = mark.absolute()  # also where a user's code changes the working directory meanwhile
    if mark in _held:
        yield
        return
    made: list[Path] = []
    try:
        made += _make(mark.parent)
        handle = _lock(place, mark)
    except OSError as error:
        _remove(made)
        reason = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        raise UserError(f"nothing can be written to {place}: {reason}; choose another output place") from None
    _held.add(mark)
    try:
        yield
    finally:
        _held.discard(mark)
        with suppress(OSError):
            mark.unlink()
        os.close(handle)
        _remove(made)


def _make(folder: Path) -> list[Path]:
    """Make a folder and those above it; the new ones, the innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _remove(folders: list[Path]) -> None:
    """Remove those of them that are empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _lock(place: Path, mark: Path) -> int:
    """An open file that holds the lock.

    Raises:
        UserError: when another process holds it.
        OSError: for a place that cannot be written.
    """
    while True:
        handle = os.open(mark, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _try_lock(handle):
                holder = os.pread(handle, 200, 0).decode(errors="replace").strip()
                raise UserError(
                    f"another job writes to {place} ({holder or 'just begun'}): wait for it, or choose another place"
                )
            if _same_file(handle, mark):
                os.ftruncate(handle, 0)
                now = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
                os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}, since {now}\n".encode(), 0)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # the job before has removed it meanwhile


def _try_lock(handle: int) -> bool:
    try:
        import fcntl
    except ImportError:  # a system without such locks
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without them
        return True
    return True


def _same_file(handle: int, mark: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), mark.stat())
    except FileNotFoundError:
        return False
