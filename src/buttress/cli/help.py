"""What the commands tell of themselves."""

from __future__ import annotations

import inspect
import shutil
import textwrap
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from buttress import registry
from buttress.config.job_options import REQUIRED, Option
from buttress.threat import budget_text

_COLUMN = 26
_TAIL = (
    ("--config FILE", "a YAML file of these options, under the same names; flags beat it"),
    ("--print-config", "print all options as such a file, and do nothing"),
    ("--help", "print this"),
)


def usage(jobs: Mapping[str, Callable[..., Any]]) -> str:
    """All commands, a line each."""
    rows = [(name, (inspect.getdoc(job) or "").splitlines()[0]) for name, job in jobs.items()]
    rows.append(
        ("list", f"What there is of a role ({', '.join(sorted(registry.ROLES))}, recipes), or all of one NAME.")
    )
    return (
        "usage: buttress COMMAND ...     (buttress COMMAND --help tells its options)\n\n"
        + "".join(_row(name, text, 14) for name, text in rows)
        + "\n"
        + _filled(
            "Wherever a name is asked for, package.module:Class and path/to/file.py:Class of your own will do too."
        )
    )


def command_help(name: str, job: Callable[..., Any], options: Sequence[Option]) -> str:
    """One command with all its options."""
    needed = [o for o in options if o.default is REQUIRED and not o.positional]
    synopsis = [name, *(_place(o) for o in options if o.positional), *(f"{o.flag} {_value(o)}" for o in needed)]
    text = f"usage: buttress {' '.join(synopsis)} [options]\n\n"
    for paragraph in (inspect.getdoc(job) or "").split("\n\nArgs:")[0].split("\n\n"):
        text += _filled(" ".join(paragraph.split())) + "\n"
    for group in dict.fromkeys(option.group for option in options):
        text += _filled(f"{group or 'Options'}:")
        text += "".join(_row(_head(option), _meaning(option)) for option in options if option.group == group) + "\n"
    text += "".join(_row(*row) for row in _TAIL) + "\n"
    if any(option.role for option in options):
        text += _filled(
            "What is named has options of its own, which follow its name: --defence trades --defence.beta 6, or "
            "--attacks pgd,fgsm --attacks.loss margin for the last of several. buttress list ROLE NAME tells them."
        )
    return text


def _head(option: Option) -> str:
    return _place(option).strip("[]") if option.positional else f"{option.flag} {_value(option)}".strip()


def _place(option: Option) -> str:
    word = option.name.upper() + (" ..." if option.several else "")
    return word if option.default is REQUIRED else f"[{word}]"


def _value(option: Option) -> str:
    if option.type is bool:
        return "" if option.default is False else "true|false"
    if option.role is not None:
        return "NAME,..." if option.several else "NAME"
    if typing.get_origin(option.type) is typing.Literal:
        return "|".join(map(str, typing.get_args(option.type)))
    if option.several:
        return "A,B,..."
    if typing.get_origin(option.type) is tuple:
        return ",".join(["LOW", "HIGH"][: len(typing.get_args(option.type))])
    words = {int: "N", float: "X", Path: "PATH", str: "TEXT"}
    return words.get(option.type, "'{KEY: VALUE}'" if typing.get_origin(option.type) is dict else "VALUE")


def _meaning(option: Option) -> str:
    text = option.text.rstrip(".")
    names = _names(option)
    notes = [f"one of {', '.join(names)}"] if names else []
    if option.default is REQUIRED:
        notes.append("needed")
    elif option.default not in (None, False, {}, ()):
        notes.append(f"default {_default(option)}")
    return text + (f" ({'; '.join(notes)})" if notes else "")


def _names(option: Option) -> list[str]:
    if option.name in ("data", "model"):
        return (registry.dataset if option.name == "data" else registry.model).names()
    if option.role is None:
        return []
    return [name for name in option.role.names() if issubclass(option.role.get(name), option.each)]


def _default(option: Option) -> str:
    value = option.default
    if option.name.endswith("eps"):
        return budget_text(value)
    if isinstance(value, tuple):
        return ",".join(f"{part:g}" for part in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _width() -> int:
    return max(60, min(shutil.get_terminal_size((100, 24)).columns, 120))


def _filled(text: str) -> str:
    return textwrap.fill(text, _width(), break_on_hyphens=False) + "\n"


def _row(head: str, text: str, column: int = _COLUMN) -> str:
    """A name and its meaning; a long name has a line of its own."""
    lines = textwrap.wrap(text, _width() - column - 2, break_on_hyphens=False) or [""]
    first = f"  {head:<{column - 2}}  " if len(head) <= column - 2 else f"  {head}\n{' ' * (column + 2)}"
    return (first + ("\n" + " " * (column + 2)).join(lines)).rstrip() + "\n"
