"""From what a user types to what the typed parser takes: positions, flags, lists, short names, fractions, files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from buttress.config.default_threats import DefaultThreats
from buttress.config.job_options import Option
from buttress.config.short_forms import ROLE_OF, average_path, class_path, fraction, is_own, member, own_path, spelt_out
from buttress.errors import UserError

_YES_NO = ("true", "false", "yes", "no")
# Any number: members of a role, or runs' folders.
_LISTS = ("attacks", "noises", "perturbations", "corruptions", "styles", "unseen", "audits", "monitors", "models")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?(\s*/\s*\d+(\.\d+)?)?")


def arguments(words: Sequence[str], options: Sequence[Option]) -> list[str]:
    """The command line as ``--name=value`` in the parser's spelling, configuration files first: flags beat them.

    Raises:
        UserError: for a word too many, an unknown member of a role, or a file that cannot be read.
    """
    spelling, threats = _Spelling(options), DefaultThreats()
    waiting = list(words)
    files: list[str] = []
    spelt: list[str] = []
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("--") or len(word) < 3:
            spelt += spelling.positional(word)
            continue
        name, sign, text = word[2:].partition("=")
        key = name.replace("-", "_")
        if not sign and not (key in spelling.flags and (not waiting or waiting[0].lower() not in _YES_NO)):
            if not waiting or (waiting[0].startswith("--") and len(waiting[0]) > 2):
                spelt.append(f"--{key}")  # the parser says what is amiss
                continue
            text = waiting.pop(0)
        elif not sign:
            text = "true"
        if key == "config":
            files.append(f"--config={configuration(Path(text))}")
            threats.follow(files[-1])
        else:
            spelt += [*threats.begin(key), *spelling.option(key, text)]
            threats.follow(spelt[-1])
    return files + spelt


class _Spelling:
    """How values are written, by the options there are and those met so far."""

    def __init__(self, options: Sequence[Option]) -> None:
        self.options = {option.name: option for option in options}
        self.positions = [option for option in options if option.positional]
        self.flags = {option.name for option in options if option.type is bool}
        self.met: set[str] = set()  # lists begun on this command line: what comes again is added

    def positional(self, word: str) -> list[str]:
        if word.startswith("-") and len(word) > 1:
            raise UserError(f"there is no option {word!r}; options are spelt out, as in --out")
        if not self.positions:
            raise UserError(f"{word!r} is one word too many: options begin with --, and values with blanks need quotes")
        option = self.positions[0]
        if not option.several:
            self.positions.pop(0)
        return self.option(option.name, word)

    def option(self, key: str, text: str) -> list[str]:
        """One option and its value."""
        key, added = key.removesuffix("+"), key.endswith("+")
        option = self.options.get(key)
        last = key.removesuffix(".help").rpartition(".")[2]
        role = ROLE_OF.get(last)
        if option is not None and option.type in (str, Path):
            return [f"--{key}={'null' if option.optional and text.lower() == 'none' else text}"]
        alone = text.startswith("{") and role is not None and last in _LISTS  # one member, written out
        if text.startswith(("[", "{")) and not alone:
            return [f"--{key}{'+' if added else ''}={_tree(last, text)}"]
        if last in _LISTS or (option is not None and option.several):
            if alone:
                parts = [_tree(last, text)]
            else:
                parts = [_flow(member(role, part)) if role else _plain(part) for part in text.split(",")]
            if added or key in self.met:
                return [f"--{key}+={part}" for part in parts]
            self.met = {name for name in self.met if not name.startswith(f"{key}.")} | {key}
            plain = role is not None or (option is not None and option.each in (int, float))
            return [f"--{key}={_list(parts, numbers=plain)}"]
        if key == "average" and text.lower() not in ("null", "none") and not _NUMBER.fullmatch(text):
            return [f"--{key}={text if '.' in text else average_path(text)}"]
        if role is not None and text.lower() not in ("null", "none"):
            if key.endswith(".help"):
                return [f"--{key}={class_path(role, text)}"]
            tree = member(role, text)
            if key.count(".") > 1 and tree["init_args"].get("threat") is None:  # read as a text there
                tree["init_args"].pop("threat", None)
            return [f"--{key}={_flow(tree)}"]
        return [self._value(key, last, text)]

    def _value(self, key: str, last: str, text: str) -> str:
        parts = text.split(",")
        if last == "layers" and text not in ("activations", "learnable"):
            return f"--{key}={_list(parts, numbers=False)}"
        if key == "audits.eps" or (len(parts) > 1 and all(_NUMBER.fullmatch(part.strip()) for part in parts)):
            return f"--{key}={_list([_plain(part) for part in parts], numbers=True)}"
        top, *inside = key.split(".")
        if inside and top in ROLE_OF and is_own(text):
            return f"--{key}={own_path(text)}"
        value = _plain(text)
        if value == "null" and inside and top in ROLE_OF and not (top in _LISTS and len(inside) == 1):
            # The parser loses None there, but not inside a mapping; and a mapping must not stand for a list's member.
            kept, wrapped = (inside[:-1], inside[-1:]) if top in _LISTS else ([], inside)
            for name in reversed(wrapped):
                value = f"{{{name}: {value}}}"
            key = ".".join([top, *kept])
        return f"--{key}={value}"


def _plain(text: str) -> str:
    """A number, infinity or none as the parser reads it; anything else as it is."""
    return {"inf": ".inf", "nan": ".nan", "none": "null"}.get(text.lower()) or fraction(text)


def _tree(key: str, text: str) -> str:
    """A list or a mapping written out, with the short forms of a configuration file."""
    try:
        return _flow(spelt_out(key, yaml.safe_load(text)))
    except yaml.YAMLError:
        return text  # the parser says what is amiss


def _flow(tree: object) -> str:
    return yaml.safe_dump(tree, default_flow_style=True, width=1 << 20).strip()


def _list(parts: Iterable[str], *, numbers: bool) -> str:
    return f"[{','.join(part if numbers else json.dumps(part) for part in parts)}]"


def configuration(path: Path) -> str:
    """A YAML file as text for the typed parser, with the same short forms as on the command line.

    Raises:
        UserError: when it cannot be read or is no mapping.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"the configuration {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"the configuration {path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"the configuration {path} must map options to values; got a {type(tree).__name__}")
    for key in ("summary", "claim"):  # what a recipe says about itself
        tree.pop(key, None)
    return _flow(spelt_out("", tree))
