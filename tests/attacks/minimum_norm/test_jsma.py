"""JSMA on hand-made linear models, and its choice of pairs against all pairs looked at one by one."""

import itertools
import math

import pytest
import torch

from buttress.attacks.minimum_norm.jsma import JSMA, best_pairs
from buttress.errors import UserError
from buttress.threat import Threat

# Three classes of eight features. For the class 1, features 2 and 5 are the pair of the largest saliency: together
# they raise it by 5, and lower the others together by 3. Feature 0 alone raises it most, but raises the others too.
WEIGHT = torch.tensor(
    [
        [3.0, 0.1, -1.0, 0.0, 0.2, -1.0, 0.0, 0.1],
        [4.0, 0.0, 2.0, 0.3, -0.1, 3.0, 0.1, 0.0],
        [2.0, -0.2, -0.5, 0.1, 0.1, -0.5, 0.0, 0.0],
    ],
    dtype=torch.float64,
)
BIAS = torch.tensor([4.0, 0.0, -2.0])  # the class 1 is second for an input of zeros


def changed(x_adv, x):
    return [row.nonzero().flatten().tolist() for row in (x_adv != x).flatten(1)]


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_changes_the_two_salient_features(nets, dtype, targeted):
    model = nets.linear(WEIGHT.to(dtype), BIAS)
    x, y = torch.zeros(3, 8, dtype=dtype), torch.zeros(3, dtype=torch.long)
    result = JSMA(gamma=0.25)(model, x, y, target=torch.ones_like(y) if targeted else None)
    assert result.success.all()
    assert changed(result.x_adv, x) == [[2, 5]] * 3
    assert result.x_adv.unique().tolist() == [0, 1]
    assert (result.forwards == 3).all()  # one at the input, one that finds it beaten, the verdict
    assert (result.backwards == 4).all()


def test_a_negative_theta_lowers_them(nets):
    model = nets.linear(-WEIGHT, BIAS - WEIGHT[:, [2, 5]].sum(1) * torch.tensor([0.0, -1.0, 0.0]))
    x, y = torch.ones(2, 8, dtype=torch.float64), torch.zeros(2, dtype=torch.long)
    model[1].bias.data += WEIGHT.sum(1) - torch.tensor([0.0, 5.0, 0.0])  # the logits at the ones are as before
    result = JSMA(theta=-1.0, gamma=0.25)(model, x, y)
    assert result.success.all()
    assert changed(result.x_adv, x) == [[2, 5]] * 2
    assert (result.x_adv[:, [2, 5]] == 0).all()


def test_stops_at_the_first_step_that_beats_the_model(nets):
    """Each step of 0.1 in both features raises the lead of class 1 over class 0 by 0.1 times 7, from -4."""
    model = nets.linear(WEIGHT, BIAS)
    x, y = torch.zeros(1, 8, dtype=torch.float64), torch.zeros(1, dtype=torch.long)
    result = JSMA(theta=0.1, gamma=0.25)(model, x, y)
    torch.testing.assert_close(result.x_adv[0, [2, 5]], torch.full((2,), 0.6).double())
    assert (result.forwards == 7 + 1).all()


@pytest.mark.parametrize("logits", [1, 2])
def test_two_classes_take_the_largest_weights(nets, logits):
    weight = torch.tensor([0.5, -2.0, 3.0, 0.1, 0.7, -0.4], dtype=torch.float64)
    rows = weight[None] if logits == 1 else torch.stack([-0.3 * weight, 0.7 * weight])
    bias = [-3.5] if logits == 1 else [3.5, 0.0]
    x, y = torch.full((1, 6), 0.1, dtype=torch.float64), torch.zeros(1, dtype=torch.long)
    result = JSMA(gamma=1.0)(nets.linear(rows, bias), x, y)
    assert result.success.all()
    assert changed(result.x_adv, x) == [[2, 4]]  # 0.19 + 0.9 (3 + 0.7) is above 3.5


