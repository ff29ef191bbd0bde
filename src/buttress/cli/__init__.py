"""The command line: one typed parser over the jobs' signatures; one line and status 2 for a user's mistake."""

from __future__ import annotations

import errno
import inspect
import json
import logging
import os
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from buttress import registry
from buttress.claims.reproduce import reproduce
from buttress.cli.help import command_help, usage
from buttress.cli.listing import documentation, listing
from buttress.cli.terminal import Terminal
from buttress.cli.user_code_errors import users_mistake
from buttress.config.job_options import options
from buttress.config.parsing import parse
from buttress.errors import UserError
from buttress.jobs import attack, audit, compare, export, harden, train
from buttress.jobs.settings import Network, Source, Training
from buttress.training import Interrupted, versions

JOBS: dict[str, Callable[..., Any]] = {
    "train": train,
    "audit": audit,
    "harden": harden,
    "compare": compare,
    "attack": attack,
    "export": export,
    "reproduce": reproduce,
}
# Groups of options that several jobs share; each is flat on the command line: --data, --model, --epochs.
GROUPS: dict[str, type] = {"source": Source, "architecture": Network, "training": Training}
GIVEN = {"reporter", "command"}  # by the command line itself
_USERS_TO_MEND = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM),
    *(errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENOENT),
)


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 2 the user's mistake, 1 our fault, 128 + n after a signal."""
    words = list(sys.argv[1:] if words is None else words)
    terminal = Terminal()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning_fabric|torch.utils.tensorboard|jsonargparse")
    try:
        return _run(words, terminal)
    except UserError as error:
        return _mistake(terminal, str(error))
    except Interrupted as stop:
        terminal.close()
        terminal.line(f"{stop}; everything is saved, go on with --resume")
        return 128 + stop.signal
    except BrokenPipeError:  # who reads has seen enough, as in: buttress list attacks | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        terminal.close()
        sys.stderr.write("buttress: stopped\n")
        return 128 + signal.SIGINT
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _USERS_TO_MEND:
            return _mistake(terminal, f"{error.filename or 'the disk'}: {error.strerror}")
        told = users_mistake(error)
        return _fault(terminal) if told is None else _mistake(terminal, told)


def _mistake(terminal: Terminal, text: str) -> int:
    terminal.close()
    sys.stderr.write(f"buttress: {' '.join(text.split())}\n")
    return 2


def _fault(terminal: Terminal) -> int:
    terminal.close()
    traceback.print_exc()
    sys.stderr.write("buttress: this is our fault; please report it with the lines above\n")
    return 1


def _run(words: list[str], terminal: Terminal) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        sys.stdout.write(usage(JOBS))
        return 0
    name, rest = words[0], words[1:]
    if name == "--version":
        sys.stdout.write(f"buttress {versions()['buttress']}\n")
        return 0
    if name == "list":
        return _list(rest, terminal)
    if name not in JOBS:
        raise UserError(f"there is no command {name!r}; {registry.nearest(name, sorted([*JOBS, 'list']))}")
    job = JOBS[name]
    known = options(job, GROUPS, _no_options(job))
    if "-h" in rest or "--help" in rest:
        sys.stdout.write(command_help(name, job, known))
        return 0
    values = parse(job, known, GROUPS, _no_options(job), rest)
    if values is not None:
        given = {"reporter": terminal, "command": shlex.join(["buttress", *words])}
        job(**values, **{key: value for key, value in given.items() if key in job.__annotations__})
    return 0


def _long(value: object) -> bool:
    return value is None or len(str(value)) > 20


def _no_options(job: Callable[..., Any]) -> set[str]:
    """Parameters that the command line gives by itself; a network that must be named leaves no model to choose."""
    network = inspect.signature(job).parameters.get("network")
    return GIVEN | ({"model"} if network is not None and network.default is network.empty else set())


def _list(words: list[str], terminal: Terminal) -> int:
    names = [word for word in words if not word.startswith("-")]
    asked = {word for word in words if word.startswith("-")}
    if len(names) not in (1, 2) or not asked <= {"--json"}:
        roles = f"{', '.join(sorted(registry.ROLES))}, recipes"
        raise UserError(f"usage: buttress list ROLE [NAME] [--json], ROLE one of {roles}")
    if len(names) == 2 and not asked:
        terminal.line(documentation(*names))
        return 0
    rows = listing(*names)
    if "--json" in asked:
        terminal.line(json.dumps(rows, indent=1))
        return 0
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        terminal.line(f"{row['name']:<{width}}  {row['summary']}")
        if row.get("options"):
            told = (name if _long(value) else f"{name}={value}" for name, value in row["options"].items())
            terminal.line(f"{'':<{width}}    {', '.join(told)}")
        if row.get("paper"):
            before = f", and first {row['preparation']}" if row["preparation"] else ""
            ours = f"; reconstruction: {row['reconstruction']}" if row["reconstruction"] else ""
            terminal.line(f"{'':<{width}}    {row['paper']}; {_cost(row)}{before}{ours}")
    return 0


def _cost(row: dict[str, Any]) -> str:
    if row["cost"] is None:
        return str(row["cost_hangs_on"] or "unknown cost")
    return f"{row['cost']:.3g} x the passes of standard training"


if __name__ == "__main__":
    sys.exit(main())
