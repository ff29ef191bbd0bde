"""Conjugate gradients for a standalone neural ODE: energy, conjugacy and step by hand, and training with it."""

import copy
import math
import os
import signal
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import nn

from buttress import models
from buttress.defences.awp import AWP
from buttress.defences.base.defence import Batch
from buttress.defences.layer_regularised import LayerRegularised
from buttress.defences.snode import defence as snode_ncg
from buttress.defences.snode.conjugate_gradients import RULES, Energy, Line, conjugacy, dot, root
from buttress.defences.snode.defence import SnodeNCG
from buttress.errors import UserError
from buttress.models.architectures.snode import SNODE, roughness
from buttress.models.blocks.snode_problems import direct, weight_sensitivity
from buttress.training import Interrupted, Optimiser
from buttress.training.batches import Batches

ALL_TERMS = {"mu1": 0.7, "mu2": 1.3, "mu3": 0.2, "mu4": 0.05, "low": -0.1, "high": 0.9}


def make(dtype=torch.float32, seed=0, **options):
    small = {"classes": 4, "image_size": 6, "time": 2.0, "resolution": 4}
    return models.create("snode", seed=seed, **{**small, **options}).to(dtype).train()


@pytest.fixture
def problem():
    """A network in float64, the states of seven images at time 0, and their classes."""
    net = make(torch.float64, activation="softplus")  # sigma(0) is not 0
    x = torch.rand(7, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return net, net.encode(x), torch.arange(7) % 4


@pytest.fixture
def way(problem):
    net, random = problem[0], torch.Generator().manual_seed(2)
    return tuple(torch.randn(p.shape, dtype=p.dtype, generator=random) for p in (net.weight, net.bias))


def test_the_energy_by_hand(problem):
    net, start, y = problem
    end = net.end(start).detach()
    target = torch.zeros(7, 36, dtype=torch.float64)
    target[:, :4] = -0.1
    target[torch.arange(7), y] = 0.9
    entropy = -end[:, :4].log_softmax(1)[torch.arange(7), y].sum()
    size = net.weight.square().sum() + net.bias.square().sum()
    by_hand = (0.7 / 2 * (end - target).square().sum() + 1.3 * entropy) / 7
    by_hand = by_hand + 0.2 / 2 * (end - 2 * math.log(2)).square().sum() / 7 + 0.05 / 2 * size / 4
    torch.testing.assert_close(Energy(**ALL_TERMS).value(net, end, y), by_hand, rtol=1e-12, atol=0)


@pytest.mark.parametrize("terms", [ALL_TERMS, {**ALL_TERMS, "mu2": 0.0}])
def test_its_slopes_are_those_of_autograd(problem, way, terms):
    """At the end states, at the weights, and along a direction: phi(0) is the directional derivative."""
    net, start, y = problem
    defence = SnodeNCG(sobolev=False, **terms)
    end = net.end(start).detach().requires_grad_()
    (wanted,) = torch.autograd.grad(defence.energy.value(net, end, y), end)
    torch.testing.assert_close(defence.energy.terminal(net, end.detach(), y), wanted, rtol=0, atol=1e-12)
    value = defence.energy.value(net, net.end(start), y)
    slopes = torch.autograd.grad(value, [net.weight, net.bias])
    path = direct(net, start)
    plain, searched = defence._gradients(net, path, y)
    for mine, theirs in zip(plain, slopes, strict=True):
        torch.testing.assert_close(net.h * mine, theirs, rtol=0, atol=1e-12)
    assert dot(searched, plain) == dot(plain, plain)
    line = defence.energy.along(net, path.end, y, weight_sensitivity(net, path, *way), way)
    assert line(0.0)[0] == pytest.approx(dot(slopes, way), rel=1e-10)


def test_sobolev_gradients_lead_downwards(problem):
    net, start, y = problem
    plain, searched = SnodeNCG()._gradients(net, direct(net, start), y)
    size = dot(plain, searched)
    assert 0 < size < dot(plain, plain)
    slope = tuple(part.diff(dim=0) / net.h for part in searched)
    # The norm of H1, up to what a grid of 8 steps leaves.
    assert size == pytest.approx(dot(searched, searched) + dot(slope, slope), rel=0.05)


def test_the_derivative_along_the_line_rises_as_it_says(problem, way):
    net, start, y = problem
    path = direct(net, start)
    line = Energy(**ALL_TERMS).along(net, path.end, y, weight_sensitivity(net, path, *way), way)
    for step in (-0.3, 0.0, 0.8):
        low, high = line(step - 1e-5)[0], line(step + 1e-5)[0]
        assert line(step)[1] == pytest.approx((high - low) / 2e-5, rel=1e-6)
        assert line(step)[1] > 0


def test_conjugacy_by_hand():
    def pair(*values):
        return torch.tensor(values[:2]), torch.tensor(values[2:])

    slope, before, way = pair(1.0, 2.0, 0.0), pair(2.0, 0.0, 1.0), pair(-1.0, 3.0, 1.0)
    # <U,U> = 5, <B,B> = 5, <U,B> = 2, <D,U> = 5, <D,B> = -1.
    wanted = {"fr": 1.0, "pr": 3 / 5, "fr-pr": 3 / 5, "hs": 3 / 6, "dy": 5 / 6, "none": 0.0}
    assert {rule: conjugacy(rule, slope, before, way) for rule in RULES} == pytest.approx(wanted)
    away = pair(4.0, 0.0, 2.0)  # <U,A> = 4, <A,A> = 20: turned = 1
    assert conjugacy("pr", before, away, way) == 0.0  # 5 - 10 < 0
    assert conjugacy("fr-pr", before, away, way) == -5 / 20
    assert conjugacy("fr-pr", before, pair(-4.0, 0.0, -2.0), way) == 5 / 20
    assert conjugacy("fr", slope, pair(0.0, 0.0, 0.0), way) == 0.0


def test_the_step_is_exact_where_the_output_is_linear_in_it(images):
    """One step of a ReLU that is positive all along, so that the end is linear in W and b."""
    net = make(torch.float64, time=1.0, resolution=1, activation="relu")
    with torch.no_grad():
        net.bias.add_(3.0)
    x, y, _ = images.train.take(torch.arange(10))
    start = net.encode(0.5 + 0.5 * x.double())  # at -0.5 or less, so the way to 0 and 1 leads upwards
    defence = SnodeNCG(iterations=1, mu1=1.0, mu3=0.3, mu4=0.1, longest=1e3)
    origin = [p.detach().clone() for p in (net.weight, net.bias)]
    before, after = defence.descend(net, start, y)
    assert after < before
    moved = [p.detach() - o for p, o in zip((net.weight, net.bias), origin, strict=True)]
    slopes = torch.autograd.grad(defence.energy.value(net, net.end(start), y), [net.weight, net.bias])
    sizes = math.sqrt(dot(slopes, slopes) * dot(moved, moved))
    assert abs(dot(slopes, moved)) < 1e-12 * sizes


def test_with_cross_entropy_the_step_is_a_root(problem, way):
    net, start, y = problem
    path = direct(net, start)
    for terms in (ALL_TERMS, {**ALL_TERMS, "mu1": 0.0, "mu3": 0.0, "mu4": 0.0}):
        energy, xi = Energy(**terms), weight_sensitivity(net, path, *way)
        line = energy.along(net, path.end, y, xi, way)
        if line(0.0)[0] > 0:
            line = energy.along(net, path.end, y, -xi, tuple(-part for part in way))
        wanted = brentq(lambda s, line=line: line(s)[0], 0.0, 100.0, xtol=1e-14)
        assert line.best(100.0) == pytest.approx(wanted, rel=1e-9)
        assert line.best(wanted / 2) == wanted / 2  # no further than the longest
    separable = Line(0.0, 0.0, 1.0, torch.zeros(1, 2).double(), torch.tensor([[1.0, -1.0]]).double())
    assert separable.best(10.0) == 0.0  # flat here: nothing to gain


def test_the_root_finder_where_newton_goes_astray():
    assert root(lambda s: (math.atan(s - 5), 1 / (1 + (s - 5) ** 2)), 0.1, 40.0) == pytest.approx(5, abs=1e-9)
    assert root(lambda s: (math.copysign(1.0, s - 3), 0.0), 1.0, 8.0) == pytest.approx(3, abs=1e-9)


@pytest.mark.parametrize("gamma", RULES)
@pytest.mark.parametrize("terms", [{}, {"mu1": 0.0, "mu2": 1.0}])
def test_every_iteration_lowers_the_energy(gamma, terms, images):
    net = make()
    x, y, _ = images.train.take(torch.arange(20))
    values = SnodeNCG(gamma=gamma, iterations=5, **terms).descend(net, net.encode(x), y)
    assert len(values) == 6
    assert all(later < earlier for earlier, later in pairwise(values))
    assert values[-1] < 0.9 * values[0]


def test_conjugate_directions_are_used(images):
    """Two iterations by hand, from autograd's gradients and a search on the linearised output."""
    net = make(torch.float64)
    x, y, _ = images.train.take(torch.arange(20))
    start, by_hand = net.encode(x.double()), copy.deepcopy(net)
    target = torch.zeros(20, 36, dtype=torch.float64)
    target[torch.arange(20), y] = 1.0
    slopes, ways = [], []
    for _ in range(2):
        weights = [by_hand.weight, by_hand.bias]
        energy = (by_hand.end(start) - target).square().sum() / 40
        slopes.append([g / by_hand.h for g in torch.autograd.grad(energy, weights)])
        kept = 0.0 if not ways else dot(slopes[1], slopes[1]) / dot(slopes[0], slopes[0])
        last = [0.0, 0.0] if not ways else ways[-1]
        ways.append([kept * d - g for g, d in zip(slopes[-1], last, strict=True)])
        path = direct(by_hand, start)
        xi = weight_sensitivity(by_hand, path, *ways[-1])
        step = -float((xi * (path.end - target)).sum() / xi.square().sum())
        with torch.no_grad():
            for weight, way in zip(weights, ways[-1], strict=True):
                weight.add_(step * way)
    SnodeNCG(iterations=2, sobolev=False).descend(net, start, y)
    torch.testing.assert_close(net.weight, by_hand.weight, rtol=0, atol=1e-10)
    torch.testing.assert_close(net.bias, by_hand.bias, rtol=0, atol=1e-10)


def test_a_step_that_is_too_long_is_halved_and_one_that_leads_upwards_is_taken_back(problem, same):
    net, start, y = problem
    defence, path = SnodeNCG(), direct(net, start)
    value = float(defence.energy.value(net, path.end, y).detach())
    _, slope = defence._gradients(net, path, y)
    down, origin = tuple(-part for part in slope), copy.deepcopy(net.state_dict())
    best = defence.energy.along(net, path.end, y, weight_sensitivity(net, path, *down), down).best(100.0)
    moved, then = defence._line_search(net, start, y, down, 64 * best, value)
    assert then < value
    step = (net.weight.detach() - origin["weight"]).norm() / down[0].norm()
    halvings = math.log2(64 * best / float(step))
    assert halvings == pytest.approx(round(halvings), abs=1e-6)
    assert 1 <= round(halvings) <= 10
    torch.testing.assert_close(moved.end, net.end(start), rtol=0, atol=1e-12)
    net.load_state_dict(origin)
    assert defence._line_search(net, start, y, slope, 1.0, value) is None
    same(dict(net.state_dict()), dict(origin))


def test_a_frozen_part_stays(images):
    net = make()
    net.bias.requires_grad_(False)
    x, y, _ = images.train.take(torch.arange(20))
    before = copy.deepcopy(net.state_dict())
    values = SnodeNCG().descend(net, net.encode(x), y)
    assert values[-1] < values[0]
    assert torch.equal(net.bias, before["bias"])
    assert not torch.equal(net.weight, before["weight"])


def test_training_is_this_search_on_each_batch_whatever_the_optimiser(images, train, same):
    by_hand = make()
    for epoch in range(2):
        for batch in Batches(images, 12, 3, torch.device("cpu")).epoch(epoch):
            SnodeNCG().descend(by_hand, by_hand.encode(batch.x), batch.y)
    for optimiser in (Optimiser(lr=0.01), Optimiser(name="sgd", lr=1.0, weight_decay=0.1)):
        trained = train(make(), SnodeNCG(), optimiser=optimiser, clip=1.0)
        same(dict(trained.model.state_dict()), dict(by_hand.state_dict()))
    assert trained.history[1]["loss"] < trained.history[0]["loss"]


def test_a_network_with_normalisation(images, train):
    net = models.create("snode", seed=0, classes=4, image_size=6, time=2.0, resolution=4, mean=0.5, std=0.5).train()
    trained = train(net, SnodeNCG())
    assert trained.history[1]["loss"] < 0.9 * trained.history[0]["loss"]
    assert set(trained.model.state_dict()) == {"mean", "std", "model.weight", "model.bias"}


def test_sobolev_gradients_keep_the_weights_smooth(train):
    smooth, rough = (train(make(), SnodeNCG(sobolev=sobolev)).model for sobolev in (True, False))
    assert roughness(smooth.weight) < 0.5 * roughness(rough.weight)


def test_the_loss_is_the_energy_and_has_its_gradient(images, context):
    net, defence = make(), SnodeNCG(**ALL_TERMS)
    batch = Batch(*images.train.take(torch.arange(8)))
    loss = defence.loss(net, batch, context(net, batch))
    end = net.end(net.encode(batch.x))
    assert loss.value.item() == pytest.approx(float(defence.energy.value(net, end, batch.y).detach()), rel=1e-6)
    loss.value.backward()
    assert net.weight.grad.abs().sum() > 0


def test_its_cost_is_the_number_of_passes(images, train, monkeypatch):
    count = []
    for name in ("direct", "adjoint", "weight_sensitivity"):
        made = getattr(snode_ncg, name)
        monkeypatch.setattr(snode_ncg, name, lambda *a, made=made: count.append(1) or made(*a))
    original = SNODE.end
    monkeypatch.setattr(SNODE, "end", lambda self, *a: count.append(1) or original(self, *a))
    defence = SnodeNCG(iterations=4)
    train(make(), defence, epochs=1, batch_size=1000)
    seen = len(count)
    checked = 2  # the trainer looks at the outputs before, and validates after
    assert seen - checked == defence.cost.crafting + defence.cost.training == 14


@pytest.mark.parametrize("around", [lambda d: d, lambda d: AWP(d, gamma=0.01)])
def test_stopped_and_resumed_it_gives_the_same_bits(around, train, same, tmp_path):
    count = []

    def stop(done, figures):
        count.append(done)
        if len(count) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    def run(**options):
        return train(make(), around(SnodeNCG(iterations=2)), average=0.9, **options)

    whole = run()
    with pytest.raises(Interrupted):
        run(out=tmp_path / "run", progress=stop)
    again = run(out=tmp_path / "run", resume=True)
    same(again.model.state_dict(), whole.model.state_dict())
    same(again.history, whole.history)


def test_it_trains_in_bf16(train):
    trained = train(make(), SnodeNCG(), epochs=1, precision="bf16-mixed")
    assert all(torch.isfinite(value).all() for value in trained.model.state_dict().values())
    assert np.isfinite(trained.history[-1]["loss"])


def test_weights_that_are_no_numbers_stop_the_run(train):
    net = make()
    with torch.no_grad():
        net.weight[0, 0, 0] = math.nan
    with pytest.raises(UserError, match=r"nan|finite"):
        train(net, SnodeNCG())


def test_networks_and_wrappers_that_it_does_not_go_with(network, train):
    with pytest.raises(UserError, match=r"^snode-ncg trains networks of the model snode only; got Sequential$"):
        train(network(), SnodeNCG())
    with pytest.raises(UserError, match="makes no perturbed pass"):
        train(make(), LayerRegularised(SnodeNCG(), layers=["activation"]))
    assert isinstance(make(), nn.Module)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"iterations": 0}, "iterations must be a whole number of 1 or more"),
        ({"gamma": "cg"}, "gamma must be one of fr, pr, fr-pr, hs, dy, none; got 'cg'"),
        ({"mu1": 0.0}, "one of mu1, mu2 and mu3 must be above 0"),
        ({"mu4": -1.0}, "mu4 must be a finite number of 0 or more; got -1.0"),
        ({"longest": 0.0}, "longest must be a finite number above 0"),
    ],
)
def test_settings_that_mean_nothing(settings, line):
    with pytest.raises(UserError, match=line):
        SnodeNCG(**settings)
