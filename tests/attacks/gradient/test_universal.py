"""One perturbation for all inputs: its optimum on linear models, fitting, and what is shared."""

import pytest
import torch
from torch import nn

from buttress.attacks import PGD, EoT, Universal
from buttress.attacks.gradient.universal import Universal as ByName
from buttress.data.dataset import Split
from buttress.errors import UserError
from buttress.registry import attack as registry
from buttress.threat import Threat, norms


@pytest.fixture
def linear(nets):
    """Two classes in 6 dimensions, most inputs of class 0: the best shared step is against its weight."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    x = torch.rand(40, 6, generator=generator, dtype=torch.float64) * 0.6 + 0.2
    model = nets.linear(weight)
    lead = model(x)[:, 0] - model(x)[:, 1]
    model[1].bias.data[1] += lead.kthvalue(10).values  # 10 of the 40 are of class 1
    return model, x, model(x).argmax(1)


def test_it_is_registered():
    assert registry.get("universal") is ByName


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_on_a_linear_model_it_is_the_step_against_the_larger_class(linear, norm):
    model, x, y = linear
    threat = Threat(norm=norm, eps=0.1, box=None)
    result = Universal(threat=threat, loss="margin", steps=10)(model, x, y)
    weight = model[1].weight.detach()
    away = weight[1] - weight[0]
    best = 0.1 * (away.sign() if norm == "linf" else away / away.norm())
    torch.testing.assert_close(result.x_adv - x, best.expand_as(x))
    assert (result.forwards == 12).all()
    assert (result.backwards == 10).all()


def test_cross_entropy_weighs_inputs_as_its_mean_does(nets):
    """The gradient of the mean loss, by autograd; the network is so sure that float32 holds it only just."""
    model = nets.conv(seed=3, dtype=torch.float64)
    x = torch.rand(9, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model[5].weight *= 30
        model[5].bias -= model(x).mean(0)
    for y, target in ((model(x).argmax(1), None), (model(x).argmax(1), torch.arange(9) % 4)):
        point = x.clone().requires_grad_()
        loss = nn.functional.cross_entropy(model(point), y if target is None else target, reduction="mean")
        (grad,) = torch.autograd.grad(loss if target is None else -loss, point)
        mean = grad.mean(0)
        result = Universal(threat=Threat(norm="l2", eps=0.1, box=None), steps=1, step_size=0.1)(
            model, x, y, target=target
        )
        torch.testing.assert_close(result.x_adv - x, (0.1 * mean / mean.norm()).expand_as(x))


def test_inputs_above_the_ceiling_have_no_say(linear):
    """Under a ceiling of 0 on the margin only those that still stand count: class 1 alone, where class 0 has fallen."""
    model, x, y = linear
    with torch.no_grad():
        model[1].bias[0] -= 100
    weight = model[1].weight.detach()
    result = Universal(threat=Threat(eps=0.01, box=None), loss="margin", ceiling=0.0)(model, x, y)
    torch.testing.assert_close(result.x_adv - x, (0.01 * (weight[0] - weight[1]).sign()).expand_as(x))
    mean = Universal(threat=Threat(eps=0.01, box=None), ceiling=50.0)(model, x, y)
    torch.testing.assert_close(mean.x_adv, result.x_adv)
    nobody = Universal(threat=Threat(eps=0.01, box=None), ceiling=-1.0)(model, x, y)
    assert torch.equal(nobody.x_adv, x)


def test_all_get_the_same_one_also_those_that_fall_early(linear):
    model, x, y = linear
    threat = Threat(eps=0.3, box=None)
    for search in ("full", "first"):
        result = Universal(threat=threat, loss="margin")(model, x, y, search=search)
        stood = model(x).argmax(1) == y
        delta = (result.x_adv - x)[stood]
        torch.testing.assert_close(delta, delta[:1].expand_as(delta))
        assert result.success.sum() >= 30


def test_in_a_box_it_is_clipped_input_by_input(linear):
    model, x, y = linear
    threat = Threat(eps=0.5, box=(0.0, 1.0))
    fitted = Universal.fit(model, [(x, y)], threat, epochs=12, loss="margin")
    result = fitted(model, x, y)
    torch.testing.assert_close(result.x_adv, (x + fitted.delta).clamp(0, 1))
    assert threat.contains(result.x_adv, x).all()
    assert (result.forwards == 1).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_fitting_learns_from_batches_and_helps_on_other_inputs(nets, norm):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 20, generator=generator)
    model = nets.linear(weight)
    x = torch.rand(300, 20, generator=generator)
    with torch.no_grad():
        model[1].bias -= model(x).mean(0)
    y = model(x).argmax(1)
    threat = Threat(norm=norm, eps={"linf": 0.15, "l2": 0.6, "l1": 2.0}[norm])
    batches = [(x[i : i + 50], y[i : i + 50]) for i in range(0, 200, 50)]
    fitted = Universal.fit(model, batches, threat, epochs=4, target=2)
    assert fitted.delta.shape == (20,)
    assert norms(fitted.delta[None].double(), norm) <= threat.eps * (1 + 1e-6)
    held_out = fitted(model, x[200:], y[200:], target=torch.full((100,), 2))
    reached = (y[200:] == 2).float().mean()
    random = x[200:] + fitted.delta[torch.randperm(20, generator=generator)]
    assert held_out.success.float().mean() > 1.5 * reached
    assert held_out.success.float().mean() > (model(random.clamp(0, 1)).argmax(1) == 2).float().mean()
    again = Universal.fit(model, Split(x[:200], y[:200], torch.arange(200)), threat, epochs=4, target=2)
    assert again.delta.shape == (20,)


def test_fitting_leaves_the_model_alone(nets):
    model = nets.awkward(5)
    before = nets.state(model)
    x, y = torch.rand(6, 5, generator=torch.Generator().manual_seed(0)), torch.zeros(6, dtype=torch.int64)
    Universal.fit(model, [(x, y)], Threat(eps=0.1))
    nets.assert_state(model, before)


def test_a_fitted_one_does_not_depend_on_the_batch_and_prints_tell_it(linear):
    model, x, y = linear
    fitted = Universal.fit(model, [(x, y)], Threat(eps=0.1))
    assert torch.equal(fitted(model, x[:3], y[:3]).x_adv, fitted(model, x, y).x_adv[:3])
    assert fitted.fingerprint() != Universal(threat=Threat(eps=0.1), step_size=0.01).fingerprint()
    assert not Universal.by_input
    assert not EoT(attack=Universal()).by_input
    assert EoT(attack=PGD()).by_input


def test_it_is_weaker_than_an_attack_on_each_input(nets):
    model = nets.conv(seed=3)
    x = torch.rand(30, 1, 6, 6, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        model[5].weight *= 8
        model[5].bias -= model(x).mean(0)
    y = model(x).argmax(1)
    threat = Threat(eps=0.05)
    shared, own = Universal(threat=threat, steps=20)(model, x, y), PGD(threat=threat, steps=20)(model, x, y)
    assert 0 < shared.success.sum() < own.success.sum()


def test_what_means_nothing_is_refused(linear):
    model, x, y = linear
    with pytest.raises(UserError, match="delta must be a tensor of finite numbers"):
        Universal(delta=torch.tensor([float("nan")]))
    with pytest.raises(UserError, match=r"delta is for inputs of shape \(5,\); got \(6,\)"):
        Universal(delta=torch.zeros(5))(model, x, y)
    with pytest.raises(UserError, match="ceiling must be a number"):
        Universal(ceiling=float("nan"))
    with pytest.raises(UserError, match="it gave none: pass a list or a loader"):
        Universal.fit(model, iter([(x, y)]), Threat(eps=0.1), epochs=2)
    with pytest.raises(UserError, match="infinite eps without a box"):
        Universal.fit(model, [(x, y)], Threat(eps=float("inf"), box=None))
    with pytest.raises(UserError, match="inputs must lie in the box"):
        Universal.fit(model, [(x + 3, y)], Threat(eps=0.1))
