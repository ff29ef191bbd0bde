import json
import math
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from buttress.attacks import PGD, Gaussian, Perturbation
from buttress.errors import UserError
from buttress.layers import LayerTolerance, patching, tolerance
from buttress.threat import Threat


def net(seed, offset=0.0, features=8, classes=4):
    """Tanh features, an optional offset on them (taken away again above), and a linear head."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(5, features)
            self.phi = nn.Identity()
            self.head = nn.Linear(features, classes)

        def forward(self, x):
            return self.head(self.phi(torch.tanh(self.fc(x)) + offset) - offset)

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net()


def batch(model, n=24, seed=0):
    """Inputs and the labels that the model itself gives, but for two."""
    x = torch.rand(n, 5, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        y = model(x).argmax(1)
    y[:2] = (y[:2] + 1) % 4
    return x, y


ATTACK = PGD(threat=Threat(eps=0.25), steps=10)


@pytest.mark.parametrize("eps", [0.02, 0.25])
def test_a_linear_head_has_its_closed_form(eps):
    model = net(1)
    x, y = batch(model)
    found = tolerance(model, [(x[:10], y[:10]), (x[10:], y[10:])], PGD(threat=Threat(eps=eps), steps=5), ["phi"])
    with torch.no_grad():
        phi = torch.tanh(model.fc(x))
        logits = model(x)
    gap = logits.gather(1, y[:, None]) - logits
    reach = (model.head.weight[y][:, None] - model.head.weight[None]).norm(dim=2)
    exact = torch.where(F.one_hot(y, 4).bool(), torch.inf, gap / reach).amin(1) / phi.norm(dim=1)
    assert found.wrong.tolist() == [True, True] + [False] * 22
    right = ~found.wrong
    assert torch.equal(found.rho[0][found.wrong], torch.zeros(2))
    assert bool((found.rho[0][right] >= exact[right] * (1 - 1e-4)).all())  # an upper bound
    torch.testing.assert_close(found.rho[0][right], exact[right].detach(), rtol=0.04, atol=0)
    assert float(found.median_rho) == pytest.approx(float(found.rho[0][right].double().quantile(0.5)), rel=1e-6)


@pytest.mark.parametrize("layers", ["activations", "learnable"])
def test_beaten_implies_a_margin_of_at_most_one_where_every_path_crosses(mixed, inputs, layers):
    with torch.no_grad():
        y = mixed(inputs).argmax(1)
    found = tolerance(
        mixed, [(inputs, y)], PGD(threat=Threat(eps=3.0, box=None), steps=10), layers, steps=3, bisections=2
    )
    assert int(found.success.sum()) >= 1
    assert not bool(found.wrong.any())
    for k, crossed in enumerate(found.crossed):
        if crossed:
            assert bool((found.margin[k][found.success] <= 1).all())
    assert sum(found.crossed) >= 4


def test_the_attacks_own_value_counts_even_where_rounding_would_miss_it():
    class Threshold(nn.Module):
        def forward(self, x):
            phi = F.relu(x)
            return torch.stack([0.5 + 0 * phi.sum(1), (phi >= 0.7).all(1).float()], 1)

    @dataclass(frozen=True)
    class Raise(Perturbation):
        def perturb(self, oracle, x, y, random):
            return torch.full_like(x, 0.7)

    x = 0.69 * torch.rand(64, 5, generator=torch.Generator().manual_seed(0))
    found = tolerance(Threshold(), [(x, torch.zeros(64, dtype=torch.int64))], Raise(), steps=2, bisections=1)
    assert bool(found.success.all())
    assert bool((found.margin <= 1).all())
    assert bool((found.margin > 0.9).all())


def test_an_offset_scales_tolerance_and_displacement_but_not_the_margin():
    plain, offset = net(2), net(2, offset=10.0)
    x, y = batch(plain)
    one, other = (tolerance(m, [(x, y)], ATTACK, ["phi"]) for m in (plain, offset))
    right = ~one.wrong
    assert bool((other.rho[:, right] < 0.3 * one.rho[:, right]).all())
    torch.testing.assert_close(other.margin[:, right], one.margin[:, right], rtol=0.02, atol=0)


def test_the_model_comes_back_as_it_was_and_twice_gives_the_same(mixed, inputs, count_hooks):
    y = torch.zeros(7, dtype=torch.int64)
    state = torch.random.get_rng_state()
    one, other = (tolerance(mixed, [(inputs, y)], ATTACK, ["relu", "tanh"], steps=2, bisections=2) for _ in range(2))
    assert torch.equal(one.rho, other.rho)
    assert count_hooks(mixed) == 0
    assert mixed.training
    assert all(p.grad is None for p in mixed.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_layer_that_cannot_flip_the_prediction_stands_everything():
    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(5, 4)

        def forward(self, x):
            return self.fc(x) + 1e-9 * F.relu(x).sum(1, keepdim=True)

    model = Beside()
    x, y = batch(model)
    found = tolerance(model, [(x, y)], ATTACK, "activations", steps=2, bisections=2)
    assert found.crossed == [False]
    assert bool(found.rho[0][2:].isinf().all())
    assert float(found.median_margin) == math.inf
    assert found.to_dict()["margin"] == [None]


def test_a_layer_that_is_zero_has_no_relative_size():
    class Dead(nn.Module):
        def forward(self, x):
            return x[:, :4] + F.relu(x - 9)[:, :4]

    x, y = batch(Dead())
    found = tolerance(Dead(), [(x, y)], ATTACK, steps=2, bisections=2)
    assert bool(found.rho[0][~found.wrong].isnan().all())
    assert math.isnan(float(found.median_rho))


def test_medians_leave_out_what_was_wrong_before():
    found = LayerTolerance(
        layers=["a", "b", "c"],
        crossed=[True] * 3,
        rho=torch.tensor([[0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 1.0, math.inf], [0.0, 4.0, math.nan, 6.0]]),
        displacement=torch.tensor([[9.0, 1.0, 1.0, 1.0], [9.0, 2.0, 2.0, 2.0], [99.0, 1.0, 0.0, 1.0]]),
        wrong=torch.tensor([True, False, False, False]),
        success=torch.tensor([True, True, False, False]),
    )
    assert found.median_rho.tolist() == [2.0, 1.0, 5.0]
    assert found.median_margin.tolist() == [2.0, 0.5, 5.0]
    # By displacement b, a, c; by margin b, a, c.
    assert found.rank_correlation == pytest.approx(1.0)
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["margin"] == [2.0, 0.5, 5.0]
    assert (data["inputs"], data["wrong"], data["beaten"]) == (4, 1, 2)


def test_what_cannot_be_searched_is_refused(mixed, inputs):
    y = torch.zeros(7, dtype=torch.int64)
    with pytest.raises(UserError, match="steps must be a whole number of 1 or more; got 0"):
        tolerance(mixed, [(inputs, y)], ATTACK, steps=0)
    with pytest.raises(UserError, match="holds no inputs"):
        tolerance(mixed, [], ATTACK)
    with pytest.raises(UserError, match="matches 'nothing'"):
        tolerance(mixed, [(inputs, y)], ATTACK, "nothing")


def test_a_network_that_takes_gradients_of_its_own_is_told():
    """An energy's gradient by the input: a replaced value is constant, so nothing is left of it."""

    class Energy(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(5, 5)

        def forward(self, x):
            with torch.enable_grad():
                x = x if x.requires_grad else x.detach().requires_grad_()
                energy = torch.tanh(self.fc(x)).square().sum()
                return torch.autograd.grad(energy, x, create_graph=True)[0][:, :4]

    model = Energy()
    x, y = batch(model)
    found = tolerance(model, [(x, y)], Gaussian(std=0.1), steps=2, bisections=2)
    assert bool(found.rho.isnan().all())
    assert "takes gradients of its own" in found.left_out["tanh"]
    patched = patching(model, [(x, y)], Gaussian(std=1.0))
    assert "takes gradients of its own" in patched.left_out["tanh"]


class Counting(nn.Module):
    """relu(x0) - 0.2 passes so far decides: right where x0 is larger."""

    def __init__(self):
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        self.passes += 1
        score = F.relu(x[:, 0]) - 0.2 * self.passes
        return torch.stack([-score, score], 1)


def test_every_pass_begins_with_the_buffers_that_the_network_came_with():
    x = torch.tensor([[0.4], [0.8], [1.0]])
    model = Counting()
    data = [(x, torch.ones(3, dtype=torch.int64))]
    found = tolerance(model, data, Gaussian(std=0.1), steps=4, bisections=4)
    torch.testing.assert_close(found.rho[0], torch.tensor([0.5, 0.75, 0.8]), rtol=0.04, atol=0)
    patched = patching(model, data, Gaussian(std=2.0), doses=2)
    assert patched.beaten > 0
    assert patched.restored.tolist() == [1.0]
    assert float(model.passes) == 0
