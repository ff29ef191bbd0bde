"""Which modules and functions a call in some code may reach, read off the code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

from torch import nn

from buttress.layers.bytecode import CREATES, read_code
from buttress.layers.containers import Several, flattened
from buttress.layers.expressions import Call, Expression
from buttress.layers.meanings import Meanings, Written, is_builtin
from buttress.layers.scopes import Scope, static_attribute

_DEPTH = 4  # helpers of helpers looked into
_CALLING = (sorted, max, min)  # those of Python's own functions that call what they are given

Target = str | nn.Module
"""What a call may reach: a function, by its name in `plain` spelling, or a module."""


def plain(name: str) -> str:
    """A name without underscores and case, so that ``relu_`` is ``relu`` and ``logsigmoid`` is ``log_sigmoid``."""
    return name.replace("_", "").lower()


class Targets:
    """Reads what calls may reach; what it has read it keeps."""

    def __init__(self) -> None:
        self._meanings = Meanings()
        self._reached: dict[tuple[Scope, int], frozenset[Target]] = {}

    def of(self, call: Call, scope: Scope, depth: int = _DEPTH) -> frozenset[Target]:
        """What a call in some code may reach: what it calls, what that code calls, and functions it is given."""
        found: set[Target] = {plain(name) for name in _last_names(call.callee)}
        callees = self._meanings.of(call.callee, scope) if call.callee is not None else ()
        if any(_runs_later(callee) for callee in callees):
            return frozenset()  # what goes through it reaches this
        for callee in callees:
            found |= self._reach(callee, depth, call.arguments, scope)
        for later in self._later(call.arguments, scope):
            for callee in self._meanings.of(later.parts[0], scope):
                found |= self._reach(callee, depth)
            for meant in self._callable(later.parts[1:], scope):
                found |= self._reach(meant, depth)
        given = [argument for argument in call.arguments if argument.kind == "code"]
        if not any(isinstance(c, nn.Module) or (is_builtin(c) and c not in _CALLING) for c in callees):
            given = [argument for argument in call.arguments if argument.kind != "result"]
        for meant in self._callable(given, scope):
            found |= self._reach(meant, depth)
        return frozenset(found)

    def functions(self, call: Call, scope: Scope) -> list[tuple[CodeType, frozenset[Target]]]:
        """The functions of the user's that a call may run, in the order in which the code names them.

        Returns:
            For each its code, and what it reaches.
        """
        callees = self._meanings.of(call.callee, scope) if call.callee is not None else ()
        plainly = [callee.__func__ if isinstance(callee, MethodType) else callee for callee in callees]
        return [
            (function.__code__, self._reach(callee, _DEPTH))
            for function, callee in zip(plainly, callees, strict=True)
            if isinstance(function, FunctionType)
        ]

    def _later(self, arguments: Iterable[Expression], scope: Scope) -> Iterator[Expression]:
        """Those of some arguments that are calls which run once something goes through what they give back."""
        for argument in arguments:
            results = argument.parts if argument.kind == "name" else (argument,)
            for result in results:
                callees = self._meanings.of(result.parts[0], scope) if result.kind == "result" and result.parts else ()
                if any(_runs_later(callee) for callee in callees):
                    yield result

    def _callable(self, arguments: Iterable[Expression], scope: Scope) -> Iterator[Any]:
        """What of some arguments can be called, in lists and dictionaries too."""
        for argument in arguments:
            for meant in flattened(self._meanings.of(argument, scope)):
                if isinstance(meant, Written) or callable(meant):
                    yield meant

    def _reach(
        self, meant: Any, depth: int, arguments: tuple[Expression, ...] = (), scope: Scope | None = None
    ) -> frozenset[Target]:
        """What a call of this reaches."""
        if isinstance(meant, nn.Module):
            return frozenset((meant,))
        if isinstance(meant, partial):
            given = [part for part in (*meant.args, *meant.keywords.values()) if callable(part)]
            return frozenset().union(*(self._reach(part, depth) for part in (meant.func, *given)))
        if isinstance(meant, Written):
            inner = self._meanings.scope_of_written(meant)
            if arguments and scope is not None and meant.code.co_varnames[:1] == (".0",):
                inner.bound[".0"] = Several(self._meanings.of(arguments[0], scope))
            return self._all(inner, depth)
        owner = meant.__self__ if isinstance(meant, MethodType) else None
        function = meant.__func__ if isinstance(meant, MethodType) else meant
        if isinstance(function, FunctionType):
            reached = frozenset((plain(function.__name__),))
            torchs = (function.__module__ or "").startswith("torch.")
            if torchs and not (isinstance(owner, nn.Module) and function.__name__ == "forward"):
                return reached
            return reached | self._all(self._meanings.scope_of_function(function, owner), depth)
        calls = static_attribute(type(meant), "__call__")
        if not isinstance(calls, FunctionType):
            named = None if hasattr(type(meant), "__getattr__") else getattr(meant, "__name__", None)
            return frozenset((plain(named),)) if isinstance(named, str) else frozenset()
        return self._reach(MethodType(calls, meant), depth)

    def _all(self, scope: Scope, depth: int) -> frozenset[Target]:
        """What all calls of some code reach."""
        if depth <= 0:
            return frozenset()
        key = scope, depth
        if key not in self._reached:
            self._reached[key] = frozenset()  # while it is being read: code that calls itself
            calls = read_code(scope.code).calls
            self._reached[key] = frozenset().union(*(self.of(call, scope, depth - 1) for call in calls))
        return self._reached[key]


def _runs_later(callee: Any) -> bool:
    """Whether a call of this runs code only once something goes through what it gives back."""
    function = callee.__func__ if isinstance(callee, MethodType) else callee
    if isinstance(function, FunctionType):
        return bool(function.__code__.co_flags & CREATES)
    return function is map or function is filter


def _last_names(callee: Expression | None) -> Iterator[str]:
    """The names that a callee has: its last one, and those of what it was set to."""
    if callee is not None and callee.kind in ("name", "attribute"):
        yield callee.value
        for part in callee.parts if callee.kind == "name" else ():
            if part.kind in ("name", "attribute"):
                yield part.value
