"""Which calls some Python code makes, of what, and in which order it may make them."""

from __future__ import annotations

import dis
import inspect
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from types import CodeType

from buttress.layers import opcodes
from buttress.layers.expressions import Call, Code, Expression

_LEAVES = ("RETURN_", "RAISE_VARARGS", "RERAISE", "JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_ABSOLUTE")  # no next line
_NAMES = ("LOAD_FAST", "LOAD_NAME", "LOAD_GLOBAL", "LOAD_DEREF", "LOAD_CLASSDEREF")
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR")
_DONE = ("POP_TOP", "STORE_ATTR", "STORE_SUBSCR", "STORE_SLICE", "RETURN_VALUE")  # end a statement
_GOES_ON = ("END_FOR", "POP_JUMP", "SWAP")  # before POP_TOP: after a loop, within ``a and b``, within ``a < b < c``
_LOCALS = re.compile("LOAD_FAST|STORE_FAST")  # which Python 3.13 has in pairs
CREATES = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR  # flags of code that runs later
_DEFINITIONS = 4  # of one local, the last of them: more are not told apart

_Position = tuple[int, int]


@lru_cache(maxsize=4096)
def read_code(code: CodeType) -> Code:
    """The calls of some code, read off its bytecode; none where another Python has instructions that are not known."""
    return read_instructions(list(dis.get_instructions(code)), len(code.co_code))


def read_instructions(instructions: list[dis.Instruction], size: int) -> Code:
    """The same from instructions of `dis`, of ``size`` bytes."""
    if not all(instruction.opname in opcodes.KNOWN for instruction in instructions):
        return Code((), (), (), {})
    ends = [*(instruction.offset for instruction in instructions[1:]), size]
    reader = _Reader()
    for instruction, after, end in zip(instructions, [*instructions[1:], None], ends, strict=True):
        if after is None or after.opname != "CALL_KW":  # which follows the names of its arguments
            reader.read(instruction, end)
    return Code(tuple(reader.calls), _edges(instructions, ends), tuple(reader.named), reader.locals)


@dataclass(frozen=True)
class _Read:
    """An expression on the stack.

    Attributes:
        offset: of its first instruction.
        start: where it begins in the source; the earliest place where it can, if that is not ``told``.
        expression: itself.
        told: whether the instruction says where it begins, and not only the one before in a pair.
    """

    offset: int
    start: _Position
    expression: Expression
    told: bool = True


