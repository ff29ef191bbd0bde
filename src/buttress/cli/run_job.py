"""One job from its words to its exit status; whatever goes wrong ends as a line, or as our fault with a traceback."""

from __future__ import annotations

import errno
import logging
import shlex
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from buttress.cli.commands import DONE, FAULT, GATE, JSON_JOBS, STOPPED, job
from buttress.cli.terminal import Terminal
from buttress.cli.user_code_errors import users_mistake
from buttress.config.parsing import configuration, member_of, parse
from buttress.errors import GateNotMet, UserError
from buttress.training import Interrupted

_PRINT = ("--print-config", "--print_config")
_USERS_TO_MEND = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM),
    *(errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENOENT),
)


def run_job(name: str, words: Sequence[str]) -> int:
    """Run the job of a command, or print what the words ask for instead.

    Raises:
        UserError: for the user's mistakes, those in files of the user's own included.
        KeyboardInterrupt: as it comes, with the terminal left in order.
    """
    quiet, as_json = "--quiet" in words, name in JSON_JOBS and "--json" in words
    rest = [word for word in words if word != "--quiet" and not (as_json and word == "--json")]
    terminal = Terminal(quiet=quiet, lines=sys.stderr if as_json else sys.stdout)
    _settle_logging(quiet)
    try:
        return _run(name, rest, terminal, shlex.join(["buttress", name, *words]), as_json)
    except GateNotMet as error:
        terminal.close()
        sys.stderr.write(f"buttress: {error}\n")
        return GATE
    except (UserError, BrokenPipeError, KeyboardInterrupt):
        terminal.close()
        raise
    except Interrupted as stop:
        terminal.close()
        terminal.line(f"{stop}; everything is saved, go on with --resume")
        return STOPPED + stop.signal
    except (Exception, SystemExit) as error:
        terminal.close()
        if isinstance(error, OSError) and error.errno in _USERS_TO_MEND:
            raise UserError(f"{error.filename or 'the disk'}: {error.strerror}") from None
        message = users_mistake(error)
        if message is not None:
            raise UserError(message) from None
        traceback.print_exc()
        sys.stderr.write("buttress: this is our fault; please report it with the lines above\n")
        return FAULT


def _run(name: str, words: Sequence[str], terminal: Terminal, command: str, as_json: bool) -> int:
    call = job(name)
    if any(word in _PRINT for word in words):
        sys.stdout.write(configuration(call, [word for word in words if word not in _PRINT]))
        return DONE
    if member := member_of(call, words):
        from buttress.cli.listing import member_help

        sys.stdout.write(member_help(member))
        return DONE
    values = parse(call, words)
    own: Mapping[str, Any] = {"reporter": terminal, "command": command}
    try:
        call(**values, **{key: value for key, value in own.items() if key in call.__annotations__})
    except GateNotMet:  # the report is written then
        if as_json:
            _print_findings(values["out"] / "findings.json")
        raise
    if as_json:
        _print_findings(values["out"] / "findings.json")
    return DONE


def _print_findings(path: Path) -> None:
    """What the job wrote; a dry run writes nothing."""
    if path.is_file():
        sys.stdout.write(path.read_text(encoding="utf-8").rstrip("\n") + "\n")
        sys.stdout.flush()


def _settle_logging(quiet: bool) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("buttress").setLevel(logging.ERROR if quiet else logging.WARNING)
    for name in ("lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning_fabric|torch.utils.tensorboard|jsonargparse")
