"""What names mean in some Python code, as far as that is known without running it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from types import CodeType, FrameType, FunctionType
from typing import Any

from torch import nn


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
        if first is module or static_attribute(type(first), code.co_name) is not None:
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


def static_attribute(owner: Any, name: str) -> Any:
    """An attribute as it is kept, without running properties or ``__getattr__``; None where there is none."""
    return inspect.getattr_static(owner, name, None)
