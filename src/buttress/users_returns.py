"""What methods of users' classes return is held against the annotation of the method of ours that they override."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from buttress.errors import UserError
from buttress.user_modules import is_users

T = TypeVar("T", bound=Callable[..., Any])
_UNIONS = (typing.Union, types.UnionType)


def returning(check: Callable[..., str]) -> Callable[[T], T]:
    """Say of a method what its annotation cannot, such as a shape.

    Args:
        check: takes what it returned and what it was given; returns what was expected, or an empty text.
    """

    def mark(method: T) -> T:
        vars(method)["_returning"] = check
        return method

    return mark


def check_returns(thing: Any) -> Any:
    """A user's class, whose overriding methods and properties refuse to return what nothing can go on with.

    Else the mistake would come to light far from it, in code of ours. Anything but a class is returned as it is.
    """
    for kind in thing.__mro__ if inspect.isclass(thing) else ():
        for name, member, like in _overriding(kind) if _is_theirs(kind) else ():
            if isinstance(member, property):
                getter = _checked(member.fget, like, None)
                setattr(kind, name, property(getter, member.fset, member.fdel, member.__doc__))
            else:
                above = (getattr(vars(base).get(name), "_returning", None) for base in kind.__mro__[1:])
                setattr(kind, name, _checked(member, like, next(filter(None, above), None)))
    return thing


def _overriding(kind: type) -> Iterator[tuple[str, Any, Callable[..., Any]]]:
    """Name, member and the annotated function of ours that it overrides, of those not yet checked."""
    for name, member in list(vars(kind).items()):
        function = member.fget if isinstance(member, property) else member
        if not inspect.isfunction(function) or name.startswith("__") or hasattr(function, "_returns_checked"):
            continue
        if name == "forward":  # of a network, whose code is read for its layers' names
            continue
        ours = (vars(base).get(name) for base in kind.__mro__[1:] if base.__module__.startswith("buttress."))
        functions = (one.fget if isinstance(one, property) else one for one in ours)
        like = next((one for one in functions if inspect.isfunction(one) and "return" in one.__annotations__), None)
        if like is not None:
            yield name, member, like


def _checked(function: Any, like: Callable[..., Any], check: Callable[..., str] | None) -> Any:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        value = function(*args, **kwargs)
        hint = _hint(like)
        if hint is typing.Self:
            hint = next(base for base in type(args[0]).__mro__ if base.__module__.startswith("buttress."))
        code = function.__code__
        where = f"{code.co_filename}, line {code.co_firstlineno}: {function.__qualname__} returned"
        if hint is not type(None) and not _fits(value, hint):
            expected = getattr(hint, "__name__", str(hint))
            raise UserError(f"{where} a {type(value).__name__}; expected {expected}")
        if check is not None and (expected := check(value, *args, **kwargs)):
            form = f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
            raise UserError(f"{where} {form}; expected {expected}")
        return value

    vars(call)["_returns_checked"] = True
    return call


@functools.cache
def _hint(function: Callable[..., Any]) -> Any:
    try:
        return typing.get_type_hints(function).get("return", Any)
    except NameError:  # a name for type checkers only
        return Any


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin in _UNIONS:
        return any(_fits(value, part) for part in typing.get_args(hint))
    if hint is type(None):
        return value is None
    kind = origin or hint
    if not isinstance(kind, type) or kind in (Any, bool, object):
        return True
    return isinstance(value, (int, float)) if kind is float else isinstance(value, kind)


def _is_theirs(kind: type) -> bool:
    try:
        return is_users(inspect.getfile(kind))
    except (TypeError, OSError):  # of a notebook, or written in C
        return False
