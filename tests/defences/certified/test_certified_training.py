"""Training on bounds: the losses by closed forms and intervals written out here, their gradients, what comes of it."""

import copy
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from buttress import certificates
from buttress.data.arrays import from_arrays
from buttress.defences.awp import AWP
from buttress.defences.certified.crown_ibp import CROWNIBPTraining
from buttress.defences.certified.ibp import IBPTraining
from buttress.defences.certified.initialisation import growth, initialise_for_intervals
from buttress.defences.certified.sabr import SABR
from buttress.defences.eps_warmup import EpsWarmup
from buttress.defences.layer_regularised import LayerRegularised
from buttress.errors import UserError
from buttress.threat import Threat
from buttress.training import Optimiser, fit

EPS = 0.07
WHOLE = {"threat": Threat(eps=EPS), "rise": 0.0}
EXACT = {"rtol": 0, "atol": 1e-10}
METHODS = {
    "ibp": lambda **settings: IBPTraining(**WHOLE | settings),
    "mtl-ibp": lambda **settings: IBPTraining(**WHOLE | {"steps": 2} | settings),
    "crown-ibp": lambda **settings: CROWNIBPTraining(**WHOLE | settings),
    "crown-ibp, lines": lambda **settings: CROWNIBPTraining(**WHOLE | {"beta": 1.0} | settings),
    "sabr": lambda **settings: SABR(**WHOLE | {"steps": 2} | settings),
}
every = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)


@pytest.fixture
def smooth(network):
    return network(dropout=0.0, dtype=torch.float64)


def cross_entropy(margins):
    """Mean log(1 + sum exp(-margin)) of margins (K - 1, N)."""
    return (1 + (-margins).exp().sum(0)).log().mean()


def margins_of(logits, y):
    """(K - 1, N) the true class's logit less each other one."""
    rows = [[logits[i, y[i]] - logits[i, k] for k in range(logits.shape[1]) if k != y[i]] for i in range(len(y))]
    return torch.stack([torch.stack(row) for row in rows]).transpose(0, 1)


def gradients(value, model):
    return torch.autograd.grad(value, list(model.parameters()))


@pytest.mark.parametrize("make", [METHODS["ibp"], METHODS["crown-ibp, lines"], METHODS["sabr"]])
def test_a_linear_networks_worst_margins_are_less_by_eps_times_the_size_of_their_weights(make, batch, context):
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4)).double()
    settings = {"kappa": 0.0, **({"small": 1.0} if make is METHODS["sabr"] else {})}
    loss = make(**settings).loss(model, batch, context(model, batch)).value
    weights, logits = model[1].weight, model(batch.x)
    rows = margins_of(weights[None].expand(8, -1, -1), batch.y)  # (K - 1, N, 36) differences of weights
    torch.testing.assert_close(loss, cross_entropy(margins_of(logits, batch.y) - EPS * rows.abs().sum(2)), **EXACT)


@every
def test_without_a_budget_it_is_cross_entropy_with_its_gradients(make, smooth, batch, context):
    """Batch normalisation in bounds is by the batch, and hands on the gradient as in a usual pass."""
    defence = make(threat=Threat(eps=0.0))
    loss = defence.loss(smooth, batch, context(smooth, batch)).value
    usual = F.cross_entropy(smooth(batch.x), batch.y)
    torch.testing.assert_close(loss, usual, **EXACT)
    torch.testing.assert_close(gradients(loss, smooth), gradients(usual, smooth), **EXACT)


def test_intervals_are_those_of_a_plain_computation(smooth, batch, context):
    defence = IBPTraining(**WHOLE, kappa=0.0)
    loss = defence.loss(smooth, batch, context(smooth, batch)).value
    conv, norm, first, last = smooth[0], smooth[1], smooth[4], smooth[7]

    def through(layer, low, high):
        centre, radius = (low + high) / 2, (high - low) / 2
        size = layer.weight.abs()
        spread = F.conv2d(radius, size, padding=1) if layer is conv else radius @ size.T
        return layer(centre) - spread, layer(centre) + spread

    low, high = through(conv, (batch.x - EPS).clamp(0, 1), (batch.x + EPS).clamp(0, 1))
    taken = conv(batch.x)
    mean, variance = taken.mean((0, 2, 3)), taken.var((0, 2, 3), correction=0)
    scale = (norm.weight / (variance + norm.eps).sqrt()).view(1, -1, 1, 1)  # positive here
    low, high = ((end - mean.view(1, -1, 1, 1)) * scale + norm.bias.view(1, -1, 1, 1) for end in (low, high))
    low, high = through(first, low.relu().flatten(1), high.relu().flatten(1))
    low, high = low.relu(), high.relu()
    rows = margins_of(last.weight[None].expand(8, -1, -1), batch.y)
    offsets = margins_of(last.bias.expand(8, -1), batch.y)
    margins = (rows.clamp(min=0) * low + rows.clamp(max=0) * high).sum(2) + offsets
    plain = cross_entropy(margins)
    torch.testing.assert_close(loss, plain, **EXACT)
    weights = list(smooth.parameters())
    torch.testing.assert_close(torch.autograd.grad(loss, weights), torch.autograd.grad(plain, weights), **EXACT)


