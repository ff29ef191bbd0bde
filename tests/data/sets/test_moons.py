import pytest
import torch

from buttress import data
from buttress.errors import UserError


def distance_to_arc(x, y):
    """Of points to the half circle of their own class: radius 1 about (0, 0), or about (1, 0.5) and open upwards."""
    centre = torch.where(y[:, None] == 0, torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.5]))
    side = torch.where(y == 0, x[:, 1] - centre[:, 1], centre[:, 1] - x[:, 1])
    assert (side > -1e-6).all()
    return ((x - centre).norm(dim=1) - 1).abs()


def test_without_noise_the_points_lie_on_two_half_circles():
    made = data.load("moons", noise=0)
    for split in made.splits.values():
        assert (distance_to_arc(split.x, split.y) < 1e-6).all()


def test_sizes_box_and_balance():
    made = data.load("moons")
    assert [len(split) for split in made.splits.values()] == [1000, 500, 1000]
    assert (made.shape, made.channels, made.box, made.augment) == ((2,), 2, None, None)
    assert made.test.y.bincount().tolist() == [500, 500]
    small = data.load("moons", samples=20, val=10, test=30)
    assert [len(split) for split in small.splits.values()] == [20, 10, 30]


def test_noise_has_the_standard_deviation_asked_for():
    clean, noisy = data.load("moons", noise=0, seed=4), data.load("moons", noise=0.3, seed=4, samples=1000)
    # The same draw of points under both: make_moons shuffles before it adds the noise.
    residual = noisy.train.x - clean.train.x
    assert torch.equal(noisy.train.y, clean.train.y)
    assert residual.std().item() == pytest.approx(0.3, rel=0.06)
    assert residual.mean().item() == pytest.approx(0, abs=0.03)


def test_the_seed_fixes_the_draw_and_the_splits_are_independent():
    one, same, other = (data.load("moons", seed=seed, samples=1000, val=1000) for seed in (0, 0, 1))
    assert torch.equal(one.train.x, same.train.x)
    assert not torch.equal(one.train.x, other.train.x)
    assert not torch.equal(one.test.x, other.test.x)
    points = torch.cat([split.x for split in one.splits.values()])
    assert len({tuple(point) for point in points.tolist()}) == 3000


@pytest.mark.parametrize("noise", [-0.1, float("nan"), float("inf")])
def test_a_noise_that_is_none_is_refused(noise):
    with pytest.raises(UserError, match="noise must be a finite number of 0 or more"):
        data.load("moons", noise=noise)


def test_sizes_too_small_are_refused():
    with pytest.raises(UserError, match="val must be a whole number of 2 or more; got 1"):
        data.load("moons", val=1)
