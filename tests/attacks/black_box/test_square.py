"""Square: its schedule, windows and patterns, the search on models whose optimum is known, and what it leaves alone."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from buttress.attacks import Square
from buttress.attacks.black_box.square_moves import moves_for
from buttress.attacks.black_box.square_windows import Grid, Windows, bump, share_at, window_size
from buttress.attacks.gradient.l1_geometry import project_l1
from buttress.errors import UserError
from buttress.losses import margin
from buttress.random import Random
from buttress.threat import Threat, norms

NORMS = ["linf", "l2", "l1"]


def images(n=8, shape=(3, 9, 9), seed=0, dtype=torch.float32):
    x = torch.rand(n, *shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return torch.where(torch.rand(x.shape, generator=torch.Generator().manual_seed(seed + 1)) < 0.1, 1.0, x).to(dtype)


@pytest.mark.parametrize(
    ("query", "halvings"),
    [
        (0, 0),
        (10, 0),
        (11, 1),
        (50, 1),
        (51, 2),
        (201, 3),
        (501, 4),
        (1001, 5),
        (2001, 6),
        (4001, 7),
        (6001, 8),
        (8001, 9),
    ],
)
def test_the_share_halves_as_published(query, halvings):
    assert share_at(query, 0.8, 5000, rescale=False) == 0.8 / 2**halvings
    assert share_at(query // 2 + 1, 0.8, 5000, rescale=True) == share_at(2 * (query // 2 + 1), 0.8, 5000, rescale=False)


@pytest.mark.parametrize(
    ("share", "shape", "expected"),
    [
        (0.8, (32, 32), (29, 29)),
        (0.8 / 512, (32, 32), (1, 1)),
        (1e-6, (32, 32), (1, 1)),
        (1.0, (5, 5), (5, 5)),
        (0.5, (1, 40), (1, 20)),
        (0.5, (40, 1), (20, 1)),
        (0.8, (4, 25), (4, 20)),
        (0.01, (4, 25), (1, 1)),
    ],
)
def test_a_window_covers_its_share(share, shape, expected):
    assert window_size(share, *shape) == expected


def test_windows_of_the_other_norms_are_odd_and_three_wide_at_least():
    assert window_size(0.8, 32, 32, least=3, odd=True) == (29, 29)
    assert window_size(0.4, 32, 32, least=3, odd=True) == (21, 21)
    assert window_size(1e-4, 32, 32, least=3, odd=True) == (3, 3)
    assert window_size(1e-4, 2, 2, least=3, odd=True) == (2, 2)
    assert window_size(1e-4, 1, 12, least=3, odd=True) == (1, 3)


def test_windows_lie_anywhere_in_the_image_each_at_its_own_place():
    x = torch.zeros(4000, 2, 5, 7)
    index = Windows.at(Random(0, torch.arange(4000)).uniform((2,), torch.float64), (3, 2), x).index
    x[index] = 1
    assert (x.flatten(1).sum(1) == 2 * 3 * 2).all()
    rows, columns = x[:, 0].amax(2).argmax(1), x[:, 0].amax(1).argmax(1)
    assert rows.unique().tolist() == [0, 1, 2]
    assert columns.unique().tolist() == [0, 1, 2, 3, 4, 5]
    assert rows.bincount().min() > 1200
    assert columns.bincount().min() > 550


@pytest.mark.parametrize(("norm", "order", "power"), [("l2", 2, 2), ("l1", 1, 4)])
def test_a_pattern_has_two_halves_of_opposite_sign(norm, order, power):
    pattern = bump(5, 5, norm)
    assert float(torch.linalg.vector_norm(pattern, order)) == pytest.approx(1)
    assert (pattern[:2] > 0).all()
    assert (pattern[2:] < 0).all()
    lower = -pattern[2:] / -pattern[3, 2]  # 3 x 5 with its centre in the middle, where all three squares lie
    rings = [sum(1 / (k + 1) ** power for k in range(start, 3)) for start in range(3)]
    expected = [[rings[max(abs(i - 1), abs(j - 2))] / rings[0] for j in range(5)] for i in range(3)]
    torch.testing.assert_close(lower, torch.tensor(expected, dtype=torch.float64))
    assert torch.equal(bump(3, 7, norm), bump(7, 3, norm).T)


def released_corners(height, width):
    """The tiles' places by the loops of the released code, less those that stick out, and their side."""
    side = height // 5
    start = (height - side * 5) // 2
    corners = [(start + i * side, start + j * side) for i in range(height // side) for j in range(width // side)]
    return [(top, left) for top, left in corners if top + side <= height and left + side <= width], side


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("shape", [(28, 28), (32, 32), (8, 8), (9, 9), (14, 14), (5, 5), (20, 28), (28, 20), (30, 7)])
def test_the_start_has_the_released_tiles(norm, shape):
    """In l1 each has length 1 and they are cut to the ball by a projection; in l2 they are scaled to it."""
    corners, side = released_corners(*shape)
    x = torch.full((3, 2, *shape), 0.5, dtype=torch.float64)
    wide = Threat(norm=norm, eps=1e6 if norm == "l1" else 3.0, box=None)
    delta = moves_for(wide, x).start(Random(0, torch.arange(3))) - x
    pattern = bump(side, side, norm)
    scale = 1.0 if norm == "l1" else 3.0 / math.sqrt(2 * len(corners))
    for top, left in corners:
        for tile in delta[:, :, top : top + side, left : left + side].flatten(0, 1) / scale:
            assert any(torch.allclose(tile, sign * way, atol=1e-9) for sign in (1, -1) for way in (pattern, pattern.T))
    assert int((delta != 0).sum()) == 3 * 2 * len(corners) * side**2
    if norm == "l1":
        narrow = dataclasses.replace(wide, eps=0.7)
        cut = moves_for(narrow, x).start(Random(0, torch.arange(3)))
        torch.testing.assert_close(cut, project_l1(x + delta, x, narrow), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 3), (1, 5), (1, 1), (4, 30), (30, 4)])
