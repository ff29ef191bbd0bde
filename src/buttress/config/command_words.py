"""From what a user types to a job's spec: positions, flags, lists, options of members, configuration files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from buttress.config.annotations import alternatives, is_group, is_mapping, item_of, takes_several
from buttress.config.option_errors import MissingValueError, OptionPath, UnnamedMemberError
from buttress.config.reading import numbers, read
from buttress.config.roles import role_of
from buttress.config.spec import Spec, is_built, new_spec, spec_of
from buttress.errors import UserError
from buttress.plain_data import read_yaml

_YES_NO = ("true", "false", "yes", "no")


def set_by_words(spec: Spec, words: Sequence[str]) -> None:
    """Set a job's options; configuration files come first, for flags override them.

    Raises:
        UserError: for a word too many, a value of the wrong type, a name that is not there, an unreadable file.
    """
    files, pairs = _pairs(spec, words)
    for file in files:
        set_by_file(spec, file)
    begun: set[OptionPath] = set()  # lists: what comes again is added
    for path, text in pairs:
        assign(spec, path, text, begun)


def _pairs(spec: Spec, words: Sequence[str]) -> tuple[list[Path], list[tuple[OptionPath, str]]]:
    """The files, and the options with their values, in order."""
    positions = [name for name, parameter in spec.known.items() if parameter.positional]
    waiting, files = list(words), []
    pairs: list[tuple[OptionPath, str]] = []
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("--") or len(word) < 3:
            if word.startswith("-") and len(word) > 1:
                raise UserError(f"there is no option {word!r}; options are spelt out, as in --out")
            if not positions:
                hint = "options begin with --, and values with blanks need quotes"
                raise UserError(f"{word!r} is one word too many: {hint}")
            pairs.append(((positions[0],), word))
            if not takes_several(spec.known[positions[0]].annotation):
                positions.pop(0)
            continue
        name, sign, text = word[2:].partition("=")
        path = tuple(name.replace("-", "_").split("."))
        flag = not sign and len(path) == 1 and (not waiting or waiting[0].lower() not in _YES_NO)
        if flag and path[0] in spec.known and alternatives(spec.known[path[0]].annotation) == [bool]:
            text = "true"
        elif not sign:
            if not waiting or (waiting[0].startswith("--") and len(waiting[0]) > 2):
                if len(path) == 1 and path[0] != "config":
                    spec.parameter(path[0].removesuffix("+"))  # or there is no such option
                raise MissingValueError((*path[:-1], path[-1].removesuffix("+")))
            text = waiting.pop(0)
        if path == ("config",):
            files.append(Path(text))
        else:
            pairs.append((path, text))
    return files, pairs


def assign(spec: Spec, path: OptionPath, text: str, begun: set[OptionPath]) -> None:
    """Set one option, of the job or of what is named in it.

    Args:
        spec: of the job, or of a member.
        path: the option's name, level by level; a plus after the last adds to a list.
        text: the value.
        begun: lists that this command line has named already.
    """
    name, *inside = path
    annotation = spec.parameter(name.removesuffix("+")).annotation
    owner = spec.owner or spec
    if inside:
        target = _inside(spec, name, inside[0])
        if isinstance(target, Spec):
            assign(target, tuple(inside), text, begun)
        else:
            _set_entry(target, inside, text, (*spec.path, name))
        return
    added, name = name.endswith("+"), name.removesuffix("+")
    place = (*spec.path, name)
    value = read(annotation, text, place, owner)
    if takes_several(annotation) and isinstance(value, list | tuple):
        earlier = spec.options.get(name)
        if (added or place in begun) and isinstance(earlier, list | tuple):
            value = type(value)([*earlier, *value])
        else:
            begun -= {other for other in begun if other[: len(place)] == place}
        begun.add(place)
    spec.options[name] = value


def _inside(spec: Spec, name: str, further: str) -> Spec | dict[str, Any]:
    """What the options behind ``--name.`` are set in: a member, the last of several, a group, or a mapping."""
    parameter, place = spec.parameter(name), (*spec.path, name)
    kinds = alternatives(parameter.annotation)
    value = spec.options.get(name, parameter.default)
    if any(is_mapping(kind) for kind in kinds):
        value = spec.options[name] = dict(value) if isinstance(value, dict) else {}
        return value
    listed = isinstance(value, list | tuple) and bool(value)
    last = value[-1] if listed else value
    if is_built(last):
        last = spec_of(last, place, spec.owner or spec)
        spec.options[name] = [*value[:-1], last] if listed else last
    if isinstance(last, Spec):
        return last
    groups = [kind for kind in kinds if is_group(kind)]
    if not groups:
        items = [item for kind in kinds for item in alternatives(item_of(kind) or kind)]
        bases = [item for item in items if role_of(item) is not None]
        if not bases:
            spec.parameter(f"{name}.{further}")  # there is none
        raise UnnamedMemberError(place, bases[0].__name__.lower())
    group = spec.options[name] = new_spec(groups[0], place, spec.owner or spec)
    return group


def _set_entry(mapping: dict[str, Any], names: Sequence[str], text: str, path: OptionPath) -> None:
    *outer, last = names
    for name in outer:
        inner = mapping.get(name)
        mapping[name] = dict(inner) if isinstance(inner, dict) else {}
        mapping = mapping[name]
    mapping[last] = numbers(read(Any, text, (*path, *names)))


def set_by_file(spec: Spec, path: Path) -> None:
    """Set options by a YAML file, with the same short forms as on the command line.

    A member that is named starts from its own defaults; the settings of a group, such as a threat, are laid over those
    that are there.

    Raises:
        UserError: when it cannot be read or is no mapping, and for what it sets.
    """
    try:
        tree = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"the configuration {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"the configuration {path} is no YAML: {error}") from None
    if not isinstance(tree, dict):
        raise UserError(f"the configuration {path} must map options to values; got a {type(tree).__name__}")
    for key in ("summary", "claim"):  # what a recipe says about itself
        tree.pop(key, None)
    for key, value in tree.items():
        name = str(key).replace("-", "_")
        parameter = spec.parameter(name)
        new, earlier = read(parameter.annotation, value, (name,), spec), spec.options.get(name)
        if isinstance(new, Spec) and isinstance(earlier, Spec) and is_group(new.kind):
            earlier.options |= new.options
        else:
            spec.options[name] = new
