"""LT-NODE and ALT-NODE: one solve against many, the evidence bound by hand, the posterior's gradients, variants."""

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F

from buttress import attacks, models
from buttress.attacks.composed.variant import variants_of
from buttress.defences import Batch, StepContext
from buttress.defences.standard import Standard
from buttress.errors import UserError
from buttress.models.architectures.lt_node import LTNode
from buttress.models.blocks.latent_time import EndTimes, states_at
from buttress.models.blocks.ode import ODEBlock, integrate
from buttress.threat import Threat

SMALL = {"width": 4, "extractor": "small", "seed": 1}
both = pytest.mark.parametrize("name", ["lt-node", "alt-node"])


def images(count=3):
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(4))


def labels(count=3):
    return torch.arange(count) * 3 % 10


def make(name, **options):
    return models.create(name, **SMALL, **options).double().eval()


def calls(model):
    """Times at which dz/dt is asked for from now on."""
    seen = []
    model.block.func.register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten()[0].item()))
    return seen


def start(model, x):
    return model.extractor(x).detach()


@pytest.mark.parametrize("solver", ["euler", "midpoint", "rk4"])
@pytest.mark.parametrize("shared", [True, False])
def test_one_solve_gives_the_states_of_many(solver, shared):
    model = make("lt-node", solver=solver, step=0.25)
    z = start(model, images().double())
    times = torch.tensor([[0.05], [0.5], [0.9], [1.3]]).double()
    times = times if shared else times + torch.tensor([0.0, 0.07, 0.4])
    found = states_at(model.block, z, times)
    for row, ends in zip(found, times.expand(4, 3), strict=True):
        for n, end in enumerate(ends):
            alone = integrate(model.block.func, z[n : n + 1], [0.0, end], **model.block.settings)[-1]
            assert torch.allclose(row[n], alone[0], atol=1e-12)


def test_sorted_output_times_on_the_grid_give_the_same():
    model = make("lt-node", step=0.25)
    z, times = start(model, images().double()), [0.25, 0.75, 2.0]
    found = states_at(model.block, z, torch.tensor(times).double()[:, None])
    assert torch.allclose(found, model.block.states(z, [0.0, *times])[1:], atol=1e-12)


@pytest.mark.parametrize("solver", ["rk4", "dopri5"])
def test_a_solve_in_rescaled_time_agrees(solver):
    model = make("alt-node", solver=solver, step=0.05, rtol=1e-8, atol=1e-8)
    z, ends = start(model, images().double()), torch.tensor([0.31, 1.07, 0.6]).double()
    scale = ends[:, None, None, None]
    rescaled = integrate(lambda s, y: scale * model.block.func(s * scale, y), z, [0.0, 1.0], solver="rk4", step=0.02)
    assert torch.allclose(states_at(model.block, z, ends[None])[0], rescaled[-1], atol=2e-4)


@both
def test_a_forward_is_one_solve_to_the_last_time(name):
    model, x = make(name, longest=0.95), images().double()
    seen = calls(model)
    model(x)
    assert seen == pytest.approx([k / 10 for k in range(10)])


@both
def test_predictions_are_means_of_probabilities_at_the_quantiles(name):
    model, x = make(name, samples=4), images().double()
    with torch.no_grad():
        z = model.extractor(x)
        times = model.posterior(z).quantiles(4).clamp(0.05, 4)
        p = torch.stack([model.classify(states_at(model.block, z, t[None])[0]).softmax(1) for t in times]).mean(0)
        assert torch.allclose(model(x).exp(), p, atol=1e-12)
        assert torch.equal(model(x), model(x))