def test_the_start_fits_images_without_a_released_one(shape):
    grid = Grid.of(*shape)
    assert grid.top + grid.down * grid.rows <= shape[0]
    assert grid.left + grid.across * grid.columns <= shape[1]
    assert grid.down * grid.rows * grid.across * grid.columns >= 0.3 * shape[0] * shape[1]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(3, 9, 9), (1, 1, 20), (2, 5, 12)])
def test_proposals_are_inside_and_spend_the_budget(norm, shape):
    x = images(shape=shape)
    threat = Threat(norm=norm, eps=0.6 if norm != "linf" else 0.1)
    moves, random = moves_for(threat, x), Random(3, torch.arange(8))
    best = moves.start(random)
    for query in range(60):
        assert threat.contains(best, x).all()
        assert torch.isfinite(best).all()
        best = moves.propose(best, share_at(query * 20, 0.8, 5000, rescale=False), moves.draw(random))
    spent = norms(best.double() - x.double(), norm)
    assert (spent > 0.7 * threat.eps).all()


def test_in_linf_only_the_window_changes_and_lies_at_an_end_of_the_ball():
    x = images()
    threat = Threat(eps=0.1)
    moves, random = moves_for(threat, x), Random(3, torch.arange(8))
    best = moves.start(random)
    low, high = (x - 0.1).clamp(0, 1), (x + 0.1).clamp(0, 1)
    chance = moves.draw(random)
    following = moves.propose(best, 0.2, chance)
    side = window_size(0.2, 9, 9)[0]
    for i in range(8):
        top, left = (int(chance[i, k] * (10 - side)) for k in (0, 1))
        part = (i, slice(None), slice(top, top + side), slice(left, left + side))
        outside = torch.ones_like(x[i], dtype=torch.bool)
        outside[part[1:]] = False
        assert torch.equal(following[i][outside], best[i][outside])
        for channel in range(3):
            ends = [end[part][channel] for end in (low, high)]
            assert any(torch.allclose(following[part][channel], end, atol=1e-6) for end in ends)


@pytest.mark.parametrize("norm", NORMS)
def test_a_part_of_the_images_is_moved_as_in_the_whole(norm):
    x, threat = images(), Threat(norm=norm, eps=0.3)
    moves, random = moves_for(threat, x), Random(3, torch.arange(8))
    best, chance, rows = moves.start(random), moves.draw(random), torch.tensor([5, 2])
    whole = moves.propose(best, 0.1, chance)
    part = moves.only(rows).propose(best[rows], 0.1, chance[rows])
    torch.testing.assert_close(part, whole[rows], rtol=0, atol=1e-7)


class Watched(nn.Module):
    """Keeps the margin of every question; class 0 is the truth, and wins by far."""

    def __init__(self, shape, seed=0):
        super().__init__()
        self.weight = torch.randn(2, math.prod(shape), generator=torch.Generator().manual_seed(seed))
        self.lead, self.seen = 1e4, []

    def forward(self, x):
        z = torch.tanh(x.flatten(1) @ self.weight.T) * 3 + x.flatten(1) @ self.weight.T
        z = torch.stack([z[:, 0] + self.lead, z[:, 1]], 1).double()
        self.seen.append(margin(z, torch.zeros(len(x), dtype=torch.long)))
        return z


