"""What Python code is made of, as far as layer names need it: expressions, and calls in the order they may be made."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any


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
        spans: where its instruction is, and where the next one begins; several where the compiler has written the end
            of a function or a ``finally`` once for each way to there.
        callee: what is called; None where an operator computes it.
        arguments: what it is given, and code written in its place.
    """

    spans: tuple[tuple[int, int], ...]
    callee: Expression | None
    arguments: tuple[Expression, ...]

    @property
    def offset(self) -> int:
        """Where it is written first."""
        return self.spans[0][0]


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
    def _spans(self) -> list[tuple[int, int, Call]]:
        return sorted(((end, offset, call) for call in self.calls for offset, end in call.spans), key=itemgetter(0))

    @cached_property
    def _sources(self) -> list[int]:
        return [source for source, _ in self.edges]

    def call_at(self, offset: int) -> Call | None:
        """The call that is being made at this offset."""
        at = bisect_right(self._spans, offset, key=itemgetter(0))
        return self._spans[at][2] if at < len(self._spans) and self._spans[at][1] <= offset else None

    def before(self, calls: set[int]) -> dict[int, int]:
        """For each of the calls at these offsets, how many of them may have been made before it, on one path."""
        if len(calls) < 2:
            return dict.fromkeys(calls, 0)
        written = {call.offset: [offset for offset, _ in call.spans] for call in self.calls if call.offset in calls}
        everywhere = {offset for offsets in written.values() for offset in offsets}
        made: dict[int, int] = {}
        # What comes before is known: edges lead forwards.
        for source, target in self.edges[
            bisect_left(self._sources, min(everywhere)) : bisect_left(self._sources, max(everywhere))
        ]:
            made[target] = max(made.get(target, 0), made.get(source, 0) + (source in everywhere))
        return {call: max(made.get(offset, 0) for offset in offsets) for call, offsets in written.items()}