@every
def test_its_gradient_is_the_slope_of_the_loss(make, smooth, batch, context):
    """By central differences, along a random direction of all weights; crafted points stay."""
    defence, place = make(tightness=0.3, kappa=0.4), context(smooth, batch)
    generator = torch.Generator().manual_seed(2)
    directions = [torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in smooth.parameters()]

    def moved(step):
        with torch.no_grad():
            for weight, direction in zip(smooth.parameters(), directions, strict=True):
                weight.add_(direction, alpha=step)
        return defence.loss(smooth, batch, place).value

    with place.craft_once():
        slopes = gradients(moved(0.0), smooth)
        slope = sum((g * d).sum() for g, d in zip(slopes, directions, strict=True))
        step = 1e-6
        difference = moved(step).detach() - moved(-2 * step).detach()
    torch.testing.assert_close(slope, difference / (2 * step), rtol=1e-4, atol=1e-7)


@every
def test_kappa_mixes_both_terms(make, smooth, batch, context):
    models = [copy.deepcopy(smooth) for _ in range(3)]  # a pass moves the statistics that crafting reads
    points, bounds, mixed = (
        make(kappa=kappa).loss(model, batch, context(model, batch)).value
        for kappa, model in zip((1.0, 0.0, 0.25), models, strict=True)
    )
    torch.testing.assert_close(mixed, 0.25 * points + 0.75 * bounds, **EXACT)
    assert bounds > points + 0.01


@pytest.mark.parametrize("make", [METHODS["ibp"], METHODS["crown-ibp"], METHODS["crown-ibp, lines"]])
def test_no_perturbed_input_has_a_larger_loss_than_the_bounds(make, batch, context, network):
    for seed in range(5):
        model = network(seed=seed, dropout=0.0, dtype=torch.float64).eval()
        bound = make(kappa=0.0).loss(model, batch, context(model, batch)).value
        generator = torch.Generator().manual_seed(seed)
        for _ in range(20):
            delta = EPS * torch.randn(batch.x.shape, generator=generator, dtype=batch.x.dtype).sign()
            assert F.cross_entropy(model(batch.x + delta), batch.y) <= bound


def test_bounds_are_around_the_inputs_where_the_other_term_is_of_perturbed_ones(smooth, batch, context):
    model = smooth.eval()
    plain, perturbed = (
        IBPTraining(**WHOLE, steps=steps, kappa=0.0).loss(model, batch, context(model, batch)).value for steps in (0, 2)
    )
    torch.testing.assert_close(plain, perturbed, **EXACT)


def test_linear_bounds_are_tighter_than_intervals_while_eps_is_small(smooth, batch, context):
    """And beta between them mixes the bounds, not the losses."""
    settings = {"kappa": 0.0, "threat": Threat(eps=0.02)}
    lines, intervals, mixed = (
        METHODS["crown-ibp"](beta=beta, **settings).loss(smooth, batch, context(smooth, batch)).value
        for beta in (1.0, 0.0, 0.5)
    )
    assert lines < mixed < intervals
    assert mixed < (lines + intervals) / 2  # the loss is convex in the bounds


def test_eps_and_weights_follow_progress(smooth, batch, context):
    defence = CROWNIBPTraining(threat=Threat(eps=EPS), rise=(0.1, 0.5))
    logs = [
        defence.loss(smooth, batch, context(smooth, batch, progress=progress)).logs for progress in (0.05, 0.2, 0.5)
    ]
    assert [float(log["eps"]) for log in logs] == pytest.approx([0.0, EPS * 0.25 / 3.25, EPS])
    assert ["bounds" in log for log in logs] == [False, True, True]  # kappa is 1 before eps rises


@pytest.mark.parametrize("make", [METHODS["ibp"], METHODS["sabr"]])
def test_a_wrapper_that_scales_the_budget_scales_the_box(make, smooth, batch, context):
    twin, half = copy.deepcopy(smooth), context(smooth, batch)
    half.scale = 0.5
    scaled = make(kappa=0.0).loss(smooth, batch, half).value
    smaller = make(kappa=0.0, threat=Threat(eps=EPS / 2)).loss(twin, batch, context(twin, batch)).value
    torch.testing.assert_close(scaled, smaller, **EXACT)


