"""Whose code failed, told from where it was called: the user's, or ours."""

from __future__ import annotations

import inspect
import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

import buttress
from buttress.model_call import last_called
from buttress.models.wrapping.wrappers import nested
from buttress.user_modules import is_users, users_modules

_PACKAGE = Path(buttress.__file__).resolve().parent
_TORCH = Path(inspect.getfile(nn)).resolve().parents[1]
_STDLIB = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")]
_CALL, _MODE = "call_model", "__torch_function__"  # functions through which networks are called, and see their calls
# What Python says of a call that does not fit, and of a class that lacks a method.
_SIGNATURE = re.compile(r"^([\w.]+)\(\) (?:takes|missing|got)|abstract class ([\w.]+)")


def users_mistake(error: BaseException) -> str | None:
    """One line on an error in the user's code: where, and what happened; None where ours alone failed.

    The innermost frame of the user's decides, also where what it called is ours or a library's. Where there is none,
    the error is theirs when it came of calling a network of theirs or of its backward pass, of a function or a class
    of theirs that does not take what it is given, or of one of their objects that lacks something.
    """
    for cause in _causes(error):
        if isinstance(cause, SyntaxError) and cause.filename and is_users(cause.filename):
            return f"{_short(cause.filename)}, line {cause.lineno}: {cause.msg}"
        frames = list(traceback.extract_tb(cause.__traceback__))
        place = _users_frame(frames) or _misfit(cause) or _network(frames)
        if place is not None:
            text = _words(cause)
            return f"{place}: {type(cause).__name__}" + (f": {text}" if text else "")
    return None


def _words(cause: BaseException) -> str:
    try:
        return " ".join(str(cause).split())
    except Exception as error:  # a user's own kind of error may fail to say what it is
        return f"which fails to say what it is ({type(error).__name__})"


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _users_frame(frames: list[traceback.FrameSummary]) -> str | None:
    """The innermost frame of the user's, and where of ours it ended, if it did."""
    last = max((k for k, frame in enumerate(frames) if is_users(frame.filename)), default=None)
    if last is None:
        return None
    ours = [frame for frame in frames[last + 1 :] if _is_ours(frame.filename) and frame.name != _MODE]
    where = f"{_short(frames[last].filename)}, line {frames[last].lineno}, in {frames[last].name}"
    if not ours:
        return where
    return f"{where}, in a call of buttress that failed in {Path(ours[-1].filename).name}, line {ours[-1].lineno}"


def _misfit(cause: BaseException) -> str | None:
    """The user's function or class that an error is about by its words: its arguments, its attributes."""
    thing: Any = None
    if isinstance(cause, AttributeError) and cause.obj is not None:
        thing = cause.obj if inspect.isclass(cause.obj) else type(cause.obj)
    elif isinstance(cause, TypeError) and (found := _SIGNATURE.search(str(cause))):
        thing = _by_name(found[1] or found[2])
    return None if thing is None else _defined(thing)


def _by_name(qualified: str) -> Any:
    first, *rest = qualified.split(".")
    for module in reversed(users_modules()):  # of two of a name the later one
        thing = vars(module).get(first)
        for name in rest:
            thing = getattr(thing, name, None)
        if thing is not None and _defined(thing):
            return thing
    return None


def _network(frames: list[traceback.FrameSummary]) -> str | None:
    """The user's network, where its call or its backward pass failed and no line of the user's is in the traceback."""
    ours = max((k for k, frame in enumerate(frames) if _is_ours(frame.filename) and frame.name != _MODE), default=-1)
    backward = any("autograd" in Path(frame.filename).parts for frame in frames[ours + 1 :])
    if ours < 0 or not (frames[ours].name == _CALL or backward):
        return None
    model = last_called()
    network = nested(model)[-1] if isinstance(model, nn.Module) else model
    if network is None or type(network).__module__.partition(".")[0] == "buttress":
        return None
    where = _defined(type(network))
    name = f"the network {type(network).__name__}" + (f" ({where})" if where else "")
    inside = [
        frame for frame in frames[ours + 1 :] if not any(map(Path(frame.filename).is_relative_to, (_TORCH, *_STDLIB)))
    ]
    if inside:
        name += f", {'/'.join(Path(inside[-1].filename).parts[-2:])}, line {inside[-1].lineno}"
    return f"{name}, in its backward pass" if backward else name


def _defined(thing: Any) -> str | None:
    """File and line of a function or class of the user's."""
    thing = inspect.unwrap(thing)
    try:
        file = inspect.getsourcefile(thing)
        line = inspect.getsourcelines(thing)[1]
    except (TypeError, OSError):
        return None
    return f"{_short(file)}, line {line}, {thing.__qualname__}" if file and is_users(file) else None


def _is_ours(filename: str) -> bool:
    return Path(filename).is_relative_to(_PACKAGE)


def _short(filename: str) -> str:
    path = Path(filename).resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
