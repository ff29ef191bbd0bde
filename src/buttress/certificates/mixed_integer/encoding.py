"""The inputs that a threat allows, and what a network makes of them, as the points of a mixed-integer program."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from buttress.certificates.bounds.linear import Functions, Intervals, before_affine, identity
from buttress.certificates.bounds.network import BoundedNetwork
from buttress.certificates.bounds.region import Region
from buttress.certificates.mixed_integer.pieces import encode_maxima, encode_pieces
from buttress.certificates.mixed_integer.program import Columns, Floats, Program, Solution, Term
from buttress.certificates.network.graph import INPUT, Ref
from buttress.certificates.operations.elementwise import Elementwise
from buttress.certificates.operations.maxima import Maximum
from buttress.certificates.operations.operation import Interval, Place
from buttress.errors import UserError

_AT_ONCE = 2**22  # coefficients of an affine function that are held densely at once
_ROUNDING = 1e-5  # of the largest end of a value's interval: by which its ends are moved apart


class Encoding:
    """A program whose feasible points are one input within a threat, with all that the network computes of it.

    Affine operations become rows of their coefficients; a function of linear pieces and a maximum get a binary variable
    for each choice that their intervals leave open (Tjeng et al., ICLR 2019).

    Args:
        network: the network.
        region: of one input; in linf or l1.
        intervals: of what operations take that are not affine.
        branch: intervals of some of these that are assumed; their ends are not moved apart.

    Raises:
        UserError: naming the first layer that is not made of linear pieces, and for l2.
    """

    def __init__(
        self, network: BoundedNetwork, region: Region, intervals: Intervals, branch: Intervals | None = None
    ) -> None:
        check_encodable(network, region)
        self.network, self.region, self.program = network, region, Program()
        low, high = _arrays((region.low, region.high))
        self.columns: dict[Ref, Columns] = {Ref(INPUT): self.program.variables(low, high, len(low))}
        if region.threat.norm == "l1":
            self._keep_l1()
        for index, operation in enumerate(network.operations):
            if operation is None or operation.affine:
                continue
            place = network.place(index)
            ends = {ref: _apart(intervals[ref], None if branch is None else branch.get(ref)) for ref in place.inputs}
            taken = {ref: self._value(ref, ends[ref]) for ref in place.inputs}
            if isinstance(operation, Maximum):
                made = encode_maxima(self.program, operation, place, ends, taken)
            else:
                assert isinstance(operation, Elementwise)
                made = encode_pieces(self.program, operation, place, ends, taken)
            self.columns[Ref(index)] = made

    def least(self, functions: Functions, row: int, seconds: float) -> Solution:
        """What is known of the least value of one of some functions of the network's values."""
        reached = before_affine(self.network, functions)
        objective = np.zeros(1 + max(int(columns.max()) for columns in self.columns.values()))
        for ref, slope in reached.slopes.items():
            objective[self.columns[ref]] += _array(slope[row])
        found = self.program.least(objective, seconds)
        return Solution(found.least + float(reached.offset[row, 0]), found.point)

    def input(self, solution: Solution) -> Tensor | None:
        """(1, ...) the input of a solution, moved into the threat where it is out of it by a tolerance."""
        if solution.point is None:
            return None
        x = self.region.x
        point = torch.as_tensor(solution.point[self.columns[Ref(INPUT)]], dtype=x.dtype, device=x.device)
        return self.region.threat.project(point.view_as(x), x)

    def _keep_l1(self) -> None:
        """The sum of the distances from the centre is at most the budget."""
        inputs, centre = self.columns[Ref(INPUT)], _array(self.region.x)
        budget, count = float(self.region.budgets[0]), len(inputs)
        far = self.program.variables(0.0, budget, count)
        for sign in (1.0, -1.0):
            terms = [Term.each(far), Term.each(inputs, -sign)]
            self.program.constrain(terms, -sign * centre, math.inf, count)
        self.program.constrain([Term(np.zeros(count, dtype=np.int64), far, np.ones(count))], -math.inf, budget, 1)

    def _value(self, ref: Ref, interval: Interval) -> Columns:
        """The variables of a value, with rows that tie them to what it is computed of."""
        if ref in self.columns:
            return self.columns[ref]
        low, high = _arrays(interval)
        columns = self.program.variables(low, high, len(low))
        largest = max(self.network.graph.shape_of(known).numel() for known in (ref, *self.columns))
        terms, offsets = [Term.each(columns)], list[Floats]()
        for part in torch.split(torch.arange(len(low), device=interval[0].device), max(1, _AT_ONCE // largest)):
            reached = before_affine(self.network, Functions.of(ref, identity(part, interval[0])))
            for source, slope in reached.slopes.items():
                matrix = slope.flatten(1).cpu().double().numpy()
                terms.append(Term.matrix(-matrix, self.columns[source], int(part[0])))
            offsets.append(_array(reached.offset))
        offset = np.concatenate(offsets)
        self.program.constrain(terms, offset, offset, len(low))
        self.columns[ref] = columns
        return columns


def check_encodable(network: BoundedNetwork, region: Region) -> None:
    """Refuse what is no linear program, even with integers.

    Raises:
        UserError: naming the layer, or the norm.
    """
    if region.threat.norm == "l2":
        raise UserError('exact is for linf and l1, whose budgets are linear; in l2 use method="branch-and-bound"')
    place = _not_linear(network)
    if place is not None:
        raise UserError(
            f'cannot encode {place.node}: exact is for functions of linear pieces, such as ReLU; use "alpha-crown"'
        )


def encodable(network: BoundedNetwork, region: Region) -> bool:
    """Whether a network's values within a threat are the points of a program."""
    return region.threat.norm != "l2" and _not_linear(network) is None


def _not_linear(network: BoundedNetwork) -> Place | None:
    """The first operation that is not made of linear pieces."""
    for index, operation in enumerate(network.operations):
        if operation is None or operation.affine or isinstance(operation, Maximum):
            continue
        place = network.place(index)
        if not isinstance(operation, Elementwise) or operation.corners(place) is None:
            return place
    return None


def _apart(interval: Interval, branch: Interval | None) -> Interval:
    """An interval with room for the rounding of its ends, and within what a branch assumes."""
    low, high = interval
    room = _ROUNDING * torch.maximum(low.abs(), high.abs()).amax()
    low, high = low - room, high + room
    return (low, high) if branch is None else (torch.maximum(low, branch[0]), torch.minimum(high, branch[1]))


def _array(values: Tensor) -> Floats:
    """One input's values, flat, in double precision."""
    flat: Floats = values.detach().flatten().cpu().double().numpy()
    return flat


def _arrays(interval: Interval) -> tuple[Floats, Floats]:
    return _array(interval[0]), _array(interval[1])
