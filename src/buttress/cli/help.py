"""The help of the commands, read off the source of their jobs."""

from __future__ import annotations

import ast

from buttress.cli.commands import JOBS, JSON_JOBS
from buttress.cli.examples import EXAMPLES
from buttress.cli.help_text import filled, indented, row
from buttress.cli.list_command import USAGE
from buttress.cli.static.members import names, roles
from buttress.cli.static.options import Option, job_options, job_place, summary

_JSON = ("--json", "print the findings as JSON; lines for the user go to standard error")
_TAIL = (
    ("--config FILE", "a YAML file of these options, under the same names; flags override it"),
    ("--print-config", "print all options as such a file, and do nothing"),
    ("--quiet", "write no lines and show no progress; errors are written all the same"),
    ("--help", "print this"),
)
_STATUS = (
    "Exit status: 0 done, 2 a mistake in what was typed, 3 a gate (--fail-under) that is not met, 1 a fault of ours."
)


def usage() -> str:
    """All commands, a line each."""
    rows = [(name, summary(name)) for name in JOBS]
    rows.append(("list", f"What there is of a role ({', '.join(roles())}), or all of one NAME."))
    return (
        "usage: buttress COMMAND ...     (buttress COMMAND --help lists its options)\n\n"
        + "".join(row(name, text, 14) for name, text in rows)
        + "\n"
        + filled("Wherever a name is expected, you can give package.module:Class or path/to/file.py:Class of your own.")
        + filled(_STATUS)
        + filled(
            "buttress --version prints the version, buttress --print-completion bash|zsh|tcsh a script for the shell."
        )
    )


def list_help() -> str:
    """The command ``list``."""
    return (
        f"{USAGE}\n\n"
        + filled("What there is of a role, with its options; without a role, which roles there are.")
        + "\n"
        + "".join(row(role, f"{len(names(role))} names", 14) for role in roles())
        + "\n"
        + row("NAME", "one member in full; with wildcards, as in '*fgsm*', those that match")
        + row("--json", "print JSON")
        + row("--help", "print this")
    )


def command_help(name: str) -> str:
    """One command with all its options."""
    options = job_options(name)
    needed = [o for o in options if o.required and not o.positional]
    synopsis = [name, *(_place(o) for o in options if o.positional), *(f"{o.flag} {_value(o)}" for o in needed)]
    text = f"usage: buttress {' '.join(synopsis)} [options]\n\n"
    for paragraph in (ast.get_docstring(job_place(name)[1]) or "").split("\n\nArgs:")[0].split("\n\n"):
        text += filled(" ".join(paragraph.split())) + "\n"
    text += "For example:\n" + "".join(indented(line) for line in EXAMPLES[name]) + "\n"
    for group in dict.fromkeys(option.group for option in options):
        text += filled(f"{group or 'Options'}:")
        text += "".join(row(_head(option), _meaning(option)) for option in options if option.group == group) + "\n"
    text += "".join(row(*each) for each in ((*_TAIL[:2], _JSON, *_TAIL[2:]) if name in JSON_JOBS else _TAIL)) + "\n"
    if any(option.kind.base for option in options):
        text += filled(
            "What is named has options of its own, which follow its name: --defence trades --defence.beta 6, or "
            "--attacks pgd,fgsm --attacks.loss margin for the last of several. buttress list ROLE NAME lists them."
        )
    return text


def _head(option: Option) -> str:
    return _place(option).strip("[]") if option.positional else f"{option.flag} {_value(option)}".strip()


def _place(option: Option) -> str:
    word = option.name.upper() + (" ..." if option.kind.several else "")
    return word if option.required else f"[{word}]"


def _value(option: Option) -> str:
    return "" if option.kind.value == "true|false" and not option.default else option.kind.value


def _meaning(option: Option) -> str:
    notes = [] if option.kind.literal or not option.kind.choices else [f"one of {', '.join(option.kind.choices)}"]
    if option.required:
        notes.append("needed")
    elif option.default:
        notes.append(f"default {option.default}")
    return option.text.rstrip(".") + (f" ({'; '.join(notes)})" if notes else "")