@both
def test_a_narrow_posterior_is_the_network_with_a_fixed_end_time(name):
    narrow = 1e10
    model = make(name, shape=narrow, rate=narrow, samples=3)
    plain = models.create("odenet", **SMALL).double().eval()
    shared = {key: value for key, value in model.state_dict().items() if key in plain.state_dict()}
    plain.load_state_dict(shared)
    x = images().double()
    if name == "alt-node":
        torch.nn.init.zeros_(model.inference[3].weight)
        torch.nn.init.zeros_(model.inference[3].bias)
    assert torch.allclose(model(x), plain(x).log_softmax(1), atol=1e-4)
    assert torch.allclose(model.answer(x, sampling="mean"), plain(x).log_softmax(1), atol=1e-6)


@both
def test_cross_entropy_and_auxiliary_are_the_evidence_bound(name):
    weights = {"kl_weight": 3.0} if name == "alt-node" else {"kl_weight": 3.0, "examples": 6}
    model, x, y = make(name, samples=4, prior_shape=3.0, prior_rate=1.0, **weights), images().double(), labels()
    logits, auxiliary = model.forward_with_auxiliary(x, y)
    z = model.extractor(x)
    posterior = model.posterior(z)
    logs = model.log_probabilities(z, posterior.quantiles(4).clamp(0.05, 4))
    divergence = torch.distributions.kl_divergence(
        torch.distributions.Gamma(posterior.shape, posterior.rate), torch.distributions.Gamma(3.0, 1.0)
    ).mean()
    weight = 3.0 if name == "alt-node" else 0.5
    expected = torch.stack([F.nll_loss(one, y) for one in logs]).mean() + weight * divergence
    assert torch.allclose(F.cross_entropy(logits, y) + auxiliary, expected, rtol=1e-10)
    soft = torch.full((3, 10), 0.1).double()  # labels that are no classes
    expected = -(logs * soft).sum(2).mean() + weight * divergence
    assert torch.allclose(F.cross_entropy(logits, soft) + auxiliary, expected, rtol=1e-10)


@both
def test_training_draws_end_times_and_its_step_has_the_auxiliary(name):
    model, x, y = make(name).float().train(), images(), labels()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        logits, auxiliary = model.forward_with_auxiliary(x, y)
        other = model.forward_with_auxiliary(x, y)[0]
        torch.manual_seed(3)
        context = StepContext(model, Batch(x, y, torch.arange(3)))
        loss = Standard().loss(model, context.batch, context)
    assert not torch.allclose(logits, other)
    assert torch.allclose(loss.value, F.cross_entropy(logits, y))
    assert torch.allclose(context.auxiliary[0], auxiliary)
    sum([loss.value, *context.auxiliary]).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())


def test_gradients_of_the_posterior_are_finite_differences_of_the_quadrature():
    model, x, y = make("lt-node", samples=5, solver="rk4", step=0.05, speed=2.0), images().double(), labels()

    def loss():
        logits, auxiliary = model.forward_with_auxiliary(x, y)
        return F.cross_entropy(logits, y) + auxiliary

    (grad,) = torch.autograd.grad(loss(), model.moved)
    h = 1e-5
    for k in range(2):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                model.moved.zero_()[k] += sign * h
                values.append(loss().item())
        assert grad[k].item() == pytest.approx((values[0] - values[1]) / (2 * h), rel=2e-3)


def test_the_input_acts_through_the_amortised_posterior():
    model, x = make("alt-node"), images().double().requires_grad_()
    mean = model.posterior(model.extractor(x)).mean
    assert mean.shape == (3,)
    assert len(mean.unique()) == 3
    assert torch.autograd.grad(mean.sum(), x)[0].abs().sum() > 0
    loss = model(x).square().sum()
    (grad,) = torch.autograd.grad(loss, x, create_graph=True)
    penalty = torch.autograd.grad(grad.square().sum(), [p for p in model.parameters() if p.dim() == 4])
    assert all(g.isfinite().all() for g in penalty)