def blobs():
    """Two classes of points, at least 0.3 apart in linf."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(96) % 2
    x = 0.25 + 0.5 * y[:, None] + 0.1 * (torch.rand(96, 2, generator=generator) - 0.5)
    parts = ((x[:64].numpy(), y[:64].numpy()), (x[64:].numpy(), y[64:].numpy()))
    return from_arrays("blobs", *parts, classes=["low", "high"], box=(0.0, 1.0), provenance="made here.", val=16)


@every
def test_blobs_are_verified_everywhere_at_the_eps_trained_for(make, nets):
    data, threat = blobs(), Threat(eps=0.12)
    model = nets.seeded(lambda: nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2)), 0)
    defence = make(threat=threat, rise=(0.1, 0.5))
    optimiser = Optimiser(name="adam", lr=0.05)
    trained = fit(model, data, defence, epochs=12, batch_size=16, optimiser=optimiser, validate_with="none")
    x, y, _ = data.test.take(torch.arange(len(data.test)))
    assert certificates.certify(model, x, y, threat=threat, method="crown-ibp").verified.all()
    assert trained.history[-1]["certified"] == 1.0
    assert trained.history[-1]["eps"] == pytest.approx(0.12)


def test_the_history_has_what_certifying_validation_inputs_gives(images, network, train):
    model = network(dropout=0.0)
    defence = IBPTraining(threat=Threat(eps=0.01), rise=(0.0, 0.5))
    row = train(model, defence).history[-1]
    x, y, _ = images.val.take(torch.arange(len(images.val)))
    certificate = certificates.certify(model, x, y, threat=Threat(eps=0.01), method="ibp")
    assert row["certified"] == int(certificate.verified.sum()) / len(x)


def test_layers_are_regularised_around_those_that_perturb(network, train):
    for make in (METHODS["mtl-ibp"], METHODS["sabr"]):
        row = train(network(), AWP(LayerRegularised(make(), layers=["2"], gamma=0.5))).history[-1]
        assert row["displacement 2"] > 0
    with pytest.raises(UserError, match=r"^IBPTraining makes no perturbed pass .* needs; it makes one with steps=8$"):
        train(network(), LayerRegularised(METHODS["ibp"](), layers=["2"], gamma=0.5))
    with pytest.raises(UserError, match=r"^crown-ibp attacks nothing while the network is trained"):
        train(network(), EpsWarmup(METHODS["crown-ibp"](), epochs=1.0))


def test_what_cannot_be_bounded_is_named_before_training(images, train):
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Hardshrink(), nn.Linear(8, 4))
    with pytest.raises(UserError, match=r"^cannot bound hardshrink in layer 2: "):
        train(model, METHODS["ibp"]())
    with pytest.raises(UserError, match=r"^sabr lets eps rise to what it is trained for, which must be finite"):
        train(model, METHODS["sabr"](threat=Threat(eps=float("inf"), box=None)))


@pytest.mark.parametrize(
    ("make", "settings", "said"),
    [
        ("ibp", {"rise": (0.5, 0.4)}, "rise must be two shares of the training, the earlier one first; got (0.5, 0.4)"),
        ("ibp", {"kappa": (1.0, 2.0)}, "kappa must be a number in [0, 1]; got 2.0"),
        ("ibp", {"steps": -1}, "steps must be a whole number of 0 or more; got -1"),
        ("sabr", {"steps": 0}, "steps must be a whole number of 1 or more; got 0"),
        ("sabr", {"small": 0.0}, "small must be a number in (0, 1]; got 0.0"),
        ("crown-ibp", {"beta": 1.5}, "beta must be a number in [0, 1]; got 1.5"),
        ("crown-ibp", {"initialise": 1}, "initialise must be True or False; got 1"),
    ],
)
def test_other_settings_are_refused(make, settings, said):
    with pytest.raises(UserError, match=f"^{re.escape(said)}$"):
        METHODS[make](**settings)


def test_initial_weights_keep_intervals_as_wide_as_they_are(nets):
    """A layer and a ReLU: n inputs of width 1 give n E|w| = 2, of which the ReLU leaves half."""
    layers = [part for _ in range(4) for part in (nn.Linear(400, 400), nn.ReLU())]
    model = nets.seeded(lambda: nn.Sequential(*layers), 0)
    torch.manual_seed(0)
    initialise_for_intervals(model)
    assert float(model[0].weight.detach().std()) == pytest.approx((2 * torch.pi) ** 0.5 / 400, rel=0.01)
    low, high = torch.full((1, 400), 0.4), torch.full((1, 400), 0.6)
    for layer in model.requires_grad_(False):
        if isinstance(layer, nn.Linear):
            centre, radius = layer((low + high) / 2), (high - low) / 2 @ layer.weight.abs().T
            low, high = centre - radius, centre + radius
        else:
            low, high = low.relu(), high.relu()
    assert 0.1 < float((high - low).mean()) < 0.4


def test_growth_is_of_intervals_more_than_twice_as_wide_as_the_inputs():
    widths = [torch.tensor(value) for value in (0.2, 0.3, 0.4, 0.8, 2.0)]
    assert float(growth(widths)) == pytest.approx((0 + 0 + 0.25 + 0.4) / 4 / 0.5)
    assert growth(widths[:1]) == 0
