"""Shell completion: a script by shtab, of jsonargparse's parser over the options that help lists."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from buttress.cli.commands import JOBS, JSON_JOBS
from buttress.cli.static.members import roles
from buttress.cli.static.options import Option, job_options, summary
from buttress.errors import UserError
from buttress.registry import nearest

_SHELLS = ("bash", "zsh", "tcsh")


def completion(words: Sequence[str]) -> str:
    """The script for the shell that the words name.

    Raises:
        UserError: for another shell, and where shtab is not installed.
    """
    shell = words[0] if words else ""
    if shell not in _SHELLS or len(words) > 1:
        raise UserError(f"--print-completion takes one shell; {nearest(' '.join(words), list(_SHELLS))}")
    if find_spec("shtab") is None:
        raise UserError("shell completion needs shtab: pip install 'buttress[completion]'")
    script: str = _parser().get_completion_script(f"shtab-{shell}")
    return script.rstrip("\n") + "\n"


def _parser() -> Any:
    import jsonargparse

    parser = jsonargparse.ArgumentParser(prog="buttress", exit_on_error=False)
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subcommands(required=False)
    for name in JOBS:
        command = jsonargparse.ArgumentParser(exit_on_error=False, description=summary(name))
        command.add_argument("--config", type=Path, help="a YAML file of these options")
        for flag in ("--print-config", "--quiet", *(["--json"] if name in JSON_JOBS else [])):
            command.add_argument(flag, action="store_true")
        for option in job_options(name):
            command.add_argument(option.flag, type=_type(option), help=option.text.replace("%", "%%"))
        commands.add_subcommand(name, command)
    listing = jsonargparse.ArgumentParser(exit_on_error=False, description="What there is of a role.")
    listing.add_argument("role", type=Literal[tuple(roles())], nargs="?")
    listing.add_argument("name", type=str, nargs="?")
    listing.add_argument("--json", action="store_true")
    commands.add_subcommand("list", listing)
    return parser


def _type(option: Option) -> Any:
    """What the shell can offer: names, files, or nothing."""
    if option.kind.choices:
        return Literal[option.kind.choices]
    return {"PATH": Path, "true|false": bool}.get(option.kind.value, str)
