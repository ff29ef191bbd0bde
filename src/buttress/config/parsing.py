"""A command's words as the arguments of its job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import yaml

from buttress.config.command_words import set_by_words
from buttress.config.job_spec import arguments, job_spec
from buttress.config.spec import Spec, plain


def parse(job: Callable[..., Any], words: Sequence[str]) -> dict[str, Any]:
    """The job's arguments by name.

    Args:
        job: the function to be called.
        words: what the user typed after the command.

    Raises:
        UserError: for words that are not understood, in one line.
    """
    spec = job_spec(job)
    set_by_words(spec, words)
    return arguments(spec)


def configuration(job: Callable[..., Any], words: Sequence[str]) -> str:
    """The options that these words set, with all defaults, as a configuration file that can be given again.

    Raises:
        UserError: for words that are not understood, in one line.
    """
    spec = job_spec(job)
    set_by_words(spec, words)
    return yaml.safe_dump(plain(spec), sort_keys=False, default_flow_style=None, width=120)


def member_of(job: Callable[..., Any], words: Sequence[str]) -> Spec | None:
    """The member that ``--defence.help NAME`` asks about, at the option that would name it; None where nothing does."""
    for index, word in enumerate(words):
        name, sign, text = word.partition("=")
        if name.startswith("--") and name.endswith(".help"):
            path = name[2:].removesuffix(".help").replace("-", "_")
            text = text if sign else (words[index + 1] if index + 1 < len(words) else "")
            spec = job_spec(job)
            set_by_words(spec, [*words[:index], f"--{path}={text}"])
            value: Any = spec
            for level in path.split("."):
                value = value.options[level]
                value = value[-1] if isinstance(value, list) else value
            return value if isinstance(value, Spec) else None
    return None
