"""Mistakes in options, typed: which option, what was expected, what came."""

from __future__ import annotations

from collections.abc import Sequence

from buttress.errors import UserError
from buttress.registry import nearest

OptionPath = tuple[str, ...]


def flag(path: Sequence[str]) -> str:
    """An option as typed: "--defence.attack.step-size"."""
    return "--" + ".".join(path).replace("_", "-")


def shortened(value: object) -> str:
    """A value as it came, cut off where it is long."""
    text = repr(value)
    return text if len(text) <= 62 else f"{text[:58]}...{text[-1]}"


class OptionError(UserError):
    """A mistake in one option."""


class UnknownOptionError(OptionError):
    """There is no option of this name.

    Args:
        name: as given, dots between levels.
        known: the names there are.
        path: the option whose member has no such option; empty for an option of the job.
        member: the class of that member.
    """

    def __init__(self, name: str, known: Sequence[str], path: OptionPath = (), member: str = "") -> None:
        self.name, self.known, self.path, self.member = name, list(known), path, member
        hint = nearest(name, self.known) if self.known else "it has none"
        if member:
            super().__init__(f"{flag(path)}: {member} has no option {name!r}; {hint}")
        else:
            super().__init__(f"there is no option {name.replace('_', '-')!r}; {hint.replace('_', '-')}")


class WrongValueError(OptionError):
    """The value is not of the type that the option takes.

    Args:
        path: the option.
        expected: in words: "a whole number".
        value: as given.
    """

    def __init__(self, path: OptionPath, expected: str, value: object) -> None:
        self.path, self.expected, self.value = path, expected, value
        super().__init__(f"{flag(path)} takes {expected}; got {shortened(value)}")


class MissingValueError(OptionError):
    """The option was given without a value."""

    def __init__(self, path: OptionPath) -> None:
        self.path = path
        super().__init__(f"{flag(path)} needs a value")


class MissingOptionsError(OptionError):
    """Options without a default were not given."""

    def __init__(self, paths: Sequence[OptionPath]) -> None:
        self.paths = list(paths)
        super().__init__(f"needed and not given: {', '.join(map(flag, paths))}")


class UnnamedMemberError(OptionError):
    """An option of a member came before the member was named."""

    def __init__(self, path: OptionPath, base: str) -> None:
        self.path, self.base = path, base
        super().__init__(f"{flag(path)}: say first which {base} it is, as in {flag(path)} NAME, then its options")


class WrongMemberError(OptionError):
    """What was named is a class of another role."""

    def __init__(self, path: OptionPath, base: str, member: str) -> None:
        self.path, self.base, self.member = path, base, member
        super().__init__(f"{flag(path)} takes {'an' if base[0] in 'aeiou' else 'a'} {base}; {member} is none")
