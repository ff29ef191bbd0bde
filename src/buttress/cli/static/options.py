"""A job's options as its source says: names, types, defaults and meanings."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass

from buttress.cli.commands import JOBS
from buttress.cli.static.annotations import Kind, kind_of
from buttress.cli.static.source import Place, Source, annotated, docstring, source
from buttress.cli.static.values import default_text
from buttress.config import FROM_THE_COMMAND_LINE

_ENTRY = re.compile(r"    (\w+): (.*)")


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        name: as in a YAML file, dots between levels: "threat.eps".
        kind: what it takes.
        default: its default as one types it; empty where there is none, or nothing to tell.
        required: whether it must be given.
        text: what it means.
        group: the heading it is listed under; empty for the job's own.
        positional: whether it may be given without its name.
    """

    name: str
    kind: Kind
    default: str
    required: bool
    text: str
    group: str = ""
    positional: bool = False

    @property
    def flag(self) -> str:
        """As typed: "--threat.eps", "--data-dir"."""
        return "--" + self.name.replace("_", "-")


def job_place(name: str) -> tuple[Source, ast.FunctionDef]:
    """The function behind a command, in its module."""
    where = source(JOBS[name])
    function = where.definitions[name]
    assert isinstance(function, ast.FunctionDef)
    return where, function


def summary(name: str) -> str:
    """The first line of a command's documentation."""
    return (ast.get_docstring(job_place(name)[1]) or "").splitlines()[0]


def job_options(name: str) -> list[Option]:
    """All options of a command, in order."""
    where, function = job_place(name)
    meanings = entries(ast.get_docstring(function) or "")
    options: list[Option] = []
    hidden = set(FROM_THE_COMMAND_LINE)
    for parameter, default, positional in _parameters(function):
        if parameter.arg == "network" and default is None:  # it must be named, which leaves no model to choose
            hidden.add("model")
        assert parameter.annotation is not None
        kind, text = kind_of(where, parameter.annotation), meanings.get(parameter.arg, "")
        if parameter.arg in hidden:
            continue
        if kind.group is None:
            value = default_text(where, default)
            options.append(Option(parameter.arg, kind, value, default is None, text, "", positional))
        elif _is_flat(kind.group):
            options += _fields(kind.group, "", docstring(kind.group).partition("\n")[0].rstrip("."))
        else:
            options += _with_defaults(_fields(kind.group, f"{parameter.arg}.", _title(text)), where, default)
    return [option for option in options if option.name not in hidden]


def _parameters(function: ast.FunctionDef) -> Iterator[tuple[ast.arg, ast.expr | None, bool]]:
    arguments = function.args
    padding = [None] * (len(arguments.args) - len(arguments.defaults))
    for parameter, default in zip(arguments.args, [*padding, *arguments.defaults], strict=True):
        yield parameter, default, True
    for parameter, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield parameter, default, False


def _is_flat(group: Place) -> bool:
    return "flat" in annotated(group)


def _fields(group: Place, prefix: str, title: str) -> list[Option]:
    meanings = entries(docstring(group))
    options: list[Option] = []
    for name, (where, node) in annotated(group).items():
        default = node.value
        if "ClassVar" in ast.unparse(node.annotation) or _is_internal(default):
            continue
        kind, text = kind_of(where, node.annotation), meanings.get(name, "")
        if kind.group is not None:
            inner = _fields(kind.group, f"{prefix}{name}.", _title(text))
            options += _with_defaults(inner, where, default)
        else:
            value = default_text(where, default)
            options.append(Option(prefix + name, kind, value, default is None, text, title))
    return options


def _is_internal(default: ast.expr | None) -> bool:
    """Whether a field is for the jobs themselves: ``field(repr=False)``."""
    return isinstance(default, ast.Call) and any(
        keyword.arg == "repr" and isinstance(keyword.value, ast.Constant) and not keyword.value.value
        for keyword in default.keywords
    )


def _with_defaults(options: list[Option], where: Source, default: ast.expr | None) -> list[Option]:
    """The options of a group whose default is a call of its class: with what is set in that."""
    set_there = {key.arg: key.value for key in default.keywords} if isinstance(default, ast.Call) else {}
    named = [(option, set_there.get(option.name.rpartition(".")[2])) for option in options]
    return [
        option if value is None else dataclasses.replace(option, default=default_text(where, value))
        for option, value in named
    ]


def entries(doc: str) -> dict[str, str]:
    """The ``Args:`` of a docstring in Google style, by name, each in one line."""
    meanings: dict[str, str] = {}
    name = ""
    for line in doc.partition("\nArgs:\n")[2].splitlines():
        if line and not line.startswith(" "):
            break
        entry = _ENTRY.fullmatch(line)
        if entry:
            name = entry[1]
            meanings[name] = entry[2]
        elif name and line.strip():
            meanings[name] += " " + line.strip()
    return meanings


def _title(text: str) -> str:
    text = text.rstrip(".")
    return text[:1].upper() + text[1:]