@pytest.mark.parametrize("sampling", ["quadrature", "random", "mean"])
@both
def test_what_is_no_number_gives_what_is_none_for_its_row_alone(name, sampling):
    """Without an error of its own, so that whoever checks losses and logits can tell in one line."""
    model, x = make(name, sampling=sampling), images().double()
    broken = x.clone()
    broken[1] = math.nan
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found, whole = model(broken).detach(), model(x).detach()
    assert found[1].isnan().all()
    assert found[[0, 2]].isfinite().all()
    if sampling != "random":
        assert torch.allclose(found[[0, 2]], whole[[0, 2]])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(math.nan)
    for mode in (model.eval(), model.train()):
        assert mode(x).isnan().all()


@both
def test_random_predictions_follow_the_global_state(name):
    model, x = make(name, sampling="random"), images().double()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first, second = model(x), model(x)
        torch.manual_seed(1)
        assert torch.equal(model(x), first)
    assert not torch.equal(first, second)


def test_the_posterior_starts_where_it_is_told_and_speed_moves_it_faster():
    model = make("lt-node", shape=3.0, rate=0.5, speed=4.0)
    q = model.posterior(torch.zeros(2))
    assert (q.shape.item(), q.rate.item()) == pytest.approx((3.0, 0.5), rel=1e-6)
    slow = make("lt-node", shape=3.0, rate=0.5, speed=1.0)
    moved = [torch.autograd.grad(m.posterior(torch.zeros(2)).shape.sum(), m.moved)[0][0] for m in (model, slow)]
    assert moved[0] == pytest.approx(4 * moved[1].item())


@both
def test_uncertainty_by_its_definition(name):
    model, x = make(name, samples=6), images().double()
    with torch.no_grad():
        told, z = model.uncertainty(x), model.extractor(x)
        q = model.posterior(z)
        p = model.log_probabilities(z, q.quantiles(6).clamp(0.05, 4)).exp()
    mean = p.mean(0)
    total = -(mean * mean.log()).sum(1)
    assert torch.allclose(told["entropy"], total)
    assert torch.allclose(told["mutual_information"], total + (p * p.log()).sum(2).mean(0), atol=1e-12)
    assert torch.allclose(told["end_time_mean"], (q.shape / q.rate).expand(3))
    assert torch.allclose(told["end_time_std"], (q.shape.sqrt() / q.rate).expand(3))


def test_over_time_is_the_fixed_network_and_the_density():
    model, x = make("alt-node"), images().double()
    told = model.over_time(x, torch.tensor([0.3, 1.0]))
    z = model.extractor(x)
    fixed = model.classify(integrate(model.block.func, z, [0.0, 1.0], **model.block.settings)[-1]).log_softmax(1)
    assert torch.allclose(told["log_probabilities"][1], fixed)
    q = model.posterior(z)
    density = torch.distributions.Gamma(q.shape, q.rate).log_prob(torch.tensor([[0.3], [1.0]]).double()).exp()
    assert torch.allclose(told["density"], density, rtol=1e-6)
    assert torch.allclose(told["mean"], q.mean)


@both
def test_variants_share_the_weights_and_answer_otherwise(name):
    model, x = make(name), images().double()
    variants = variants_of(model)
    assert set(variants) == {"finer solver", "rk4", "random end times", "mean end time", "mean logits"}
    assert set(variants_of(make(name, sampling="random"))) >= {"quadrature", "mean end time"}
    seen = calls(model)
    with torch.random.fork_rng():
        answers = {key: variant.eval()(x) for key, variant in variants.items()}
    assert seen
    assert all(answer.shape == (3, 10) and not torch.equal(answer, model(x)) for answer in answers.values())
    assert torch.allclose(answers["finer solver"], model(x), atol=0.2)
    assert not any("network" in key for key in model.state_dict())


@both
def test_as_a_module(name):
    model, x = make(name).float(), images()
    again = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert torch.equal(again(x), model(x))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert torch.allclose(model(x), again.double()(x.double()).to(model(x)), atol=0.1)
    with torch.no_grad():
        assert torch.allclose(model(x).exp().sum(1), torch.ones(3))


