"""The typed parser's complaints, many lines about its own types, as one line about the user's options."""

from __future__ import annotations

import importlib
import inspect
import re
import textwrap
from collections.abc import Sequence

from buttress.errors import UserError
from buttress.registry import nearest

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "tuple": "values such as 0,1",
    "list": "values such as a,b",
    "Sequence": "values such as a,b",
    "dict": "a mapping such as '{key: value}'",
    "Path": "a path",
}
_KEY = re.compile(r'Parser key "([^"]+)"[^:]*:')
_CLASS = re.compile(r"Problem with given class_path '([^']+)':")
_UNION = re.compile(r"Does not validate against any of the Union subtypes.*?\n\s*Errors:\n(.*)", re.DOTALL)
_GIVEN = re.compile(r"^Given value type: [^\n]*\nGiven value: (.*)\Z", re.DOTALL | re.MULTILINE)  # of this layer alone
_EXPECTED = re.compile(
    r"Expected an? (?:<class '(?:[\w.]*\.)?(\w+)'>|typing\.Literal\[(.*?)\])(?:\. Got value: (.*))?\Z", re.DOTALL
)
_UNKNOWN = re.compile(r"Option '([^']+)' is not accepted|Group '([^']+)' does not accept option '([^']+)'")
_UNNAMED = re.compile(r"Not a valid subclass of (\w+)|Expected an instantiatable class, but [\w.]*?(\w+) is abstract")
_FOREIGN = re.compile(r"Import path ?(\S*) does not correspond to a subclass of (\w+)")


def error_line(error: BaseException, known: Sequence[str] = ()) -> str:
    """What a parser's error says, in one line: the option, what was expected, what came.

    Args:
        error: as raised; a `UserError` among its causes is the line itself.
        known: the names of the options there are, for the nearest one.
    """
    own = user_error_behind(error)
    return str(own) if own is not None else " ".join(_read(str(error), "", "", "", known).split())


def user_error_behind(error: BaseException) -> UserError | None:
    """The `UserError` that is behind an error, if there is one."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__cause__ or cause.__context__
    return cause


def _read(text: str, key: str, member: str, given: str, known: Sequence[str]) -> str:
    """Take one layer off ``text``; ``key``, ``member`` and ``given`` are what the outer layers told."""
    text = textwrap.dedent(text).strip()
    if found := _KEY.match(text):
        return _read(text[found.end() :], f"{key}.{found[1]}" if key else found[1], member, given, known)
    if found := _CLASS.match(text):
        return _read(text[found.end() :], key, found[1], given, known)
    if found := _UNION.match(text):
        body = found[1]
        if value := _GIVEN.search(body):
            body, given = body[: value.start()], _value(value[1])
        errors = [part for part in re.split(r"^- ", textwrap.dedent(body), flags=re.MULTILINE) if part.strip()]
        telling = [part for part in errors if "NoneType" not in part.splitlines()[0]]
        return _read((telling or errors)[0], key, member, given, known)
    return _line(text, key, member, given, known)


def _line(text: str, key: str, member: str, given: str, known: Sequence[str]) -> str:
    flag = "--" + key.replace("_", "-")
    if found := _UNKNOWN.match(text):
        return _unknown(".".join(part for part in found.groups() if part), key, member, known)
    if found := _EXPECTED.match(text):
        wanted = f"one of {found[2].replace(chr(39), '')}" if found[2] else _TYPES.get(found[1], f"a {found[1]}")
        return f"{flag} takes {wanted}; got {_value(found[3] or given)!r}"
    if found := _UNNAMED.match(text):
        which = (found[1] or found[2]).lower()
        return f"{flag}: say first which {which} it is, as in {flag} NAME, then its options"
    if found := _FOREIGN.match(text):
        named = re.findall(r"(\w+)['\"\]]*\Z", found[1] or given)
        return f"{flag} takes {_article(found[2].lower())}; {named[0] if named else 'this'} is none"
    if found := re.match(r"argument (--[\w.+]+): expected one argument", text):
        return f"{found[1].replace('_', '-').rstrip('+')} needs a value"
    if found := re.match(r"the following arguments are required: (.*)", text):
        names = [f"{key}.{name.strip()}" if key else name.strip() for name in found[1].split(",")]
        return f"needed and not given: {', '.join('--' + name.replace('_', '-') for name in names)}"
    if found := re.match(r"[Uu]nrecognized arguments?: --([\w.]+)", text):
        return _unknown(found[1], key, member, known)
    if "Unable to load config" in text or ("Expected a dot import path" in text and _is_group(key, known)):
        return f"{flag} takes its options one by one, as in {_inside(key, known)}; got {given or 'a single value'!r}"
    first = text.splitlines()[0] if text else "cannot be read"
    return f"{flag}: {first}" if key else first


def _unknown(name: str, key: str, member: str, known: Sequence[str]) -> str:
    name = name.partition(".init_args")[0]  # of what the parser has filled in, the user typed that much
    if _is_group(key, known):
        name, member = f"{key}.{name}", ""
    if member:
        own = [p for p in _parameters(member) if p not in ("self", "args", "kwargs")]
        options = own + [name for name in known if name.partition(".")[0] in own and "." in name]  # those of its threat
        has = nearest(name, options) if options else "it has none"
        return f"--{key.replace('_', '-')}: {member.rpartition('.')[2]} has no option {name!r}; {has}"
    hint = nearest(name, list(known)) if known else ""
    return f"there is no option {name.replace('_', '-')!r}" + (f"; {hint.replace('_', '-')}" if hint else "")


def _is_group(key: str, known: Sequence[str]) -> bool:
    """Whether ``key`` is that of a job's options such as --threat.eps, --threat.box."""
    return any(name.startswith(f"{key}.") for name in known)


def _parameters(member: str) -> list[str]:
    where, _, what = member.rpartition(".")
    return list(inspect.signature(getattr(importlib.import_module(where), what)).parameters)


def _inside(key: str, known: Sequence[str]) -> str:
    options = [name for name in known if name.startswith(f"{key}.")]
    return f"--{options[0]}".replace("_", "-") if options else f"--{key}.NAME"


def _value(text: str) -> str:
    """What the user gave, out of the parser's wrapping of an option of an option."""
    nested = re.fullmatch(r"NestedArg\(key='[^']*', val=(.*)\)", text.strip(), re.DOTALL)
    value = nested[1].strip("'\"") if nested else text.strip()
    return value if len(value) <= 60 else value[:57] + "..."


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
