"""Intervals of all values of a network: by interval arithmetic, tightened by linear bounds where they decide."""

from __future__ import annotations

from collections.abc import Callable

import torch

from buttress.certificates.bounds.ball import Ball
from buttress.certificates.bounds.linear import Functions, Intervals, before_affine, identity, linear_bound
from buttress.certificates.bounds.network import BoundedNetwork
from buttress.certificates.bounds.region import Region
from buttress.certificates.network.graph import INPUT, Ref
from buttress.certificates.operations.operation import Interval, LowerLines, usual_lines

_AT_ONCE = 2**23  # numbers in the coefficients that are held at once
Tighten = Callable[[Ref, Interval, Intervals], Interval]


def propagated(
    network: BoundedNetwork,
    region: Region,
    tighten: Tighten | None = None,
    known: Intervals | None = None,
) -> dict[Ref, Interval]:
    """The interval of every value, by interval arithmetic (IBP, Gowal et al., 2018) from the input on.

    Args:
        network: the network.
        region: where its inputs are.
        tighten: makes an interval smaller that an operation is about to take which is not affine.
        known: intervals that hold anyway, as those that a branch assumes; what comes is inside of them.

    Returns:
        By reference; the first output's of operations with several, but of those that only split.
    """
    found: dict[Ref, Interval] = {Ref(INPUT): (region.low[:, None], region.high[:, None])}
    ball = Ball(network, region)
    for index, operation in enumerate(network.operations):
        if operation is None:
            continue
        place = network.place(index)
        inputs = {ref: found[ref] for ref in place.inputs}
        outputs = range(len(place.node.shapes)) if operation.affine else range(1)
        within = ball.interval(index)
        for ref in (Ref(index, output) for output in outputs):
            interval = operation.interval(place.of(ref), inputs)
            if within is not None:
                interval = _both(interval, within)
            if known is not None and ref in known:
                interval = _both(interval, known[ref])
            if tighten is not None and ref in network.decided_by:
                interval = _both(interval, tighten(ref, interval, found))
            found[ref] = interval
    return found


def tightened(
    network: BoundedNetwork, region: Region, known: Intervals | None = None, lines: LowerLines = usual_lines
) -> dict[Ref, Interval]:
    """The interval of every value, where those that decide are bounded by CROWN from the input on.

    Only features are bounded again of which tighter bounds would help, as of a ReLU whose input may have either sign.
    """

    def tighten(ref: Ref, interval: Interval, found: Intervals) -> Interval:
        if region.threat.norm == "linf" and network.exact_by_interval(ref):
            return interval
        return by_lines(network, region, ref, interval, found, lines)

    return propagated(network, region, tighten, known)


def by_lines(
    network: BoundedNetwork,
    region: Region,
    ref: Ref,
    interval: Interval,
    found: Intervals,
    lines: LowerLines = usual_lines,
) -> Interval:
    """The interval of a value by linear bounds, for features that are undecided for any input; the others' as it is."""
    low, high = interval
    undecided = torch.zeros_like(low, dtype=torch.bool)
    for index in network.decided_by[ref]:
        operation = network.operations[index]
        assert operation is not None
        undecided |= operation.undecided(low, high)
    features = undecided.flatten(1).any(0).nonzero().squeeze(1)
    if not len(features):
        return interval
    lows, highs = low.flatten(1).clone(), high.flatten(1).clone()
    largest = max(network.graph.shape_of(known).numel() for known in (ref, *found) if known.index <= ref.index)
    for part in torch.split(features, max(1, _AT_ONCE // (len(low) * largest))):
        one = before_affine(network, Functions.of(ref, identity(part, low)))
        least = linear_bound(network, one, found, lines).least(region)
        most = -linear_bound(network, -one, found, lines).least(region)
        lows[:, part] = torch.maximum(lows[:, part], least.T)
        highs[:, part] = torch.minimum(highs[:, part], most.T)
    return lows.view_as(low), highs.view_as(high)


def _both(one: Interval, other: Interval) -> Interval:
    """Where both hold; where rounding sets them apart, between them."""
    low, high = torch.maximum(one[0], other[0]), torch.minimum(one[1], other[1])
    return torch.minimum(low, high), torch.maximum(low, high)
