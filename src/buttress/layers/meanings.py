"""What the expressions of a network's code mean: which modules and functions a call may reach, without running it."""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import nn

from buttress.layers.bytecode import CREATES, Call, Expression, read_code

_DEPTH = 4  # helpers of helpers looked into
_NESTED = 12  # expressions of expressions
_VALUES = frozenset(("values", "children", "modules", "get", "pop"))  # methods that give the parts of a container
_PAIRS = frozenset(("items", "named_children", "named_modules"))
_CALLING = (sorted, max, min)  # those of Python's own functions that call what they are given

Target = str | nn.Module
"""What a call may reach: a function, by its name in `plain` spelling, or a module."""


def plain(name: str) -> str:
    """A name without underscores and case, so that ``relu_`` is ``relu`` and ``logsigmoid`` is ``log_sigmoid``."""
    return name.replace("_", "").lower()


@dataclass(eq=False)
class Scope:
    """What names mean in some code.

    Attributes:
        code: the code.
        names: those of its file.
        bound: the values of arguments and of variables of the code around it, as far as they are known.
        outer: where the code is written, if that is in other code.
    """

    code: CodeType
    names: dict[str, Any]
    bound: dict[str, Any] = field(default_factory=dict)
    outer: Scope | None = None

    @classmethod
    def of_frame(cls, frame: FrameType, module: nn.Module) -> Scope:
        """That of code which runs: it knows ``self`` and the variables around it, not what it was called with."""
        code, values = frame.f_code, frame.f_locals
        bound = {name: values[name] for name in code.co_freevars if name in values}
        first = values.get(code.co_varnames[0]) if code.co_argcount else None
        if first is module or _static(type(first), code.co_name) is not None:
            bound[code.co_varnames[0]] = first
        return cls(code, frame.f_globals, bound)

    @classmethod
    def of_function(cls, function: FunctionType, owner: Any = None) -> Scope:
        """That of a function, or of a method of ``owner``."""
        code = function.__code__
        defaults = function.__defaults__ or ()
        bound = dict(zip(code.co_varnames[: code.co_argcount][::-1], defaults[::-1], strict=False))
        bound |= function.__kwdefaults__ or {}
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                bound[name] = cell.cell_contents
            except ValueError:  # not set so far
                continue
        if owner is not None and code.co_argcount:
            bound[code.co_varnames[0]] = owner
        return cls(code, function.__globals__, bound)


@dataclass(frozen=True, eq=False)
class _Several:
    """One of several values, inside of a container."""

    values: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class _Written:
    """A lambda or a comprehension: its code, and where it is written."""

    code: CodeType
    scope: Scope


@dataclass(frozen=True, eq=False)
class _Super:
    """The methods that a module inherits."""

    owner: Any
    code: CodeType


