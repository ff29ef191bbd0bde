"""The entry point: which command is meant, and the exit status. What needs no torch does not import it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version

from buttress.cli.commands import DONE, JOBS, MISTAKE, STOPPED
from buttress.cli.help import command_help, list_help, usage
from buttress.cli.last_words import tell
from buttress.errors import UserError, shortened
from buttress.registry import nearest
from buttress.started import started

_HELP = ("-h", "--help")


def main(words: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0 done, 2 the user's mistake, 3 a gate that is not met, 1 our fault, 128 + n after a signal.
    """
    words = list(sys.argv[1:] if words is None else words)
    try:
        return _run(words)
    except UserError as error:
        return tell(f"buttress: {shortened(' '.join(str(error).split()))}\n", MISTAKE)
    except BrokenPipeError:  # who reads has seen enough, as in: buttress list attacks | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return tell("", STOPPED + signal.SIGPIPE)
    except KeyboardInterrupt as stop:
        number = signal.SIGINT if type(stop) is KeyboardInterrupt else signal.SIGTERM
        return tell("buttress: stopped\n", STOPPED + number)


def _run(words: list[str]) -> int:
    name, rest = (words[0], words[1:]) if words else ("--help", [])
    help_wanted = any(word in _HELP for word in rest)
    if name in (*_HELP, "help"):
        return _print(usage())
    if name == "--version":
        return _print(f"buttress {_version()}\n")
    if name == "--print-completion":
        from buttress.cli.completion import completion

        return _print(completion(rest))
    if name == "list":
        return _print(list_help()) if help_wanted else _list(rest)
    if name not in JOBS:
        raise UserError(f"there is no command {name!r}; {nearest(name, sorted([*JOBS, 'list']))}")
    if help_wanted:
        return _print(command_help(name))
    from buttress.cli.run_job import run_job

    run: Callable[[str, Sequence[str]], int] = run_job
    return run(name, rest)


def _list(words: Sequence[str]) -> int:
    from buttress.cli.list_command import list_command

    return _print(list_command(words))


def _print(text: str) -> int:
    process = started()
    if process is None or process.rank == 0:
        sys.stdout.write(text)
        sys.stdout.flush()
    return DONE


def _version() -> str:
    try:
        return version("buttress")
    except PackageNotFoundError:
        return "source"
