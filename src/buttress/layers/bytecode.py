"""Which calls some Python code makes, and in which order it may make them."""

from __future__ import annotations

import dis
import inspect
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType

_LEAVES = ("RETURN_", "RAISE_VARARGS", "RERAISE", "JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_ABSOLUTE")  # no next line
_KEEPS = ("LOAD_", "MAKE_FUNCTION", "SET_FUNCTION_ATTRIBUTE", "PUSH_NULL", "COPY", "CACHE", "RESUME")
_CREATES = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


@dataclass(frozen=True)
class Call:
    """A call in some code.

    Attributes:
        offset: of its instruction; ``end`` is where the next one begins.
        names: what may be called: the last name of the expression (``relu`` of ``self.bn(x).relu()``), what a local of
            that name was made from, and code written in its place or in its arguments (lambdas, comprehensions).
    """

    offset: int
    end: int
    names: tuple[str | CodeType, ...]


@dataclass(frozen=True)
class Code:
    """What some code calls.

    Attributes:
        calls: in the order of the code.
        edges: (from, to) offsets of instructions that may follow each other, by the first; a jump back leads to where
            its loop ends.
    """

    calls: tuple[Call, ...]
    edges: tuple[tuple[int, int], ...]

    def before(self, calls: set[int]) -> dict[int, int]:
        """For each call of the code, how many of those at these offsets may have been made before it, on one path."""
        made: dict[int, int] = {}
        for source, target in self.edges:  # what comes before is known
            made[target] = max(made.get(target, 0), made.get(source, 0) + (source in calls))
        return {call.offset: made.get(call.offset, 0) for call in self.calls}


@lru_cache(maxsize=4096)
def read_code(code: CodeType) -> Code:
    """The calls of some code, read off its bytecode."""
    instructions = list(dis.get_instructions(code))
    ends = [*(instruction.offset for instruction in instructions[1:]), len(code.co_code)]
    return Code(_calls(instructions, ends), _edges(instructions, ends))


def _calls(instructions: list[dis.Instruction], ends: list[int]) -> tuple[Call, ...]:
    calls: list[Call] = []
    begun: dict[
        tuple[int | None, int | None], tuple[int, str | CodeType]
    ] = {}  # where an expression begins -> last name
    made_from: dict[str, tuple[str | CodeType, ...]] = {}  # of local names
    codes: list[tuple[int, CodeType]] = []  # not yet called
    prepared: int | None = None  # where Python 3.11 prepares a call, and makes it there once it knows the function
    last: str | CodeType | None = None  # what the instruction before has put on the stack
    for instruction, end in zip(instructions, ends, strict=True):
        position, value, name = instruction.positions, instruction.argval, instruction.opname
        start = (None, None) if position is None else (position.lineno, position.col_offset)
        if name.startswith("LOAD_") and isinstance(value, str | CodeType):
            begun[start], last = (instruction.offset, value), value
            codes += [(instruction.offset, value)] if isinstance(value, CodeType) else []
        elif name.startswith("STORE_") and isinstance(value, str) and last is not None:
            made_from[value] = (*made_from.get(value, ()), last)
            codes = [(offset, inner) for offset, inner in codes if inner is not last]
        elif name == "PRECALL":
            prepared = instruction.offset
        elif name.startswith("CALL") and not name.startswith("CALL_INTRINSIC"):
            offset, callee = begun.get(start, (instruction.offset, ""))
            if not isinstance(callee, CodeType) or not callee.co_flags & _CREATES:
                arguments = [inner for at, inner in codes if at > offset]
                codes = [(at, inner) for at, inner in codes if at < offset]
                names = (callee, *(made_from.get(callee, ()) if isinstance(callee, str) else ()), *arguments)
                calls.append(Call(instruction.offset if prepared is None else prepared, end, names))
            prepared = None
        if not name.startswith(_KEEPS):
            last = None
    return tuple(calls)


def _edges(instructions: list[dis.Instruction], ends: list[int]) -> tuple[tuple[int, int], ...]:
    edges: list[tuple[int, int]] = []
    exits: dict[int, int] = {}  # of a loop, by where it begins
    for instruction, end in zip(instructions, ends, strict=True):
        here = instruction.offset
        if instruction.opcode in dis.hasjrel or instruction.opcode in dis.hasjabs:
            target = instruction.argval
            exits[here] = target
            target = target if target > here else exits.get(target, -1)
            edges += [(here, target)] if target > here else []
        if not instruction.opname.startswith(_LEAVES):
            edges.append((here, end))
    return tuple(edges)
