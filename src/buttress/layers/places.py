"""The place in the code from which a layer is called, as numbers that do not depend on what else runs.

Counting calls gives a layer another number as soon as a branch before it runs or does not, as an auxiliary head does
in training. The bytecode of a forward says how many calls of the same function or module it makes, and which of them
this one is.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from types import CodeType, FrameType
from typing import NamedTuple

from torch import nn

from buttress.layers.bytecode import read_code
from buttress.layers.expressions import Call, Code, Expression
from buttress.layers.scopes import Scope
from buttress.layers.targets import Target, Targets, plain

_CALL = nn.Module._call_impl.__code__
_MOST = 4096  # pieces of code, and ways through it, that are kept


@dataclass(frozen=True)
class Step:
    """A call in the user's code: the calling frame's code, where in it, and the frame while the call is made."""

    code: CodeType
    offset: int
    frame: FrameType | None = field(default=None, compare=False, repr=False)


def route(frame: FrameType | None, calls: int, caller: nn.Module | None) -> tuple[Step, ...]:
    """The calls from a module's forward to the function or module it calls, outermost first, without torch's own code.

    Args:
        frame: innermost.
        calls: how many calls of modules to go through: 0 from a function, to the forward that it runs in; 1 from a
            module's hook, to the forward of the module that calls it.
        caller: the module in whose forward the way begins; calls of modules that are no part of the network, as those
            it keeps in a list, are gone through. None: in that of the first module.
    """
    steps: list[Step] = []
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if frame.f_code is _CALL:
            if not calls and (caller is None or frame.f_locals.get("self") is caller):
                break
            calls = max(calls - 1, 0)
        elif not calls and module != "torch" and not module.startswith("torch."):
            steps.append(Step(frame.f_code, frame.f_lasti, frame))
        frame = frame.f_back
    return tuple(reversed(steps))


class _Code:
    """The calls that some code makes in one module, by what they may reach."""

    def __init__(self, code: Code, scope: Scope, targets: Targets) -> None:
        self._code = code
        self._offsets: dict[Target, set[int]] = {}
        self._alike: dict[str, set[int]] = {}  # by how the callee is written
        self._numbers: dict[frozenset[Target], tuple[dict[int, int], int]] = {}
        self._functions: dict[int, list[tuple[CodeType, frozenset[Target]]]] = {}  # where one of several is called
        for call in code.calls:
            functions = targets.functions(call, scope)
            if len(functions) > 1:
                self._functions[call.offset] = functions
            self._alike.setdefault(_written(call.callee), set()).add(call.offset)
            for target in targets.of(call, scope):
                self._offsets.setdefault(target, set()).add(call.offset)

    def numbers(self, offset: int, wanted: frozenset[Target], called: CodeType | None) -> tuple[int, ...]:
        """The number of the call made at an offset, and which of several functions it calls; none where not needed."""
        call = self._code.call_at(offset)
        if call is None:
            return ()
        codes = [code for code, reached in self._functions.get(call.offset, ()) if not reached.isdisjoint(wanted)]
        which = (codes.index(called),) if len(codes) > 1 and called in codes else ()
        return self._number(call, wanted) + which

    def _number(self, call: Call, wanted: frozenset[Target]) -> tuple[int, ...]:
        if wanted not in self._numbers:
            known = self._code.before(set().union(*(self._offsets.get(target, ()) for target in wanted)))
            self._numbers[wanted] = known, max(known.values(), default=-1) + 1
        known, first = self._numbers[wanted]
        if call.offset in known:
            return (known[call.offset],) if first > 1 else ()
        # Nothing in the code says that this call reaches it: it comes after all of which that is known. Functions are
        # told from those called by what is written the same; modules have names of their own.
        if any(isinstance(target, nn.Module) for target in wanted):
            return (first,) if first else ()
        alike = self._code.before(self._alike[_written(call.callee)] - known.keys())
        return (first + alike[call.offset],) if first or any(alike.values()) else ()


class Places:
    """Tells the calls of the same function or module apart; what it has read of the code it keeps."""

    def __init__(self) -> None:
        self._codes: dict[tuple[CodeType, nn.Module], _Code] = {}
        self._targets = Targets()
        # Of what was asked for before; with the code, which the question holds by its identity alone.
        self._numbers: dict[Hashable, tuple[tuple[int, ...], tuple[CodeType, ...]]] = {}
        self._parts: dict[nn.Module, dict[nn.Module, frozenset[Target]]] = {}  # of a parent: itself and its names

    def of(self, steps: tuple[Step, ...], wanted: frozenset[Target], module: nn.Module) -> tuple[int, ...]:
        """Which of several: a number for each step on the way at which there is a choice.

        Args:
            steps: of a `route`.
            wanted: what is called: itself, and by the names that it has (see `plain`).
            module: in whose forward the way begins.

        Returns:
            Numbers from 0: how many other calls of it the code may have made before. None where it calls this once
            only.
        """
        codes = tuple(step.code for step in steps)
        asked = (
            module,
            wanted,
            *((id(step.code), step.offset) for step in steps),
        )  # a code's hash goes through all of it
        if asked not in self._numbers:
            self._read(steps, module)
            numbers = [
                self._codes[step.code, module].numbers(step.offset, wanted, called)
                for step, called in zip_longest(steps, codes[1:])
            ]
            self._numbers[asked] = tuple(chain.from_iterable(numbers)), codes
        return self._numbers[asked][0]

    def of_module(self, steps: tuple[Step, ...], module: nn.Module, parent: nn.Module) -> tuple[int, ...]:
        """The same of a call of ``module`` in the forward of ``parent``."""
        if not steps:
            return ()
        if parent not in self._parts:
            names: dict[nn.Module, frozenset[Target]] = {}
            for name, part in parent._modules.items():
                if part is not None:
                    names[part] = names.get(part, frozenset((part,))) | {plain(name)}
            self._parts[parent] = names
        return self.of(steps, self._parts[parent].get(module) or frozenset((module,)), parent)

    def forget_values(self) -> None:
        """Let go of what variables of the code held when it was read, which may be what a pass has computed.

        All else stays; but not of more code than a network has that is made of the same parts, as one that writes code
        anew in each pass.
        """
        self._targets = Targets()
        if max(len(self._codes), len(self._numbers)) > _MOST:
            self._codes.clear()
            self._numbers.clear()

    def _read(self, steps: tuple[Step, ...], module: nn.Module) -> None:
        for step in steps:
            if (step.code, module) not in self._codes and step.frame is not None:
                scope = Scope.of_frame(step.frame, module)
                self._codes[step.code, module] = _Code(read_code(step.code), scope, self._targets)


def _written(callee: Expression | None) -> str:
    """How a callee is written, without the values of its indices and arguments."""
    if callee is None:
        return ""
    inside = _written(callee.parts[0]) if callee.kind in ("item", "result") and callee.parts else ""
    return f"{callee.kind} {callee.value if callee.kind in ('name', 'attribute') else inside}"


class Place(NamedTuple):
    """Where in a network's code something is called.

    Attributes:
        base: the module it is called in, and what it is.
        numbers: which of several such calls of the module's code; see `Places`.
        outer: the same of the modules that run around it, innermost first.
        depth: how many modules run within themselves.
    """

    base: str
    numbers: tuple[int, ...]
    outer: tuple[int, ...] = ()
    depth: int = 0


@dataclass
class Names:
    """The names given in one pass."""

    used: set[str] = field(default_factory=set)
    runs: dict[Place, int] = field(default_factory=dict)

    def give(self, place: Place) -> str:
        """A name that no other call of this pass has: by its place in the code, then by how often that has run.

        What runs in a module that is called from several places has the number of that behind its own. The outermost
        run of a network that calls itself has the name without a number, whether it comes first or not.
        """
        while True:
            run = self.runs.get(place, place.depth)
            self.runs[place] = run + 1
            outer = list(place.outer)
            while outer and not outer[-1] and not run:
                outer.pop()
            parts = [*place.numbers, *outer]
            parts += [run] if run or not parts else []
            name = f"{place.base}#{'.'.join(map(str, parts))}" if any(parts) else place.base
            if name not in self.used:
                self.used.add(name)
                return name
