"""Which calls some Python code makes, of what, and in which order it may make them."""

from __future__ import annotations

import dis
import inspect
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import CodeType
from typing import Any

_LEAVES = ("RETURN_", "RAISE_VARARGS", "RERAISE", "JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_ABSOLUTE")  # no next line
_NAMES = ("LOAD_FAST", "LOAD_NAME", "LOAD_GLOBAL", "LOAD_DEREF", "LOAD_CLASSDEREF")
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR")
_DONE = ("POP_TOP", "STORE_ATTR", "STORE_SUBSCR", "RETURN_VALUE")  # end a statement
CREATES = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR  # flags of code that runs later
_DEFINITIONS = 4  # of one local, the last of them: more are not told apart

_Position = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Expression:
    """What the code computes, as far as it is written down in the code.

    Attributes:
        kind: "name"; "constant"; "code" of a lambda or a comprehension; "attribute", "item" or "result" of a call, of
            the first of the parts; "group" of several, as in a list; "sum" or "any" of several; "slice".
        value: the name, the constant, the code, or the attribute's name.
        parts: what it is made of: of a local name what it was set to, of an item the container and the index, of a
            result the callee and its arguments.
    """

    kind: str
    value: Any = None
    parts: tuple[Expression, ...] = ()


@dataclass(frozen=True)
class Call:
    """A call in some code.

    Attributes:
        offset: of its instruction; ``end`` is where the next one begins.
        callee: what is called; None where an operator computes it.
        arguments: what it is given, and code written in its place.
    """

    offset: int
    end: int
    callee: Expression | None
    arguments: tuple[Expression, ...]


@dataclass(frozen=True)
class Code:
    """What some code calls.

    Attributes:
        calls: in the order of the code.
        edges: (from, to) offsets of instructions that may follow each other, by the first; a jump back leads to where
            its loop ends.
        named: every expression that is read.
        locals: what each local name was set to last.
    """

    calls: tuple[Call, ...]
    edges: tuple[tuple[int, int], ...]
    named: tuple[Expression, ...]
    locals: dict[str, tuple[Expression, ...]]

    @cached_property
    def _ends(self) -> list[int]:
        return [call.end for call in self.calls]

    @cached_property
    def _sources(self) -> list[int]:
        return [source for source, _ in self.edges]

    def call_at(self, offset: int) -> Call | None:
        """The call that is being made at this offset."""
        at = bisect_right(self._ends, offset)
        return self.calls[at] if at < len(self.calls) and self.calls[at].offset <= offset else None

    def before(self, calls: set[int]) -> dict[int, int]:
        """For each of the calls at these offsets, how many of them may have been made before it, on one path."""
        if len(calls) < 2:
            return dict.fromkeys(calls, 0)
        made: dict[int, int] = {}
        # What comes before is known: edges lead forwards.
        for source, target in self.edges[
            bisect_left(self._sources, min(calls)) : bisect_left(self._sources, max(calls))
        ]:
            made[target] = max(made.get(target, 0), made.get(source, 0) + (source in calls))
        return {offset: made.get(offset, 0) for offset in calls}


@lru_cache(maxsize=4096)
def read_code(code: CodeType) -> Code:
    """The calls of some code, read off its bytecode."""
    instructions = list(dis.get_instructions(code))
    ends = [*(instruction.offset for instruction in instructions[1:]), len(code.co_code)]
    reader = _Reader()
    for instruction, end in zip(instructions, ends, strict=True):
        reader.read(instruction, end)
    return Code(tuple(reader.calls), _edges(instructions, ends), tuple(reader.named), reader.locals)


@dataclass(frozen=True)
class _Read:
    """An expression on the stack: where its first instruction is, and where it begins in the source."""

    offset: int
    start: _Position
    expression: Expression


