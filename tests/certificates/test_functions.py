"""Lines around functions of one feature: they enclose it and are near, and curvatures are as large as assumed."""

import pytest
import torch
from tests.certificates import zoo
from torch import nn

from buttress.certificates.bounds.network import BoundedNetwork
from buttress.certificates.network.recording import record
from buttress.certificates.operations.elementwise import Elementwise
from buttress.certificates.operations.hulls import Hull


class Alone(nn.Module):
    """A function of each feature, and nothing else."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        """Of the same shape."""
        return self.function(x)


def operations(name):
    """The places and operations of one of the zoo's activations, by the values that it is made of."""
    function = zoo.ACTIVATIONS[name]()
    graph = record(Alone(function).double(), torch.rand(1, 4, 1, 1).double(), lambda output: output)
    network = BoundedNetwork(graph)
    for index, operation in enumerate(network.operations):
        if isinstance(operation, Elementwise):
            yield network.place(index), operation


def ends(count, place):
    """Random intervals of several widths, within (0, 4) where the function is for positive values alone."""
    generator = torch.Generator().manual_seed(0)
    middle = 4 * torch.rand(count, 1, 4, 1, 1, generator=generator) - 2
    width = 10 ** (3 * torch.rand(count, 1, 4, 1, 1, generator=generator) - 2.5)
    low, high = middle - width, middle + width
    positive = place.node.name in ("log", "sqrt", "rsqrt", "reciprocal")
    return (low.abs() + 0.1, low.abs() + 0.1 + width) if positive else (low, high)


@pytest.mark.parametrize("name", sorted(zoo.ACTIVATIONS))
def test_lines_and_intervals_enclose(name):
    found = list(operations(name))
    assert found
    for place, operation in found:
        (ref,) = place.inputs
        low, high = (end.double() for end in ends(300, place))
        lines = operation.lines(place, low, high)
        lowest, highest = operation.interval(place, {ref: (low, high)})
        for share in torch.linspace(0, 1, 101, dtype=torch.float64):
            z = torch.lerp(low, high, share)
            value = place.run({ref: z})
            assert (value >= lines.low_slope * z + lines.low_offset - 1e-9).all()
            assert (value <= lines.high_slope * z + lines.high_offset + 1e-9).all()
            assert (value >= lowest - 1e-9).all()
            assert (value <= highest + 1e-9).all()


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "gelu", "softplus", "hardtanh", "square", "abs"])
def test_lines_are_as_near_as_the_hull(name):
    """At the middle of an interval the lines are at most 2 % of the function's range from its convex hull."""
    ((place, operation),) = operations(name)
    (ref,) = place.inputs
    low, high = (end.double() for end in ends(100, place))
    z = torch.stack([torch.lerp(low, high, s) for s in torch.linspace(0, 1, 201, dtype=torch.float64)])
    values = torch.stack([place.run({ref: point}) for point in z])
    middle = (low + high) / 2
    hulls = []
    for sign in (1, -1):  # the chord over the middle that is highest, and the one that is lowest
        left, right = sign * values[:101], sign * values[100:]
        best = torch.full_like(middle, -torch.inf)
        for i in range(0, 101, 2):
            apart = (z[100:] - z[i]).clamp(min=1e-12)
            height = left[i] + (right - left[i]) / apart * (middle - z[i])
            best = torch.maximum(best, height[1:].amax(0))
        hulls.append(sign * best)
    lines = operation.lines(place, low, high)
    room = 0.02 * (values.amax(0) - values.amin(0)) + 1e-6
    assert (lines.high_slope * middle + lines.high_offset <= hulls[0] + room).all()
    assert (lines.low_slope * middle + lines.low_offset >= hulls[1] - room).all()


@pytest.mark.parametrize("name", sorted(zoo.ACTIVATIONS))
def test_curvatures_are_upper_bounds(name):
    """The second derivative, by differences, is at most what is assumed in each of many short intervals."""
    for place, operation in operations(name):
        if not isinstance(operation, Hull) or operation.curvature is None:
            continue
        (ref,) = place.inputs
        positive = place.node.name in ("log", "sqrt", "rsqrt", "reciprocal")
        z = (
            torch.linspace(0.05 if positive else -8, 8, 40001, dtype=torch.float64)
            .view(-1, 1, 1, 1, 1)
            .expand(-1, 1, 4, 1, 1)
        )
        step = 1e-4
        before, at, after = (place.run({ref: z + shift}) for shift in (-step, 0.0, step))
        second = ((before - 2 * at + after) / step**2).abs()
        bends = operation.bends(place) if callable(operation.bends) else operation.bends
        near = torch.stack([(z - bend).abs() < 2 * step for bend in [*bends, torch.inf]]).any(0)
        most = operation.curvature
        most = most(place, z - step, z + step) if callable(most) else torch.full_like(z, most)
        assert (second.masked_fill(near, 0) <= torch.as_tensor(most) + 1e-5).all(), place.node.name