@pytest.mark.parametrize(("gamma", "most"), [(0.01, 2), (0.2, 7), (1.0, 36)])
@pytest.mark.parametrize("theta", [0.3, -0.3])
def test_never_changes_more_than_gamma_and_never_leaves_the_threat(nets, theta, gamma, most):
    model = nets.conv(1)
    x = torch.rand(8, 1, 6, 6, generator=torch.Generator().manual_seed(3))
    y = model(x).argmax(1)
    for threat in (Threat(eps=math.inf), Threat(eps=0.05), Threat(norm="l2", eps=0.3), Threat(norm="l1", eps=0.3)):
        result = JSMA(threat=threat, theta=theta, gamma=gamma, steps=30)(model, x, y)
        counts = [len(row) for row in changed(result.x_adv, x)]
        assert max(counts) <= most
        assert max(counts) > 0
        assert threat.contains(result.x_adv, x).all()
        assert (result.forwards <= 31).all()


def test_beats_more_the_more_it_may_change(nets):
    model = nets.conv(1)
    x = torch.rand(20, 1, 6, 6, generator=torch.Generator().manual_seed(3))
    y = model(x).argmax(1)
    few, many = (int(JSMA(gamma=gamma)(model, x, y).success.sum()) for gamma in (0.06, 1.0))
    assert few < many


def test_an_input_that_beats_the_model_already_stays(nets):
    x, y = torch.zeros(3, 8, dtype=torch.float64), torch.tensor([0, 1, 0])
    result = JSMA()(nets.linear(WEIGHT, BIAS), x, y)
    assert changed(result.x_adv, x) == [[2, 5], [], [2, 5]]


def test_where_no_pair_helps_nothing_changes(nets):
    up = torch.ones(3, 8, dtype=torch.float64) * torch.tensor([[1.0], [2.0], [3.0]])  # all features raise all logits
    x, y = torch.zeros(2, 8, dtype=torch.float64), torch.zeros(2, dtype=torch.long)
    result = JSMA()(nets.linear(up, [3.0, 0.0, 0.0]), x, y)
    assert torch.equal(result.x_adv, x)
    assert (result.forwards == 2).all()
    assert torch.equal(JSMA()(nets.linear(up[:, :1], [3.0, 0.0, 0.0]), x[:, :1], y).x_adv, x[:, :1])  # no pair at all


@pytest.mark.parametrize("room", [0, 1, 2, 5])
def test_pairs_are_the_best_of_all(room):
    generator = torch.Generator().manual_seed(room)
    up, down = (torch.randn(40, 9, dtype=torch.float64, generator=generator) for _ in range(2))
    free, before = (torch.rand(40, 9, generator=generator) < share for share in (0.8, 0.4))
    pair, found = best_pairs(up, down, free, before, torch.full((40,), room))
    for row in range(40):
        best, which = 0.0, None
        for p, q in itertools.combinations(range(9), 2):
            new = int(not before[row, p]) + int(not before[row, q])
            rise, fall = float(up[row, p] + up[row, q]), float(down[row, p] + down[row, q])
            allowed = free[row, p] and free[row, q] and new <= room and rise > 0 and fall < 0
            if allowed and -rise * fall > best:
                best, which = -rise * fall, {p, q}
        assert bool(found[row]) == (which is not None)
        assert which is None or set(pair[row].tolist()) == which


def test_pairs_of_many_features_are_the_best_of_all_too():
    """Only 128 of 400 features are paired; for slopes drawn at random the best pair is among them."""
    generator = torch.Generator().manual_seed(0)
    up, down = (torch.randn(10, 400, dtype=torch.float64, generator=generator) for _ in range(2))
    free = torch.ones(10, 400, dtype=torch.bool)
    pair, found = best_pairs(up, down, free, ~free, torch.full((10,), 400))
    rise, fall = up[:, :, None] + up[:, None], down[:, :, None] + down[:, None]
    score = torch.where((rise > 0) & (fall < 0), -rise * fall, 0)
    score.diagonal(dim1=1, dim2=2).zero_()
    assert found.all()
    reached = -up.gather(1, pair).sum(1) * down.gather(1, pair).sum(1)
    torch.testing.assert_close(reached, score.flatten(1).amax(1))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"theta": 0.0}, "theta must be a finite number other than 0"),
        ({"gamma": 0.0}, r"gamma must be a number in \(0, 1\]"),
        ({"gamma": 1.5}, r"gamma must be a number in \(0, 1\]"),
        ({"steps": 0}, "steps must be a whole number of 1 or more; got 0"),
        ({"threat": Threat(eps=math.inf, box=None)}, "finite eps or a box"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        JSMA(**wrong)