@pytest.mark.parametrize("norm", NORMS)
def test_the_point_returned_is_the_best_of_all_that_were_asked_about(norm):
    x = images()
    model = Watched((3, 9, 9))
    result = Square(threat=Threat(norm=norm, eps=0.5), queries=40, restarts=2)(model, x, torch.zeros(8).long())
    assert len(model.seen) == 2 * (40 + 1) + 1
    assert not result.success.any()
    torch.testing.assert_close(model.seen[-1], torch.stack(model.seen[:-1]).amax(0), rtol=0, atol=1e-6)


def test_cost_is_one_forward_a_query(nets):
    x, y = images(5, (1, 6, 6)), torch.zeros(5, dtype=torch.long)
    model = nn.Sequential(nets.conv(seed=1), Lead())
    result = Square(threat=Threat(eps=0.01), queries=30, restarts=2)(model, x, y, search="first")
    assert result.forwards.tolist() == [1 + 2 * 31 + 1] * 5
    assert result.backwards.tolist() == [0] * 5


class Lead(nn.Module):
    """The first class always wins."""

    def forward(self, z):
        return z + torch.tensor([50.0] + [0.0] * (z.shape[1] - 1))


@pytest.mark.parametrize("shape", [(12,), (1, 6, 6), (3, 2, 8)])
def test_linf_optimum_of_a_linear_model_is_reached(nets, shape):
    """Features and images: with enough queries every coordinate ends at the better end of the ball."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(math.prod(shape), dtype=torch.float64, generator=generator)
    x = 0.3 + 0.4 * torch.rand(4, *shape, dtype=torch.float64, generator=generator)
    model = nets.linear(torch.stack([torch.zeros_like(weight), weight]), torch.tensor([1e3, 0.0]).double())
    attack = Square(threat=Threat(eps=0.1), queries=700, rescale=True)
    result = attack(model, x, torch.zeros(4, dtype=torch.long))
    gained = ((result.x_adv - x).flatten(1) * weight).sum(1)
    best = 0.1 * weight.abs().sum()
    if shape == (3, 2, 8):  # one sign a channel, single pixels at last
        assert (gained > 0.95 * best).all()
    else:
        torch.testing.assert_close(gained, best.expand(4), rtol=1e-6, atol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_full_and_first_find_the_same(nets, norm):
    model = nets.conv(seed=3)
    x = images(12, (1, 6, 6), seed=5)
    with torch.no_grad():
        model[5].weight *= 8
        model[5].bias -= model(x).mean(0)
        y = model(x).argmax(1)
    eps = {"linf": 0.05, "l2": 0.25, "l1": 0.8}[norm]
    attack = Square(threat=Threat(norm=norm, eps=eps), queries=70)
    full, first, late = (
        attack(model, x, y, search=search, read_every=every)
        for search, every in (("full", 1), ("first", 1), ("first", 8))
    )
    assert 0 < int(full.success.sum()) < 12
    for other in (first, late):
        assert torch.equal(full.success, other.success)
        success = full.success
        torch.testing.assert_close(full.x_adv[success], other.x_adv[success], rtol=0, atol=1e-6)
    assert torch.equal(first.forwards[success], full.forwards[success])  # a clean pass, or a verdict, and its queries


def test_a_target_is_led_to(nets):
    model = nets.linear(torch.eye(3).repeat_interleave(4, 1) * 2)
    x = torch.full((6, 12), 0.5)
    x[:, :4] = 0.6
    target = torch.tensor([1, 2, 1, 2, 1, 2])
    result = Square(threat=Threat(eps=0.1), queries=300)(model, x, torch.zeros(6).long(), target=target)
    assert result.success.all()
    assert torch.equal(model(result.x_adv).argmax(1), target)


def test_the_threat_may_be_the_box_alone(nets):
    x = images(4, (1, 6, 6))
    for norm in NORMS:
        threat = Threat(norm=norm, eps=math.inf)
        result = Square(threat=threat, queries=20)(nets.conv(), x, torch.zeros(4).long())
        assert threat.contains(result.x_adv, x).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queries": 0}, "queries must be a whole number of 1 or more; got 0"),
        ({"restarts": 0}, "restarts must be a whole number of 1 or more"),
        ({"p": 0.0}, r"p must be a number in \(0, 1\]"),
        ({"p": 1.5}, r"p must be a number in \(0, 1\]"),
        ({"loss": "margn"}, "did you mean 'margin'"),
        ({"threat": Threat(eps=math.inf, box=None)}, "finite eps or a box"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(Square(), **settings)