class _Reader:
    """Follows the instructions of some code in their order.

    An expression is put together from what begins at the same place of the source: ``self.act`` and ``self.act(x)``.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.named: list[Expression] = []
        self._written: dict[tuple[int | None, ...], int] = {}  # the calls by their place in the source
        self._begun: dict[_Position, _Read] = {}
        self._stack: list[_Read] = []  # computed and not used so far
        self.locals: dict[str, tuple[Expression, ...]] = {}
        self._prepared: int | None = None  # where Python 3.11 prepares a call, and makes it once it knows the function
        self._below = 0  # how much of the stack is no part of what the next loop goes through
        self._looped = False  # whether the names set next are a loop's
        self._previous = ""  # instruction
        self._inlined: list[tuple[str, tuple[Expression, ...]]] = []  # names of comprehensions, and what they were
        self._unpacked: list[Expression] = []  # what several names are set to

    def read(self, instruction: dis.Instruction, end: int) -> None:
        """Go on by one instruction; ``end`` is where the next begins."""
        name, value, offset = instruction.opname, instruction.argval, instruction.offset
        start = _start(instruction)
        previous, self._previous = self._previous, name
        if name == "LOAD_FAST_AND_CLEAR":  # of a comprehension that is written into the code around it
            self._inlined.append((value, self.locals.get(value, ())))
        elif isinstance(value, tuple) and _LOCALS.match(name):
            self._pair(_LOCALS.findall(name), value, instruction)
        elif name == "LOAD_SUPER_ATTR":
            self._taken(start)
            inherited = Expression("result", None, (Expression("name", "super"),))
            self._put(offset, start, Expression("attribute", value, (inherited,)))
        elif name.startswith(_ATTRIBUTES):
            self._put(offset, start, Expression("attribute", value, self._taken(start)[0]))
        elif name.startswith(_NAMES) and isinstance(value, str):
            self._put(offset, start, Expression("name", value, self.locals.get(value, ())), anew=True)
        elif name == "LOAD_CONST":
            kind = "code" if isinstance(value, CodeType) else "constant"
            self._put(offset, start, Expression(kind, value), anew=True)
        elif name == "BINARY_SUBSCR":
            base, index = self._taken(start)
            self._put(offset, start, Expression("item", None, (*base, *index)))
        elif name == "BINARY_SLICE":
            base, bounds = self._taken(start)
            self._put(offset, start, Expression("item", None, (*base, Expression("slice", None, bounds))))
        elif name == "BUILD_SLICE":
            bounds = tuple(self._stack.pop().expression for _ in range(min(instruction.arg or 0, len(self._stack))))
            self._put(offset, start, Expression("slice", None, bounds[::-1]), anew=True)
        elif (name.startswith("BUILD_") and value) or name == "BINARY_OP":
            base, others = self._taken(start)
            self._put(offset, start, Expression("sum" if name == "BINARY_OP" else "group", None, (*base, *others)))
        elif name in ("LIST_APPEND", "SET_ADD", "MAP_ADD") and (instruction.arg or 0) > 1 and self._stack:
            added = self._stack.pop()  # to what a comprehension gives
            self._stack.append(replace(added, expression=Expression("group", None, (added.expression,))))
        elif name == "PRECALL":
            self._prepared = offset
        elif name.startswith("CALL") and not name.startswith("CALL_INTRINSIC"):
            self._call(instruction, end)
        elif name == "GET_ITER":
            inside = sum(read.start >= start for read in self._stack if read.told)
            self._below = max(len(self._stack) - max(inside, 1), 0)
        elif name == "FOR_ITER":
            self._looped = True
        elif name.startswith("UNPACK_"):
            self._unpack(instruction.arg or 0, starred=name == "UNPACK_EX")
        elif name.startswith(("STORE_FAST", "STORE_DEREF", "STORE_NAME", "STORE_GLOBAL")):
            self._set(str(value))
        elif name in _DONE and not (name == "POP_TOP" and previous.startswith(_GOES_ON)):
            self._stack.clear()

    def _pair(self, does: list[str], names: tuple[str, ...], instruction: dis.Instruction) -> None:
        """Several local names at once; the place in the source is that of the first."""
        start, where = _start(instruction), instruction.positions
        for at, (what, name) in enumerate(zip(does, names, strict=True)):
            if what == "STORE_FAST":
                self._set(name)
                start = (start[0], 0)  # a comprehension has the name behind what it makes of it
                continue
            read = Expression("name", name, self.locals.get(name, ()))
            self._put(instruction.offset + at, start, read, anew=True, told=not at)
            if where is not None:
                start = (where.end_lineno or -1, where.end_col_offset or -1)

    def _put(
        self, offset: int, start: _Position, expression: Expression, *, anew: bool = False, told: bool = True
    ) -> None:
        begun = self._begun.get(start)
        read = _Read(offset if anew or begun is None else begun.offset, start, expression, told)
        if told:
            self._begun[start] = read
        self._stack.append(read)
        if expression.kind not in ("constant", "group", "slice", "sum", "result"):
            self.named.append(expression)

    def _taken(self, start: _Position) -> tuple[tuple[Expression, ...], tuple[Expression, ...]]:
        """What begins at this place, and what was read after it; neither waits to be used any more."""
        begun = self._begun.get(start)
        after: list[Expression] = []
        while self._stack:
            last = self._stack[-1]
            if begun is None and not last.told and last.start <= start:
                begun = last
            if (last.offset <= begun.offset) if begun is not None else (last.start < start):
                break
            after.append(self._stack.pop().expression)
        if begun is None:
            return (), tuple(reversed(after))
        if self._stack and self._stack[-1].offset == begun.offset:
            self._stack.pop()
        return (begun.expression,), tuple(reversed(after))

    def _call(self, instruction: dis.Instruction, end: int) -> None:
        offset, start = instruction.offset, _start(instruction)
        callee, arguments = self._taken(start)
        called = callee[0] if callee else None
        creates = called is not None and called.kind == "code" and called.value.co_flags & CREATES
        if not creates:
            span = offset if self._prepared is None else self._prepared, end
            where = tuple(instruction.positions or (None,))
            at = len(self.calls) if None in where else self._written.setdefault(where, len(self.calls))
            if at < len(self.calls):  # the same call once more
                first = self.calls[at]
                spans, given = (*first.spans, span), (*first.arguments, *arguments)
                self.calls[at] = Call(spans, called if first.callee is None else first.callee, given)
            else:
                self.calls.append(Call((span,), called, arguments))
        # A generator runs its code once it is asked to: as an argument of what asks.
        self._put(offset, start, called if creates and called else Expression("result", None, (*callee, *arguments)))
        self._prepared = None

    def _value(self) -> Expression:
        """What is stored next."""
        if self._unpacked:
            return self._unpacked.pop()
        below = self._below if self._looped else 0
        parts = tuple(read.expression for read in self._stack[below:])
        del self._stack[below if self._inlined else 0 :]  # what waits for a comprehension stays
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
        inlined = [at for at, (one, _) in enumerate(self._inlined) if one == name]
        if inlined and not self._looped:  # the comprehension has ended
            self.locals[name] = self._inlined.pop(inlined[-1])[1]
            return
        before = () if self._looped else self.locals.get(name, ())  # in a loop it is nothing else
        self.locals[name] = (*before, self._value())[-_DEFINITIONS:]
        self._looped &= bool(self._unpacked)


def _start(instruction: dis.Instruction) -> _Position:
    where = instruction.positions
    line, column = (where.lineno, where.col_offset) if where is not None else (None, None)
    return (-1 if line is None else line, -1 if column is None else column)


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