@both
def test_an_attack_through_a_twin_finds_what_the_usual_one_does(name):
    model, x, y = make(name).float(), images(), labels()
    y = model(x).argmax(1)
    attack = attacks.PGD(threat=Threat(eps=0.1), steps=3)
    usual, twin = (attack(model, x, y, precision=p) for p in ("fp32", "twin"))
    assert (usual.loss > F.cross_entropy(model(x), y, reduction="none").detach()).all()
    assert torch.allclose(usual.loss, twin.loss, atol=0.02)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"sampling": "randm"}, "sampling must be one of .*random.*; got 'randm'"),
        ({"samples": 0}, "samples must be a whole number of 1 or more"),
        ({"shape": 0.001}, "must exceed 0.01"),
        ({"rate": -1.0}, "rate must be a finite number above 0"),
        ({"shortest": 5.0}, "shortest must be below longest"),
        ({"prior_rate": 0.0}, "prior_rate must be"),
        ({"kl_weight": -1.0}, "kl_weight must be"),
        ({"kl_weight": "a"}, "kl_weight must be"),
        ({"kl_weight": math.inf}, "kl_weight must be"),
    ],
)
@both
def test_options_that_mean_nothing(name, options, told):
    with pytest.raises(UserError, match=told):
        models.create(name, **SMALL, **options)


class Hill(torch.nn.Module):
    """z(T) = 1.5 T - T^2 / 2, highest at T = 1.5; the midpoint rule is exact."""

    def forward(self, t, z):
        return (1.5 - t) + 0 * z


def evidence(mean, std, kl_weight):
    """E_q[-log p] + weight KL(q, Gamma(2, 2)) of the network below, by the trapezoid rule."""
    q, prior = (
        torch.distributions.Gamma(*torch.tensor(v).double()) for v in ((mean**2 / std**2, mean / std**2), (2, 2))
    )
    t = torch.linspace(1e-4, 8, 20_001).double()
    end = t.clamp(0.05, 4)
    loss = F.softplus(-64 * (1.5 * end - end**2 / 2) + 72)
    return float(
        torch.trapezoid(loss * q.log_prob(t).exp(), t) + kl_weight * torch.distributions.kl_divergence(q, prior)
    )


@pytest.mark.parametrize(("kl_weight", "mean"), [(10.0, 1.32), (30.0, 1.14), (1e4, 1.0)])
def test_the_posterior_moves_to_the_best_end_time_as_far_as_the_prior_lets_it(kl_weight, mean):
    """The best end time is 1.5, the prior's mean 1; training ends where no other Gamma has a better bound."""
    block, ends = ODEBlock(Hill(), step=0.5, solver="midpoint"), EndTimes(kl_weight=kl_weight, samples=100)
    model = LTNode(torch.nn.Identity(), block, 1, 2, ends, initial=(1.0, 2.0), speed=10.0).eval()
    with torch.no_grad():
        model.fc.weight.copy_(torch.tensor([[32.0], [-32.0]]))
        model.fc.bias.copy_(torch.tensor([-36.0, 36.0]))
    optimiser = torch.optim.Adam([model.moved], lr=0.1)
    x, y = torch.zeros(1, 1, 1, 1), torch.tensor([0])
    for _ in range(200):
        logits, auxiliary = model.forward_with_auxiliary(x, y)
        optimiser.zero_grad()
        (F.cross_entropy(logits, y) + auxiliary).backward()
        optimiser.step()
    q = model.posterior(x)
    found = q.mean.item(), q.std.item()
    assert found[0] == pytest.approx(mean, abs=0.01)
    reached = evidence(*found, kl_weight)
    assert all(
        evidence(found[0] + a, found[1] + b, kl_weight) > reached for a in (-0.04, 0.04) for b in (-0.04, 0.0, 0.04)
    )
    assert all(evidence(found[0], found[1] + b, kl_weight) > reached for b in (-0.04, 0.04))