class Meanings:
    """Reads what calls may reach; what it has read it keeps."""

    def __init__(self) -> None:
        self._scopes: dict[tuple[int, int], tuple[Scope, Any]] = {}
        self._reached: dict[tuple[Scope, int], frozenset[Target]] = {}
        self._known: dict[tuple[Expression, Scope, int], tuple[Any, ...]] = {}

    def targets(self, call: Call, scope: Scope, depth: int = _DEPTH) -> frozenset[Target]:
        """What a call in some code may reach: what it calls, what that code calls, and functions it is given."""
        found: set[Target] = {plain(name) for name in _last_names(call.callee)}
        callees = self._of(call.callee, scope) if call.callee is not None else ()
        if any(_runs_later(callee) for callee in callees):
            return frozenset()  # what goes through it reaches this
        for callee in callees:
            found |= self._reach(callee, depth, call.arguments, scope)
        for later in self._later(call.arguments, scope):
            for callee in self._of(later.parts[0], scope):
                found |= self._reach(callee, depth)
            for meant in self._callable(later.parts[1:], scope):
                found |= self._reach(meant, depth)
        given = [argument for argument in call.arguments if argument.kind == "code"]
        if not any(isinstance(c, nn.Module) or (_builtin(c) and c not in _CALLING) for c in callees):
            given = [argument for argument in call.arguments if argument.kind != "result"]
        for meant in self._callable(given, scope):
            found |= self._reach(meant, depth)
        return frozenset(found)

    def _later(self, arguments: Iterable[Expression], scope: Scope) -> Iterator[Expression]:
        """Those of some arguments that are calls which run once something goes through what they give back."""
        for argument in arguments:
            results = argument.parts if argument.kind == "name" else (argument,)
            for result in results:
                if result.kind == "result" and result.parts:
                    if any(_runs_later(callee) for callee in self._of(result.parts[0], scope)):
                        yield result

    def _callable(self, arguments: Iterable[Expression], scope: Scope) -> Iterator[Any]:
        """What of some arguments can be called, in lists and dictionaries too."""
        for argument in arguments:
            for meant in _flat(self._of(argument, scope)):
                if isinstance(meant, _Written) or callable(meant):
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
        if isinstance(meant, _Written):
            inner = self._scope_of(meant)
            if arguments and scope is not None and meant.code.co_varnames[:1] == (".0",):
                inner.bound[".0"] = _Several(self._of(arguments[0], scope))
            return self._all(inner, depth)
        owner = meant.__self__ if isinstance(meant, MethodType) else None
        function = meant.__func__ if isinstance(meant, MethodType) else meant
        named = getattr(function, "__name__", None)
        if isinstance(function, FunctionType):
            reached = frozenset((plain(function.__name__),))
            torchs = (function.__module__ or "").startswith("torch.")
            if torchs and not (isinstance(owner, nn.Module) and function.__name__ == "forward"):
                return reached
            return reached | self._all(self._function_scope(function, owner), depth)
        if isinstance(named, str):
            return frozenset((plain(named),))
        calls = _static(type(meant), "__call__")
        return self._reach(MethodType(calls, meant), depth) if isinstance(calls, FunctionType) else frozenset()

    def _all(self, scope: Scope, depth: int) -> frozenset[Target]:
        """What all calls of some code reach."""
        if depth <= 0:
            return frozenset()
        key = scope, depth
        if key not in self._reached:
            self._reached[key] = frozenset()  # while it is being read: code that calls itself
            calls = read_code(scope.code).calls
            self._reached[key] = frozenset().union(*(self.targets(call, scope, depth - 1) for call in calls))
        return self._reached[key]

    def _function_scope(self, function: FunctionType, owner: Any) -> Scope:
        key = id(function), id(owner)
        if key not in self._scopes:
            self._scopes[key] = Scope.of_function(function, owner), (function, owner)
        return self._scopes[key][0]

    def _scope_of(self, written: _Written) -> Scope:
        key = id(written.code), id(written.scope)
        if key not in self._scopes:
            self._scopes[key] = Scope(written.code, written.scope.names, outer=written.scope), written
        return self._scopes[key][0]

    def _of(self, expression: Expression, scope: Scope, nested: int = _NESTED) -> tuple[Any, ...]:
        """What an expression may mean; nothing where that cannot be told."""
        if nested <= 0:
            return ()
        key = expression, scope, nested
        if key not in self._known:
            self._known[key] = ()  # while it is being read: a name that is made from itself
            self._known[key] = _expanded(self._read(expression, scope, nested - 1))
        return self._known[key]

    def _read(self, expression: Expression, scope: Scope, nested: int) -> Iterable[Any]:
        parts = expression.parts
        if expression.kind == "constant":
            return (expression.value,)
        if expression.kind == "code":
            return (_Written(expression.value, scope),)
        if expression.kind == "name":
            found = [meant for part in parts for meant in self._of(part, scope, nested)]
            return found if parts else self._named(expression.value, scope, nested)
        if expression.kind == "result":
            callees = self._of(parts[0], scope, nested) if parts else ()
            return [value for callee in callees for value in self._result(callee, parts[1:], scope, nested)]
        meant = [self._of(part, scope, nested) for part in parts]
        if expression.kind == "any":
            return [value for part in meant for value in part]
        if expression.kind == "group":
            return ([_Several(part) for part in meant],)
        if expression.kind == "sum":
            return ([value for part in meant for value in _all_contents(part)],)
        if expression.kind == "slice":
            bounds = [values[0] for values in meant if len(values) == 1 and _is_bound(values[0])]
            return (slice(*bounds),) if len(bounds) == len(parts) else (slice(None),)
        if not meant:
            return ()
        if expression.kind == "attribute":
            return [value for owner in meant[0] for value in self._attribute(owner, expression.value, nested)]
        index = meant[1][0] if len(meant) > 1 and len(meant[1]) == 1 else None
        return [value for container in meant[0] for value in _items(container, index)]

    def _named(self, name: str, scope: Scope, nested: int) -> Iterable[Any]:
        """What a name that the code does not set means."""
        if name in scope.bound:
            return (scope.bound[name],)
        code = scope.code
        if name in code.co_varnames:
            return ()
        if scope.outer is not None and name in code.co_freevars:
            outer = scope.outer
            known = read_code(outer.code).locals.get(name, ())
            found = [meant for part in known for meant in self._of(part, outer, nested)]
            return found if known else self._named(name, outer, nested)
        if name in scope.names:
            return (scope.names[name],)
        return (vars(builtins)[name],) if name in vars(builtins) else ()

    def _attribute(self, owner: Any, name: str, nested: int) -> Iterable[Any]:
        """An attribute, without running code of the user's: of a property what its code names."""
        if isinstance(owner, _Super):
            for kind in type(owner.owner).__mro__:
                method = vars(kind).get(name)
                if isinstance(method, FunctionType) and method.__code__ is not owner.code:
                    yield MethodType(method, owner.owner)
            return
        if isinstance(owner, list | tuple | dict | nn.Module) and name in _VALUES | _PAIRS and _is_container(owner):
            values = tuple(_contents(owner))
            yield partial(_given, [(None, _Several(values))] if name in _PAIRS else list(values))
            return
        if isinstance(owner, nn.Module) and owner._modules.get(name) is not None:
            yield owner._modules[name]
            return
        found = vars(owner).get(name) if isinstance(owner, ModuleType) else _static(owner, name)
        if isinstance(found, property) and isinstance(found.fget, FunctionType):
            yield from self._names_of(self._function_scope(found.fget, owner), nested)
        elif isinstance(found, staticmethod):
            yield found.__func__
        elif isinstance(found, classmethod):
            yield MethodType(found.__func__, owner if isinstance(owner, type) else type(owner))
        elif isinstance(found, FunctionType) and _is_method(owner, name):
            yield MethodType(found, owner)
        elif found is not None:
            yield found

    def _names_of(self, scope: Scope, nested: int) -> Iterator[Any]:
        """What code may give back: anything that it names and that can be called."""
        for expression in read_code(scope.code).named:
            for meant in _flat(self._of(expression, scope, nested)):
                if callable(meant):
                    yield meant

    def _result(self, callee: Any, arguments: tuple[Expression, ...], scope: Scope, nested: int) -> Iterable[Any]:
        """What a call may give back."""
        if isinstance(callee, partial) and callee.func is _given:
            return callee.args
        if callee is super:
            owner = scope.bound.get(scope.code.co_varnames[0]) if scope.code.co_argcount else None
            return (_Super(owner, scope.code),)
        if _builtin(callee) or callee is partial:
            given = [self._of(argument, scope, nested) for argument in arguments]
            if callee is getattr:
                return [
                    value
                    for owner, name in product(*(given[:2] if len(given) > 1 else ((), ())))
                    if isinstance(name, str)
                    for value in self._attribute(owner, name, nested)
                ]
            if callee is zip:
                return ([tuple(_Several(tuple(_all_contents(part))) for part in given)],)
            if callee is partial:
                return [value for part in given for value in part if callable(value)]
            parts = [value for part in given for value in (part if callee is dict else _all_contents(part))]
            return ([(None, _Several(tuple(parts)))] if callee is enumerate else parts,)
        function = callee.__func__ if isinstance(callee, MethodType) else callee
        if isinstance(function, FunctionType) and not (function.__module__ or "").startswith("torch."):
            return self._names_of(self._function_scope(function, getattr(callee, "__self__", None)), nested)
        return ()


