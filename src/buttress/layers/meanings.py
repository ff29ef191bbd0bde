"""What the expressions of a network's code mean: modules and functions, without running it."""

from __future__ import annotations

import builtins
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import nn

from buttress.layers.bytecode import read_code
from buttress.layers.containers import Several, all_contents, contents, expanded, flattened, items_at
from buttress.layers.expressions import Expression
from buttress.layers.scopes import Scope, static_attribute

_NESTED = 12  # expressions of expressions
_VALUES = frozenset(("values", "children", "modules", "get", "pop"))  # methods that give the parts of a container
_PAIRS = frozenset(("items", "named_children", "named_modules"))


@dataclass(frozen=True, eq=False)
class Written:
    """A lambda or a comprehension: its code, and where it is written."""

    code: CodeType
    scope: Scope


@dataclass(frozen=True, eq=False)
class _Super:
    """The methods that a module inherits."""

    owner: Any
    code: CodeType


@dataclass(frozen=True)
class _Meaning:
    """What an expression may mean.

    Attributes:
        values: that.
        levels: of expressions in expressions that were read for it: with so many allowed, or more, it means the same.
    """

    values: tuple[Any, ...]
    levels: float


class Meanings:
    """Reads what expressions may mean; what it has read it keeps."""

    def __init__(self) -> None:
        self._scopes: dict[tuple[int, int], tuple[Scope, Any]] = {}
        self._whole: dict[tuple[Expression, Scope], _Meaning] = {}
        self._cut_off: dict[tuple[Expression, Scope, int], tuple[Any, ...]] = {}  # by the levels that were allowed
        self._levels = 0.0  # read so far for the expression in hand

    def scope_of_function(self, function: FunctionType, owner: Any) -> Scope:
        """What names mean in a function, or in a method of ``owner``."""
        key = id(function), id(owner)
        if key not in self._scopes:
            self._scopes[key] = Scope.of_function(function, owner), (function, owner)
        return self._scopes[key][0]

    def scope_of_written(self, written: Written) -> Scope:
        """What names mean in a lambda or a comprehension."""
        key = id(written.code), id(written.scope)
        if key not in self._scopes:
            self._scopes[key] = Scope(written.code, written.scope.names, outer=written.scope), written
        return self._scopes[key][0]

    def of(self, expression: Expression, scope: Scope, nested: int = _NESTED) -> tuple[Any, ...]:
        """What an expression may mean; nothing where that cannot be told."""
        if nested <= 0 or (expression, scope, nested) in self._cut_off:
            self._levels = math.inf
            return self._cut_off.get((expression, scope, nested), ())
        known = self._whole.get((expression, scope))
        if known is None or known.levels > nested:
            before, self._levels = self._levels, 0.0
            known = _Meaning(expanded(self._read(expression, scope, nested - 1)), self._levels + 1)
            self._levels = before
            if math.isinf(known.levels):  # as a name that is made from itself
                self._cut_off[expression, scope, nested] = known.values
            else:
                self._whole[expression, scope] = known
        self._levels = max(self._levels, known.levels)
        return known.values

    def _read(self, expression: Expression, scope: Scope, nested: int) -> Iterable[Any]:
        parts = expression.parts
        if expression.kind == "constant":
            return (expression.value,)
        if expression.kind == "code":
            return (Written(expression.value, scope),)
        if expression.kind == "name":
            found = [meant for part in parts for meant in self.of(part, scope, nested)]
            return found if parts else self._named(expression.value, scope, nested)
        if expression.kind == "result":
            callees = self.of(parts[0], scope, nested) if parts else ()
            return [value for callee in callees for value in self._result(callee, parts[1:], scope, nested)]
        meant = [self.of(part, scope, nested) for part in parts]
        if expression.kind == "any":
            return [value for part in meant for value in part]
        if expression.kind == "group":
            return ([Several(part) for part in meant],)
        if expression.kind == "sum":
            return ([value for part in meant for value in all_contents(part)],)
        if expression.kind == "slice":
            bounds = [values[0] for values in meant if len(values) == 1 and _is_bound(values[0])]
            return (slice(*bounds),) if len(bounds) == len(parts) else (slice(None),)
        if not meant:
            return ()
        if expression.kind == "attribute":
            return [value for owner in meant[0] for value in self._attribute(owner, expression.value, nested)]
        index = meant[1][0] if len(meant) > 1 and len(meant[1]) == 1 else None
        return [value for container in meant[0] for value in items_at(container, index)]

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
            found = [meant for part in known for meant in self.of(part, outer, nested)]
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
        if isinstance(owner, nn.Module) and owner._modules.get(name) is not None:
            yield owner._modules[name]
            return
        if isinstance(owner, list | tuple | dict | nn.Module) and name in _VALUES | _PAIRS:
            values = tuple(contents(owner))
            yield partial(_given, [(None, Several(values))] if name in _PAIRS else list(values))
            return
        found = vars(owner).get(name) if isinstance(owner, ModuleType) else static_attribute(owner, name)
        if isinstance(found, property) and isinstance(found.fget, FunctionType):
            yield from self._names_of(self.scope_of_function(found.fget, owner), nested)
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
            for meant in flattened(self.of(expression, scope, nested)):
                if callable(meant):
                    yield meant

    def _result(self, callee: Any, arguments: tuple[Expression, ...], scope: Scope, nested: int) -> Iterable[Any]:
        """What a call may give back."""
        if isinstance(callee, partial) and callee.func is _given:
            return callee.args
        if callee is super:
            owner = scope.bound.get(scope.code.co_varnames[0]) if scope.code.co_argcount else None
            return (_Super(owner, scope.code),)
        if is_builtin(callee) or callee is partial:
            given = [self.of(argument, scope, nested) for argument in arguments]
            if callee is getattr:
                return [
                    value
                    for owner, name in product(*(given[:2] if len(given) > 1 else ((), ())))
                    if isinstance(name, str)
                    for value in self._attribute(owner, name, nested)
                ]
            if callee is zip:
                return ([tuple(Several(tuple(all_contents(part))) for part in given)],)
            if callee is partial:
                return [value for part in given for value in part if callable(value)]
            parts = [value for part in given for value in (part if callee is dict else all_contents(part))]
            return ([(None, Several(tuple(parts)))] if callee is enumerate else parts,)
        function = callee.__func__ if isinstance(callee, MethodType) else callee
        if isinstance(function, FunctionType) and not (function.__module__ or "").startswith("torch."):
            return self._names_of(self.scope_of_function(function, getattr(callee, "__self__", None)), nested)
        return ()


def _given(values: Any) -> Any:
    return values


def _is_method(owner: Any, name: str) -> bool:
    """Whether a function is one of the owner's class, and not kept in the owner itself."""
    return not isinstance(owner, type | ModuleType) and name not in getattr(owner, "__dict__", {})


def is_builtin(meant: Any) -> bool:
    """Whether it is one of Python's own functions and types that need no import."""
    return isinstance(meant, type | BuiltinFunctionType) and getattr(meant, "__module__", "") == "builtins"


def _is_bound(value: Any) -> bool:
    return value is None or isinstance(value, int)
