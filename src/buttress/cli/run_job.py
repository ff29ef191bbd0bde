"""One job from its words to its exit status; whatever goes wrong ends as a line, or as our fault with a traceback."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from buttress.cli.commands import DONE, FAULT, GATE, JSON_JOBS, SHARED, STOPPED, job
from buttress.cli.last_words import LOST, tell
from buttress.cli.system_errors import system_mistake
from buttress.cli.terminal import Terminal
from buttress.cli.user_code_errors import users_mistake
from buttress.config.parsing import configuration, member_of, parse
from buttress.errors import GateNotMet, UserError
from buttress.processes import is_loss
from buttress.started import forget, started
from buttress.training import Interrupted

_PRINT = ("--print-config", "--print_config")


def run_job(name: str, words: Sequence[str]) -> int:
    """Run the job of a command, or print what the words ask for instead; with the processes that were started together.

    A command that does not share its work is left to the first of them.

    Raises:
        UserError: for the user's mistakes, those in files of the user's own included.
        KeyboardInterrupt: as it comes, with the terminal left in order.
    """
    process = started()
    if process is not None and name in SHARED:
        from buttress.cli.together import run_together  # not every torch has what it takes

        return run_together(partial(_run_here, name, words, first=process.rank == 0), process)
    if process is not None and process.rank > 0:
        return DONE
    forget()
    return _run_here(name, words, first=True)


def _run_here(name: str, words: Sequence[str], *, first: bool) -> int:
    quiet, as_json = "--quiet" in words or not first, name in JSON_JOBS and "--json" in words
    rest = [word for word in words if word != "--quiet" and not (as_json and word == "--json")]
    terminal = Terminal(quiet=quiet, lines=sys.stderr if as_json else sys.stdout)
    _settle_logging(quiet)
    if not first:
        warnings.simplefilter("ignore")  # the first process has the same
    try:
        return _run(name, rest, terminal, shlex.join(["buttress", name, *words]), as_json)
    except GateNotMet as error:
        terminal.close()
        return tell(f"buttress: {error}\n", GATE)
    except (UserError, BrokenPipeError, KeyboardInterrupt):
        terminal.close()
        raise
    except Interrupted as stop:
        terminal.close()
        text = f"{stop}; everything is saved, go on with --resume\n"
        return tell("" if quiet and first else text, STOPPED + stop.signal, terminal.lines if first else None)
    except BaseException as error:  # a user's code may raise anything
        terminal.close()
        if is_loss(error):
            return tell(LOST, STOPPED + signal.SIGTERM)
        refused = system_mistake(error)
        message = refused if isinstance(error, OSError) and refused else users_mistake(error) or refused
        if message is not None:
            raise UserError(message) from None
        ours = "buttress: this is our fault; please report it with the lines above\n"
        return tell(traceback.format_exc() + ours, FAULT)


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
