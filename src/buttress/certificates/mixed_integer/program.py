"""A mixed-integer linear program that is put together piece by piece, and solved by HiGHS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Columns = NDArray[np.int64]  # variables by number

_DUAL_TOLERANCE = 1e-7  # HiGHS's, by which an optimal reduced cost may have the wrong sign
_GAP = 1e-6  # HiGHS's absolute gap, at which a search over integers ends
_INFEASIBLE = 2  # scipy's status


@dataclass(frozen=True)
class Term:
    """Coefficients of variables in some rows: entry i is ``values[i]`` in row ``rows[i]`` for ``columns[i]``."""

    rows: Columns
    columns: Columns
    values: Floats

    @classmethod
    def each(cls, columns: Columns, values: Floats | float = 1.0) -> Term:
        """One variable in each row."""
        return cls(np.arange(len(columns)), columns, np.broadcast_to(np.float64(values), columns.shape))

    @classmethod
    def matrix(cls, matrix: Floats, columns: Columns, first: int = 0) -> Term:
        """A matrix times a block of variables, from row ``first`` on."""
        rows, places = np.nonzero(matrix)
        return cls(rows + first, columns[places], matrix[rows, places])


@dataclass(frozen=True)
class Solution:
    """What is known of the least value of a program.

    Attributes:
        least: a lower bound of it; infinite where nothing is feasible, -infinite where nothing is known.
        point: (V,) the variables of the best point found; None for none.
    """

    least: float
    point: Floats | None


class Program:
    """Variables between ends, and rows of linear constraints."""

    def __init__(self) -> None:
        self._low, self._high, self._integer = list[Floats](), list[Floats](), list[bool]()
        self._terms = list[Term]()
        self._ends = list[tuple[Floats, Floats]]()
        self._rows, self._count = 0, 0

    def variables(self, low: Floats | float, high: Floats | float, count: int, *, integer: bool = False) -> Columns:
        """A block of variables between ends."""
        self._low.append(np.broadcast_to(np.float64(low), (count,)))
        self._high.append(np.broadcast_to(np.float64(high), (count,)))
        self._integer += [integer] * count
        self._count += count
        return np.arange(self._count - count, self._count)

    def constrain(self, terms: Sequence[Term], low: Floats | float, high: Floats | float, count: int) -> None:
        """Rows whose sums of terms are between ends."""
        self._terms += [Term(term.rows + self._rows, term.columns, term.values) for term in terms]
        self._ends.append((np.broadcast_to(np.float64(low), (count,)), np.broadcast_to(np.float64(high), (count,))))
        self._rows += count

    def least(self, objective: Floats, seconds: float) -> Solution:
        """The least value of ``objective`` (V,) times the variables.

        The solver keeps constraints to 1e-6, and integers too: by that its feasible points are more than there are, and
        their least value is no larger than the true one. What could make it larger are its tolerances of optimality:
        1e-7 for the reduced cost of each variable, which is worth that times the variable's range, and 1e-6 for the gap
        at which a search ends. By these the bound is lowered.

        Args:
            objective: coefficients; of fewer variables than there are those of the first.
            seconds: after which the bound is that which the search has come to.
        """
        low, high = np.concatenate(self._low), np.concatenate(self._high)
        weights = np.zeros(self._count)
        weights[: len(objective)] = objective
        from scipy.optimize import Bounds, milp

        answer = milp(
            weights,
            integrality=np.array(self._integer, dtype=np.int64),
            bounds=Bounds(low, high),
            constraints=self._constraints(),
            options={"time_limit": max(seconds, 0.0), "mip_rel_gap": 0.0},
        )
        if answer.status == _INFEASIBLE:
            return Solution(math.inf, None)
        bound = answer.fun if answer.status == 0 else None
        if any(self._integer):
            bound = answer.mip_dual_bound
        if bound is None or not math.isfinite(bound):
            return Solution(-math.inf, answer.x)
        return Solution(float(bound) - _GAP - _DUAL_TOLERANCE * float((high - low).sum()), answer.x)

    def _constraints(self) -> Any:
        """The rows as scipy takes them."""
        from scipy.optimize import LinearConstraint
        from scipy.sparse import coo_array, csr_array

        if not self._rows:
            return ()
        rows, columns, values = (
            np.concatenate([getattr(term, name) for term in self._terms]) for name in ("rows", "columns", "values")
        )
        matrix = csr_array(coo_array((values, (rows, columns)), shape=(self._rows, self._count)))
        low, high = (np.concatenate(ends) for ends in zip(*self._ends, strict=True))
        return LinearConstraint(matrix, low, high)
