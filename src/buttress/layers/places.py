"""The place in the code from which a layer is called, as numbers that do not depend on what else runs.

Counting calls gives a layer another number as soon as a branch before it runs or does not, as an auxiliary head does
in training. The bytecode of a forward says how many calls of the same function or module it makes, and which of them
this one is.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any

from torch import nn
from torch.utils import checkpoint as torch_checkpoint

from buttress.layers.bytecode import read_code

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


class Places:
    """Tells the calls of the same function or module apart; what it has read of the code it keeps."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[CodeType, frozenset[str], type], dict[int, int]] = {}

    def of(self, steps: tuple[Step, ...], wanted: frozenset[str], module: nn.Module) -> tuple[int, ...]:
        """Which of several: a number for each step on the way at which there is a choice.

        Args:
            steps: of a `Route`.
            wanted: what is called, by the names that it has (see `plain`).
            module: in whose forward the way begins.

        Returns:
            Numbers from 0: how many other calls of it the code may have made before. None where it calls this once
            only.
        """
        numbers: list[int] = []
        for step in steps:
            key = step.code, wanted, type(module)
            if key not in self._numbers:
                self._numbers[key] = _numbered(step, wanted, module)
            call = next((c.offset for c in read_code(step.code).calls if c.offset <= step.offset < c.end), -1)
            numbers += [self._numbers[key][call]] if call in self._numbers[key] else []
        return tuple(numbers)


def _numbered(step: Step, wanted: frozenset[str], module: nn.Module) -> dict[int, int]:
    """Offset -> number of the calls of what is wanted; none where only one of them can be made."""
    code = read_code(step.code)
    calls = {call.offset for call in code.calls if _may_call(call.names, wanted, module, step.names, _DEPTH)}
    before = code.before(calls)
    return {offset: before[offset] for offset in calls} if any(before[offset] for offset in calls) else {}


@dataclass
class Names:
    """The names given in one pass."""

    used: set[str] = field(default_factory=set)
    runs: dict[tuple[str, tuple[int, ...], int], int] = field(default_factory=dict)

    def give(self, base: str, numbers: tuple[int, ...], depth: int) -> str:
        """A name that no other call of this pass has: by its place in the code, then by how often that has run.

        Args:
            base: where and what it is.
            numbers: its place; see `Places`.
            depth: how many modules run within themselves. The outermost run has the name without a number, whether or
                not a network calls itself first.
        """
        while True:
            run = self.runs.get((base, numbers, depth), depth)
            self.runs[base, numbers, depth] = run + 1
            parts = [*numbers, run] if run or not numbers else [*numbers]
            name = f"{base}#{'.'.join(map(str, parts))}" if any(parts) else base
            if name not in self.used:
                self.used.add(name)
                return name


def plain(name: str) -> str:
    """A name without underscores and case, so that ``relu_`` is ``relu`` and ``logsigmoid`` is ``log_sigmoid``."""
    return name.replace("_", "").lower()


def _may_call(
    callees: Iterable[str | CodeType], wanted: frozenset[str], module: nn.Module, names: dict[str, Any], depth: int
) -> bool:
    """Whether a call is one of what is wanted, or of a function whose code makes one."""
    return bool(wanted) and any(
        _makes_one(callee, wanted, module, names, depth)
        if isinstance(callee, CodeType)
        else plain(callee) in wanted or _is_one(_meaning(callee, module, names), wanted, module, depth)
        for callee in callees
    )


def _makes_one(code: CodeType, wanted: frozenset[str], module: nn.Module, names: dict[str, Any], depth: int) -> bool:
    return depth > 0 and any(_may_call(call.names, wanted, module, names, depth - 1) for call in read_code(code).calls)


def _is_one(meant: Any, wanted: frozenset[str], module: nn.Module, depth: int) -> bool:
    """Whether what a name means is a function that is wanted, makes such a call, or holds one that does."""
    if isinstance(meant, partial):
        meant = meant.func
    if isinstance(meant, list | tuple | dict):
        parts = meant.values() if isinstance(meant, dict) else meant
        return any(callable(part) and _is_one(part, wanted, module, depth) for part in parts)
    if plain(getattr(meant, "__name__", "")) in wanted:
        return True  # under another name, as of an attribute that holds a function
    if not isinstance(meant, FunctionType) or (meant.__module__ or "").startswith("torch."):
        return False
    return _makes_one(meant.__code__, wanted, module, meant.__globals__, depth)


def _meaning(name: str, module: nn.Module, names: dict[str, Any]) -> Any:
    """What a name means in a module's code: a function of the module, of its class or of the file; no property runs."""
    if name in vars(builtins):
        return None
    meant = vars(module).get(name) or getattr(type(module), name, None) or names.get(name)
    return meant.__func__ if isinstance(meant, MethodType) else meant
