"""Bounds of branches hold where their sides do, whatever the slopes and multipliers."""

import pytest
import torch
from tests.certificates import pieces

from buttress import tasks
from buttress.certificates.branching.descent import descended
from buttress.certificates.branching.relaxation import Relaxation
from buttress.certificates.branching.units import Units
from buttress.certificates.network.recording import record
from buttress.certificates.verifier import Problem
from buttress.threat import Threat

NAMES = ("two relus", "leaky relu", "hardtanh", "residual", "softshrink")


def problem_of(name, norm="linf"):
    model = pieces.network(name, inputs=3)
    x = torch.rand(1, 3)
    with torch.no_grad():
        logits = model(x)
        graph = record(model, x, tasks.classification.read).detached()
    y = logits.argmax(1)
    return model, Problem(model, x, y, Threat(norm=norm, eps=0.8, box=None), logits, graph, torch.arange(1))


def relaxation_of(problem):
    units = Units(problem.network, problem.tightened)
    return units, Relaxation(problem, units)


@pytest.mark.parametrize("name", NAMES)
def test_no_input_on_a_branch_goes_below_its_bound(name):
    model, problem = problem_of(name)
    units, relaxation = relaxation_of(problem)
    assert units.count
    threat, x = problem.threat, problem.x
    points = threat.project(x + 1.6 * torch.rand(2000, 3) - 0.8, x.expand(2000, -1))
    root = relaxation.root(torch.full((2,), -torch.inf))
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        draw = torch.rand(2, *root.slopes.shape, generator=generator)
        sides = torch.randint(-1, 2, root.sides.shape, generator=generator, dtype=torch.int8)
        sides = torch.where(torch.rand(sides.shape, generator=generator) < 0.3, sides, 0).to(torch.int8)
        branches = type(root)(root.bounds, root.margins, sides, draw[0], draw[1])
        bounds = relaxation.bound(branches).bounds
        better, _ = relaxation.optimised(branches, 5, 0.2, torch.inf)
        assert (better.bounds >= bounds - 1e-5).all()
        values = {ref: None for ref in units.intervals}
        inside = torch.stack([on_sides(problem, units, row, points, values) for row in sides])
        with torch.no_grad():
            logits = model(points)
        others = [k for k in range(3) if k != int(problem.y)]
        for row, other in enumerate(others):
            met = (logits[:, int(problem.y)] - logits[:, other])[inside[row]]
            assert (met >= better.bounds[row] - 1e-4).all()


def on_sides(problem, units, sides, points, values):
    """(M,) whether the activations of points are on the sides of a branch."""
    assumed = units.assumed(sides[None])
    inside = torch.ones(len(points), dtype=torch.bool)
    for ref in values:
        place = values_at(problem, ref, points)
        low, high = (end[0].flatten() for end in assumed[ref])
        inside &= ((place >= low) & (place <= high)).all(1)
    return inside


def values_at(problem, ref, points):
    """(M, features) a value at points, from its interval in a region that is the point alone."""
    rows = problem.of_rows(torch.zeros(len(points), dtype=torch.long))
    there = Problem(rows.model, points, rows.y, Threat(eps=0.0, box=None), rows.logits, rows.graph, rows.ids)
    low, high = there.intervals[ref]
    return ((low + high) / 2).flatten(1)


def test_scores_of_relus_are_those_of_babsr():
    """Of one layer: for a coefficient -a of the unit in the margin a u (-l) / (u - l), 0 for a positive one."""
    model, problem = problem_of("relu")
    units, relaxation = relaxation_of(problem)
    root = relaxation.root(torch.full((2,), -torch.inf))
    scores = relaxation.scores(root)
    (block,) = units.blocks
    low, high = (block.at(end)[0] for end in units.intervals[block.ref])
    weight, true = model[-1].weight.detach(), int(problem.y)
    for row, other in enumerate(k for k in range(3) if k != true):
        coefficient = (weight[true] - weight[other])[block.features]
        expected = -coefficient.clamp(max=0) * high * -low / (high - low)
        torch.testing.assert_close(scores[row], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_descent_stays_in_the_region_and_goes_down(norm):
    model, problem = problem_of("two relus", norm)
    starts = problem.x[None]
    found = descended(problem, starts, 20)
    assert problem.threat.contains(found[0], problem.x).all()
    before, after = (pieces.margins(model, point, problem.y) for point in (problem.x, found[0]))
    assert after < before
