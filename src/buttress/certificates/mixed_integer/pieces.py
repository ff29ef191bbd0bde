"""Functions of linear pieces, and maxima, as constraints with a binary variable for each open choice."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from buttress.certificates.mixed_integer.program import Columns, Floats, Program, Term
from buttress.certificates.network.graph import Ref
from buttress.certificates.operations.elementwise import Elementwise
from buttress.certificates.operations.maxima import Maximum
from buttress.certificates.operations.operation import Interval, Place


def encode_pieces(
    program: Program, operation: Elementwise, place: Place, ends: dict[Ref, Interval], taken: dict[Ref, Columns]
) -> Columns:
    """The variables of ``y = f(z)``, by the incremental method (Markowitz and Manne, 1957).

    z is its lower end plus a step in each piece; a step may begin where that before is complete, which a binary
    variable says of the two. For ReLU this is as tight as the four inequalities of Tjeng et al. (2019).

    Args:
        program: what they are added to.
        operation: f.
        place: where it stands.
        ends: of z, (1, ...).
        taken: the variables of z.
    """
    ((ref, (low, high)),) = ends.items()
    corners = operation.corners(place)
    assert corners is not None
    inner = [torch.full_like(low, corner).clamp(low, high) for corner in sorted(set(corners))]
    points = torch.stack([low, *inner, high])
    at, values = _rows(points), _rows(torch.stack([place.run({ref: point}) for point in points]))
    inputs, count = taken[ref], at.shape[1]
    outputs = program.variables(values.min(0), values.max(0), count)
    lengths = np.diff(at, axis=0)
    slopes = np.diff(values, axis=0) / np.where(lengths > 0, lengths, 1.0)
    steps = [program.variables(0.0, length, count) for length in lengths]
    program.constrain([Term.each(inputs), *(Term.each(step, -1.0) for step in steps)], at[0], at[0], count)
    sums = [Term.each(step, -slope) for step, slope in zip(steps, slopes, strict=True)]
    program.constrain([Term.each(outputs), *sums], values[0], values[0], count)
    for before in range(len(steps) - 1):
        for after in range(before + 1, len(steps)):
            # Neighbours, where the pieces between them are empty.
            empty = (lengths[before + 1 : after] == 0).all(0)
            open_ = np.flatnonzero(empty & (lengths[before] > 0) & (lengths[after] > 0))
            if not len(open_):
                continue
            full = program.variables(0.0, 1.0, len(open_), integer=True)
            complete = [Term.each(steps[before][open_]), Term.each(full, -lengths[before][open_])]
            program.constrain(complete, 0.0, math.inf, len(open_))
            begun = [Term.each(steps[after][open_]), Term.each(full, -lengths[after][open_])]
            program.constrain(begun, -math.inf, 0.0, len(open_))
    return outputs


def encode_maxima(
    program: Program, operation: Maximum, place: Place, ends: dict[Ref, Interval], taken: dict[Ref, Columns]
) -> Columns:
    """The variables of maxima: no less than each candidate, and no more than the one that a binary variable chooses.

    Candidates that another exceeds in any case are not chosen among. Of a smallest value likewise, with all signs
    turned. Arguments as of `encode_pieces`.
    """
    sign, chosen = float(operation.sign), operation.candidates(place)
    made = program.variables(*_outer(operation.interval(place, ends)), place.node.shapes[0].numel())
    numbers = {ref: torch.as_tensor(columns).double().view_as(ends[ref][0]) for ref, columns in taken.items()}
    columns = _flat(chosen.gather(numbers, -1.0)).astype(np.int64)
    there = columns >= 0
    turned = {ref: (low, high) if sign > 0 else (-high, -low) for ref, (low, high) in ends.items()}
    low, high = (
        np.where(there, _flat(chosen.gather({ref: pair[side] for ref, pair in turned.items()}, -math.inf)), -math.inf)
        for side in range(2)
    )
    first = low.argmax(0)
    rivals = there & (high > low.max(0))
    rivals[first, np.arange(len(first))] = True
    candidates, maxima = np.nonzero(there)
    above = [Term.each(made[maxima], sign), Term.each(columns[candidates, maxima], -sign)]
    program.constrain(above, 0.0, math.inf, len(maxima))
    candidates, maxima = np.nonzero(rivals)
    choice = program.variables(0.0, 1.0, len(maxima), integer=True)
    room = high.max(0)[maxima] - low[candidates, maxima]
    below = [Term.each(made[maxima], sign), Term.each(columns[candidates, maxima], -sign), Term.each(choice, room)]
    program.constrain(below, -math.inf, room, len(maxima))
    program.constrain([Term(maxima, choice, np.ones(len(maxima)))], 1.0, 1.0, len(first))
    return made


def _rows(points: Tensor) -> Floats:
    """(P, features)."""
    rows: Floats = points.detach().flatten(1).cpu().double().numpy()
    return rows


def _flat(gathered: Tensor) -> Floats:
    """(candidates, maxima) of one input's."""
    flat: Floats = gathered[0].detach().cpu().double().numpy()
    return flat


def _outer(interval: Interval) -> tuple[Floats, Floats]:
    low, high = (_rows(end)[0] for end in interval)
    return low, high