class _Reader:
    """Follows the instructions of some code in their order.

    An expression is put together from what begins at the same place of the source: ``self.act`` and ``self.act(x)``.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.named: list[Expression] = []
        self._begun: dict[_Position, _Read] = {}
        self._stack: list[_Read] = []  # computed and not used so far
        self.locals: dict[str, tuple[Expression, ...]] = {}
        self._prepared: int | None = None  # where Python 3.11 prepares a call, and makes it once it knows the function
        self._looped = False  # whether the names set next are a loop's
        self._unpacked: list[Expression] = []  # what several names are set to

    def read(self, instruction: dis.Instruction, end: int) -> None:
        """Go on by one instruction; ``end`` is where the next begins."""
        name, value, offset = instruction.opname, instruction.argval, instruction.offset
        where = instruction.positions
        line, column = (where.lineno, where.col_offset) if where is not None else (None, None)
        start = (-1 if line is None else line, -1 if column is None else column)
        if name.startswith(_ATTRIBUTES):
            self._put(offset, start, Expression("attribute", value, self._taken(start)[0]))
        elif name.startswith(_NAMES) and isinstance(value, str):
            self._put(offset, start, Expression("name", value, self.locals.get(value, ())), anew=True)
        elif name == "LOAD_CONST":
            kind = "code" if isinstance(value, CodeType) else "constant"
            self._put(offset, start, Expression(kind, value), anew=True)
        elif name == "BINARY_SUBSCR":
            base, index = self._taken(start)
            self._put(offset, start, Expression("item", None, (*base, *index)))
        elif name == "BUILD_SLICE":
            bounds = tuple(self._stack.pop().expression for _ in range(min(instruction.arg or 0, len(self._stack))))
            self._put(offset, start, Expression("slice", None, bounds[::-1]), anew=True)
        elif (name.startswith("BUILD_") and value) or name == "BINARY_OP":
            base, others = self._taken(start)
            self._put(offset, start, Expression("sum" if name == "BINARY_OP" else "group", None, (*base, *others)))
        elif name == "PRECALL":
            self._prepared = offset
        elif name.startswith("CALL") and not name.startswith("CALL_INTRINSIC"):
            self._call(offset, start, end)
        elif name == "FOR_ITER":
            self._looped = True
        elif name.startswith("UNPACK_"):
            self._unpack(instruction.arg or 0, starred=name == "UNPACK_EX")
        elif name.startswith(("STORE_FAST", "STORE_DEREF", "STORE_NAME", "STORE_GLOBAL")):
            self._set(str(value))
        elif name in _DONE:
            self._stack.clear()

    def _put(self, offset: int, start: _Position, expression: Expression, *, anew: bool = False) -> None:
        begun = self._begun.get(start)
        read = _Read(offset if anew or begun is None else begun.offset, start, expression)
        self._begun[start] = read
        self._stack.append(read)
        if expression.kind not in ("constant", "group", "slice", "sum", "result"):
            self.named.append(expression)

    def _taken(self, start: _Position) -> tuple[tuple[Expression, ...], tuple[Expression, ...]]:
        """What begins at this place, and what was read after it; neither waits to be used any more."""
        begun = self._begun.get(start)
        after: list[Expression] = []
        while self._stack and (
            self._stack[-1].offset > begun.offset if begun is not None else self._stack[-1].start >= start
        ):
            after.append(self._stack.pop().expression)
        if begun is None:
            return (), tuple(reversed(after))
        if self._stack and self._stack[-1].offset == begun.offset:
            self._stack.pop()
        return (begun.expression,), tuple(reversed(after))

    def _call(self, offset: int, start: _Position, end: int) -> None:
        callee, arguments = self._taken(start)
        called = callee[0] if callee else None
        creates = called is not None and called.kind == "code" and called.value.co_flags & CREATES
        if not creates:
            self.calls.append(Call(offset if self._prepared is None else self._prepared, end, called, arguments))
        # A generator runs its code once it is asked to: as an argument of what asks.
        self._put(offset, start, called if creates and called else Expression("result", None, (*callee, *arguments)))
        self._prepared = None

    def _value(self) -> Expression:
        """What is stored next."""
        if self._unpacked:
            return self._unpacked.pop()
        parts = tuple(read.expression for read in self._stack)
        self._stack.clear()
        value = parts[0] if len(parts) == 1 else Expression("any", None, parts)
        return Expression("item", None, (value,)) if self._looped else value

    def _unpack(self, count: int, *, starred: bool) -> None:
        value = self._value()
        indices: list[int | slice] = list(range(count & 0xFF))
        if starred:  # the names before the one with a star, and those after it
            after = count >> 8
            indices += [slice(count & 0xFF, -after or None), *range(-after, 0)]
        parts = (Expression("item", None, (value, Expression("constant", index))) for index in reversed(indices))
        self._unpacked += parts

    def _set(self, name: str) -> None:
        before = () if self._looped else self.locals.get(name, ())  # in a loop it is nothing else
        self.locals[name] = (*before, self._value())[-_DEFINITIONS:]
        self._looped &= bool(self._unpacked)


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
