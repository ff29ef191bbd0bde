"""The place in the code from which a layer is called, as numbers that do not depend on what else runs.

Counting calls gives a layer another number as soon as a branch before it runs or does not, as an auxiliary head does
in training. The bytecode of a forward says how many calls of the same function or module it makes, and which of them
this one is.
"""

from __future__ import annotations

import builtins
import dis
import inspect
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any

from torch import nn
from torch.utils import checkpoint as torch_checkpoint

_CALL = nn.Module._call_impl.__code__
_CHECKPOINT = torch_checkpoint.__name__
_RECOMPUTE = ("recompute_fn", "backward")  # what calls the network's code again, not reentrant and reentrant
_DEPTH = 4  # helpers of helpers looked into


@dataclass(frozen=True)
class Step:
    """A call in the user's code: the calling frame's code, where in it, and what its names mean there."""

    code: CodeType
    offset: int
    names: dict[str, Any]


@dataclass(frozen=True)
class Route:
    """The calls from a module's forward to the function or module it calls, outermost first.

    Attributes:
        steps: the calls, those of torch's own code left out.
        checkpointed: how many of these steps lie before activation checkpointing is called, if it is.
        recomputing: the frame in which activation checkpointing computes this once more, if it does: the steps begin
            with the code that it was given.
    """

    steps: tuple[Step, ...]
    checkpointed: int | None = None
    recomputing: FrameType | None = None


def route(frame: FrameType | None, calls: int) -> Route:
    """The way to ``frame``.

    Args:
        frame: innermost.
        calls: how many calls of modules to go through: 0 from a function, to the forward that it runs in; 1 from a
            module's hook, to the forward of the module that calls it.
    """
    steps: list[Step] = []
    inside: int | None = None
    recomputing = None
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if frame.f_code is _CALL:
            if not calls:
                break
            calls -= 1
        elif module == _CHECKPOINT:
            if frame.f_code.co_name in _RECOMPUTE:
                recomputing = frame
                break
            inside = len(steps) if inside is None else inside
        elif not calls and module != "torch" and not module.startswith("torch."):
            steps.append(Step(frame.f_code, frame.f_lasti, frame.f_globals))
        frame = frame.f_back
    return Route(tuple(reversed(steps)), None if inside is None else len(steps) - inside, recomputing)


def place(steps: tuple[Step, ...], wanted: frozenset[str], module: nn.Module) -> tuple[int, ...]:
    """Which of several: a number for each step on the way at which there is a choice.

    Args:
        steps: of a `Route`.
        wanted: what is called, by the names that it has (see `plain`).
        module: in whose forward the way begins.

    Returns:
        Numbers from 0, in the order of the code; none where the code calls this at one place only.
    """
    numbers: list[int] = []
    for step in steps:
        offsets = [o for o, name in _calls(step.code) if _may_call(name, wanted, module, step.names, _DEPTH)]
        if len(offsets) > 1 and step.offset in offsets:
            numbers.append(offsets.index(step.offset))
    return tuple(numbers)


def plain(name: str) -> str:
    """A name without underscores and case, so that ``relu_`` is ``relu`` and ``logsigmoid`` is ``log_sigmoid``."""
    return name.replace("_", "").lower()


@lru_cache(maxsize=4096)
def _calls(code: CodeType) -> tuple[tuple[int, str], ...]:
    """The calls in some code: offset, and the last name of what is called (``relu`` of ``self.bn(x).relu()``)."""
    found: list[tuple[int, str]] = []
    begun: dict[tuple[int | None, int | None], str] = {}  # where an expression begins -> the last name in it
    for instruction in dis.get_instructions(code):
        position = instruction.positions
        start = (None, None) if position is None else (position.lineno, position.col_offset)
        if instruction.opname.startswith("LOAD_") and isinstance(instruction.argval, str):
            begun[start] = instruction.argval
        elif instruction.opname.startswith("CALL") and not instruction.opname.startswith("CALL_INTRINSIC"):
            found.append((instruction.offset, begun.get(start, "")))
    return tuple(found)


def _may_call(name: str, wanted: frozenset[str], module: nn.Module, names: dict[str, Any], depth: int) -> bool:
    """Whether a call of ``name`` is one of what is wanted, or of a function whose code makes one."""
    if not wanted or not name:
        return False
    if plain(name) in wanted:
        return True
    meant = _meaning(name, module, names)
    if plain(getattr(meant, "__name__", "")) in wanted:
        return True  # under another name, as of an attribute that holds a function
    if not isinstance(meant, FunctionType) or not depth or (meant.__module__ or "").startswith("torch."):
        return False
    return any(_may_call(inner, wanted, module, meant.__globals__, depth - 1) for _, inner in _calls(meant.__code__))


def _meaning(name: str, module: nn.Module, names: dict[str, Any]) -> Any:
    """What a name means in a module's code: a function of the module, of its class or of the file; no property runs."""
    if name in vars(builtins):
        return None
    meant = vars(module).get(name) or inspect.getattr_static(type(module), name, None) or names.get(name)
    return getattr(meant, "__func__", None) if isinstance(meant, MethodType | staticmethod | classmethod) else meant
