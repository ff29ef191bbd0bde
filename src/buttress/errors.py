"""The one exception that means: the caller can mend this; and the errors of others in one line."""

import re

_LONGEST = 200  # characters of an error of another library


class UserError(ValueError):
    """A mistake of the caller's, described in one line: what was expected, what came, what to do.

    The command line prints the line and exits with status 2; a `GateNotMet` has status 3, and every other exception is
    our fault (status 1).
    """


class GateNotMet(UserError):  # noqa: N818  # a result, and no mistake
    """Robust accuracy is below the bound that the user set, a result that a build is to fail by."""


class NoGradientError(UserError):
    """A gradient was asked for, and the network gives none.

    Attributes:
        attack: what asked, an attack or a noise; None where it was something else.
    """

    attack: object | None = None


def shortened(text: str, most: int = _LONGEST) -> str:
    """A text with the middle of its longest words left out, so that what was typed does not fill the screen."""
    return re.sub(r"\S+", lambda word: _cut(word[0], most), text)


def _cut(word: str, most: int) -> str:
    return word if len(word) <= most else f"{word[: most // 2]}...{word[-most // 4 :]}"


def one_line(error: BaseException) -> str:
    """An error of another library in one short line, without colours of the terminal."""
    text = " ".join(re.sub(r"\x1b\[[\d;]*m", "", str(error)).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