def _given(values: Any) -> Any:
    return values


def _static(owner: Any, name: str) -> Any:
    return inspect.getattr_static(owner, name, None)


def _is_method(owner: Any, name: str) -> bool:
    """Whether a function is one of the owner's class, and not kept in the owner itself."""
    return not isinstance(owner, type | ModuleType) and name not in getattr(owner, "__dict__", {})


def _builtin(meant: Any) -> bool:
    return isinstance(meant, type | BuiltinFunctionType) and getattr(meant, "__module__", "") == "builtins"


def _runs_later(callee: Any) -> bool:
    """Whether a call of this runs code only once something goes through what it gives back."""
    code = getattr(getattr(callee, "__func__", callee), "__code__", None)
    return callee is map or callee is filter or (isinstance(code, CodeType) and bool(code.co_flags & CREATES))


def _is_bound(value: Any) -> bool:
    return value is None or isinstance(value, int)


def _is_container(value: Any) -> bool:
    return isinstance(value, list | tuple | dict | nn.Module)


def _contents(container: Any) -> Iterator[Any]:
    if isinstance(container, dict):
        yield from container.values()
    elif isinstance(container, nn.Module):
        yield from (part for part in container._modules.values() if part is not None)
    elif isinstance(container, list | tuple):
        yield from container


def _all_contents(containers: tuple[Any, ...]) -> Iterator[Any]:
    for container in containers:
        yield from _contents(container)


def _items(container: Any, index: Any) -> Iterable[Any]:
    """The item at an index that is known, or else any."""
    values = list(_contents(container))
    if isinstance(index, slice):
        return (values[index],)
    if isinstance(index, str) and isinstance(container, dict | nn.Module):
        held = container._modules if isinstance(container, nn.Module) else container
        return (held[index],) if index in held else ()
    if isinstance(index, int) and not isinstance(container, dict):
        return values[index : index + 1 or None]
    return values


def _expanded(values: Iterable[Any]) -> tuple[Any, ...]:
    """Every meaning once."""
    found: dict[int, Any] = {}
    for value in values:
        for one in value.values if isinstance(value, _Several) else (value,):
            found.setdefault(id(one), one)
    return tuple(found.values())


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    """The values, and what lists and dictionaries of them have."""
    for value in values:
        if isinstance(value, list | tuple | dict):
            yield from (part for part in _contents(value))
        else:
            yield value


def _last_names(callee: Expression | None) -> Iterator[str]:
    """The names that a callee has: its last one, and those of what it was set to."""
    if callee is not None and callee.kind in ("name", "attribute"):
        yield callee.value
        for part in callee.parts if callee.kind == "name" else ():
            if part.kind in ("name", "attribute"):
                yield part.value
