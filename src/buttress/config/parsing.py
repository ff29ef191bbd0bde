"""A command's words, typed and checked by jsonargparse over the job's own signature."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import yaml

from buttress.config.command_words import arguments
from buttress.config.error_messages import error_line, user_error_behind
from buttress.config.job_options import REQUIRED, Option
from buttress.errors import UserError

_PRINT = ("--print-config", "--print_config")
# What a class refused where a number would do as well: the parser keeps its words, not the error.
_REFUSED = re.compile(r"(?ms)\ADoes not validate against any of the Union subtypes\n.*?^  - (?!Expected )(.*?)$")
_USERS = re.compile(r"(buttress_user_\w+)\.([\w.]+)")


def parse(
    job: Callable[..., Any],
    options: Sequence[Option],
    groups: Mapping[str, type],
    given: set[str],
    words: Sequence[str],
) -> dict[str, Any] | None:
    """The job's arguments.

    Args:
        job: the function to be called.
        options: what it takes, as `buttress.config.job_options.options` tells.
        groups: dataclasses by parameter, whose fields stand flat among the options.
        given: parameters that are no options.
        words: what the user typed after the command.

    Returns:
        Arguments by name, or None when the words asked for something to be printed, which has been done.

    Raises:
        UserError: for words that are not understood, in one line.
    """
    import jsonargparse

    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    config_file = jsonargparse.ActionConfigFile  # type: ignore[attr-defined]  # public, but not re-exported for checkers
    parser.add_argument("--config", action=config_file)
    flat = {key: group for key, group in groups.items() if key in job.__annotations__}
    skipped: set[str | int] = {*flat, *(given & set(job.__annotations__))}
    parser.add_function_arguments(job, as_positional=False, skip=skipped)
    for group in flat.values():
        parser.add_class_arguments(group, skip={f.name for f in fields(group)} & given)
    names = [option.name for option in options]
    spelt = arguments([word for word in words if word not in _PRINT], options)
    printing = any(word in _PRINT for word in words)
    told = io.StringIO()
    try:
        with contextlib.redirect_stdout(told):
            config = parser.parse_args([*spelt, "--print_config"] if printing else spelt)
    except jsonargparse.ArgumentError as error:
        raise UserError(error_line(error, names)) from None
    except SystemExit:  # after --print-config, and the help of one class
        sys.stdout.write(_readable(told.getvalue(), options) if printing else told.getvalue())
        return None
    try:
        values: dict[str, Any] = vars(parser.instantiate(config))
    except (jsonargparse.ArgumentError, TypeError, ValueError) as error:  # around what a class refused
        if refused := _REFUSED.search(str(error)):
            raise UserError(refused[1]) from None
        if user_error_behind(error) is None and not isinstance(error, jsonargparse.ArgumentError):
            raise
        raise UserError(error_line(error, names)) from None
    values.pop("config", None)
    for key, group in flat.items():
        values[key] = group(**{f.name: values.pop(f.name) for f in fields(group) if f.name in values})
    return values


def _readable(text: str, options: Sequence[Option]) -> str:
    """A printed configuration that can be given again: without what is missing, a user's classes by their file."""

    def place(found: re.Match[str]) -> str:
        return f"{sys.modules[found[1]].__file__}:{found[2]}"

    missing = {option.name for option in options if option.default is REQUIRED}
    tree = yaml.safe_load(_USERS.sub(place, text))
    kept = {key: value for key, value in tree.items() if value is not None or key not in missing}
    return yaml.safe_dump(kept, sort_keys=False, default_flow_style=None, width=120)
