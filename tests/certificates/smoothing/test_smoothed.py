"""Smoothed classifiers on networks of which the probabilities under noise are known."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm
from torch import nn

from buttress import tasks
from buttress.certificates import Smoothed
from buttress.certificates.smoothing import ABSTAINED, lower_bound
from buttress.errors import UserError

W = torch.tensor([0.6, -0.8, 0.0])  # of length 1, so that w x + b is a distance


def plane(bias=0.0, dtype=torch.float32):
    """Class 1 on the side of the plane w x + b = 0 that w points to."""
    model = nn.Linear(3, 2, dtype=dtype)
    with torch.no_grad():
        model.weight.copy_(torch.stack([0 * W, W]))
        model.bias.copy_(torch.tensor([0.0, bias]))
    return model


class Constant(nn.Module):
    """The same logits for all inputs."""

    def __init__(self, *logits):
        super().__init__()
        self.register_buffer("logits", torch.tensor(logits))

    def forward(self, x):
        return self.logits.expand(len(x), -1)


def at(*distances):
    """(N, 3) inputs at these distances from the plane."""
    return torch.tensor(distances)[:, None] * W


@given(st.floats(-0.9, 0.9), st.sampled_from([0.3, 1.0]))
def test_the_radius_is_below_the_distance_to_the_plane_and_near_it(distance, sigma):
    """Under normal noise the smoothed classifier of a plane is the plane: sigma Phi^-1(p_A) is the distance itself."""
    n, p = 4_000, norm.cdf(abs(distance) / sigma)
    certificate = Smoothed(plane(), sigma=sigma, n=n, alpha=1e-6).certify(at(distance))
    if not bool(certificate.abstained):
        assert certificate.label.tolist() == [int(distance > 0)]
        assert 0 <= float(certificate.radius) <= abs(distance)
    fewest = int(binom.ppf(1e-9, n, p))  # fewer votes come once in 10^9 times
    assert float(certificate.radius) >= sigma * norm.ppf(max(0.5, lower_bound(fewest, n, 1e-6)))


def test_the_l1_radius_of_uniform_noise_is_below_the_true_one():
    """A threshold on one value: its probability falls by r / (2 h) as that value moves by r, to 1/2 there."""
    model = nn.Linear(1, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0], [1.0]]))
        model.bias.zero_()
    x = torch.tensor([[0.1], [0.2], [-0.3]])
    certificate = Smoothed(model, sigma=0.5, norm="l1", n=4_000).certify(x)
    assert certificate.label.tolist() == [1, 1, 0]
    slack = x.abs().squeeze(1).double() - certificate.radius
    assert bool((slack >= 0).all())
    assert bool((slack < 0.06).all())


def test_a_radius_exceeds_the_true_one_no_more_often_than_alpha_allows():
    runs, alpha, distance = 400, 0.1, 0.4
    smooth = Smoothed(plane(), sigma=1.0, n0=20, n=50, alpha=alpha, batch_size=5_000)
    certificate = smooth.certify(at(*[distance] * runs), ids=torch.arange(runs))
    wrong = (certificate.label == 0) | (certificate.radius > distance)
    assert int(wrong.sum()) <= binom.ppf(1 - 1e-4, runs, alpha)
    assert int(wrong.sum()) > 0.02 * runs  # the bound is exact, not a generous one
    joint = Smoothed(plane(), sigma=1.0, n0=20, n=50, alpha=alpha, joint=True, batch_size=5_000)
    together = joint.certify(at(*[distance] * runs), ids=torch.arange(runs))
    assert int(((together.label == 0) | (together.radius > distance)).sum()) <= 2
    assert bool((together.radius <= certificate.radius).all())


def test_it_abstains_where_two_classes_are_equally_likely():
    smooth = Smoothed(plane(), sigma=0.5, n=2_000)
    certificate, prediction = smooth.certify(at(0.0, 0.9)), smooth.predict(at(0.0, 0.9))
    assert certificate.label.tolist() == prediction.label.tolist() == [ABSTAINED, 1]
    assert certificate.abstained.tolist() == [True, False]
    assert float(certificate.radius[0]) == 0.0
    assert float(prediction.p_value[0]) > 0.001 >= float(prediction.p_value[1])
    assert prediction.votes.sum(1).tolist() == [2_000, 2_000]
    assert certificate.certified(torch.tensor([1, 1])).tolist() == [False, True]
    assert certificate.certified(torch.tensor([0, 0])).tolist() == [False, False]


def test_a_size_equal_to_the_radius_is_not_certified():
    smooth = Smoothed(Constant(1.0, 0.0), sigma=0.5, n=100)
    certificate = smooth.certify(torch.rand(1, 3))
    assert float(certificate.radius) == pytest.approx(smooth.ceiling(), rel=1e-12)
    y, radius = torch.tensor([0]), float(certificate.radius)
    assert not bool(certificate.certified(y, radius))
    assert bool(certificate.certified(y, math.nextafter(radius, 0.0)))
    assert certificate.probability == 0.999


def test_votes_depend_on_the_seed_the_input_and_the_draw_alone(nets):
    model, x = nets.conv(seed=3), torch.rand(6, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([5, 9, 2, 7, 1, 100])

    def votes(order=slice(None), seed=0, **settings):
        smooth = Smoothed(model, sigma=0.7, n0=10, n=60, seed=seed, **settings)
        return smooth.certify(x[order], ids=ids[order]).votes

    whole = votes()
    assert whole.shape == (6, 4)
    assert torch.equal(votes(batch_size=7), whole)
    assert torch.equal(votes(batch_size=150), whole)
    order = torch.tensor([3, 0, 5])
    assert torch.equal(votes(order), whole[order])
    assert not torch.equal(votes(seed=1), whole)
    more = Smoothed(model, sigma=0.7, n0=10, n=80).certify(x, ids=ids).votes
    assert bool((more >= whole).all())  # the first draws are the same
    assert not torch.equal(Smoothed(model, sigma=0.7, n=60).predict(x, ids=ids).votes, whole)


def test_the_network_comes_back_as_it_was_and_no_batch_is_larger_than_asked_for(nets):
    model, sizes, x = nets.conv(seed=3).train(), [], torch.rand(3, 1, 6, 6)
    before, state = nets.state(model), torch.random.get_rng_state()
    hook = model.register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))
    done = []
    Smoothed(model, sigma=0.5, n0=5, n=70, batch_size=32).certify(x, progress=done.append)
    assert torch.equal(torch.random.get_rng_state(), state)
    hook.remove()
    nets.assert_state(model, before)
    assert max(sizes) == 32
    assert sum(sizes) == 3 * 75
    assert done == sorted(done)
    assert done[-1] == pytest.approx(1.0)


def test_an_output_that_is_not_a_number_votes_for_no_class():
    certificate = Smoothed(Constant(math.nan, 0.0), sigma=0.5, n=50).certify(torch.rand(2, 3))
    assert certificate.votes.tolist() == [[0, 0], [0, 0]]
    assert certificate.label.tolist() == [ABSTAINED, ABSTAINED]
    prediction = Smoothed(Constant(math.nan, 0.0), sigma=0.5, n=50).predict(torch.rand(2, 3))
    assert prediction.label.tolist() == [ABSTAINED, ABSTAINED]


def test_one_logit_is_two_classes_and_float64_stays():
    model = nn.Sequential(nn.Linear(3, 1, dtype=torch.float64))
    assert Smoothed(model, sigma=0.5, n=20).predict(torch.rand(2, 3, dtype=torch.float64)).votes.shape == (2, 2)


def test_no_inputs_are_no_error():
    certificate = Smoothed(plane(), sigma=0.5).certify(torch.zeros(0, 3))
    assert certificate.label.shape == certificate.radius.shape == (0,)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"sigma": 0.0}, "sigma must be a finite number above 0; got 0.0"),
        ({"norm": "linf"}, "norm must be one of l2, l1; got 'linf'"),
        ({"n": 0}, "n must be a whole number of 1 or more; got 0"),
        ({"n0": 1.5}, "n0 must be a whole number of 1 or more; got 1.5"),
        ({"alpha": 1.0}, r"alpha must be a number in \(0, 1\); got 1.0"),
        ({"seed": 0.5}, "seed must be a whole number; got 0.5"),
        ({"model": "runs/at"}, "model must be a torch module; got str"),
        ({"joint": 1}, "joint must be True or False; got 1"),
        ({"task": tasks.Regression()}, "smoothing needs classes, which regression has not: use"),
    ],
)
def test_settings_that_make_no_sense_are_told(settings, line):
    with pytest.raises(UserError, match=line):
        Smoothed(**{"model": plane(), "sigma": 0.5, **settings})


def test_inputs_that_do_not_fit_are_told():
    smooth = Smoothed(plane(), sigma=0.5, n=10)
    with pytest.raises(UserError, match="2 inputs need as many ids"):
        smooth.predict(torch.zeros(2, 3), ids=torch.arange(3))
    with pytest.raises(UserError, match=r"inputs must be float32 or float64; got torch\.uint8"):
        smooth.predict(torch.zeros(2, 3, dtype=torch.uint8))
    with pytest.raises(UserError, match=r"weights are torch\.float32, the inputs torch\.float64: convert one"):
        smooth.predict(torch.zeros(2, 3, dtype=torch.float64))
    with pytest.raises(UserError, match="Linear cannot take inputs of shape"):
        smooth.predict(torch.zeros(2, 4))
