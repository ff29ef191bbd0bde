"""Whose code failed: a file of the user's, or ours."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

import buttress

_PACKAGE = Path(buttress.__file__).resolve().parent
_INSTALLED = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")}


def users_mistake(error: BaseException) -> str | None:
    """One line on an error in a file of the user's: the file, the line, what happened; None for any other.

    The innermost frame that is neither of the standard library nor of an installed package decides.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SyntaxError) and cause.filename and _is_users(cause.filename):
            return f"{_short(cause.filename)}, line {cause.lineno}: {cause.msg}"
        for frame in reversed(traceback.extract_tb(cause.__traceback__)):
            if Path(frame.filename).is_relative_to(_PACKAGE):
                break
            if _is_users(frame.filename):
                text = " ".join(str(cause).split())
                what = type(cause).__name__ + (f": {text}" if text else "")
                return f"{_short(frame.filename)}, line {frame.lineno}, in {frame.name}: {what}"
        cause = cause.__cause__ or cause.__context__
    return None


def _is_users(filename: str) -> bool:
    path = Path(filename)
    if not path.is_file():  # "<frozen importlib>", "<string>"
        return False
    path = path.resolve()
    return not path.is_relative_to(_PACKAGE) and not any(path.is_relative_to(place) for place in _INSTALLED)


def _short(filename: str) -> str:
    path = Path(filename).resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
