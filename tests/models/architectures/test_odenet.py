"""ODENet, TisODE and their CNN: sizes as published, formulas by hand, the steady-state term in training."""

import copy

import pytest
import torch

from buttress import attacks, audits, models
from buttress.audits.layers import Layers
from buttress.data.sets.digits import digits
from buttress.defences import Batch, StepContext
from buttress.defences.auxiliary_from import AuxiliaryFrom
from buttress.defences.standard import Standard
from buttress.errors import UserError
from buttress.models.blocks.ode_network import Denoising
from buttress.threat import Threat

SMALL = {"width": 4, "extractor": "small", "seed": 1}


def count(model):
    return sum(p.numel() for p in model.parameters())


def images(count_=5, side=8):
    return torch.rand(count_, 1, side, side, generator=torch.Generator().manual_seed(4))


def state(model, x):
    return model.block(model.extractor(x))


@pytest.mark.parametrize(("name", "parameters"), [("odenet", 142_410), ("tisode", 141_130), ("odenet-cnn", 141_130)])
def test_the_sizes_are_the_published_ones(name, parameters):
    model = models.create(name)
    assert count(model) == parameters
    assert model.extractor(torch.rand(1, 1, 28, 28)).shape == (1, 64, 13, 13)
    assert [m.num_groups for m in model.modules() if isinstance(m, torch.nn.GroupNorm)] == [32] * 4


def test_the_published_solvers_are_the_defaults():
    blocks = [models.create(name, width=2).block for name in ("odenet", "tisode")]
    assert [(b.solver, b.step, b.t0, b.t1, b.adjoint) for b in blocks] == [
        ("euler", 0.1, 0.0, 1.0, False),
        ("euler", 0.05, 0.0, 1.0, False),
    ]


@pytest.mark.parametrize(("extractor", "side", "left"), [("small", 8, 4), ("deep", 32, 7), ("deep", 28, 6)])
def test_other_extractors_fit_other_images(extractor, side, left):
    model = models.create("odenet", width=4, channels=3, classes=7, extractor=extractor)
    x = torch.rand(2, 3, side, side)
    assert model.extractor(x).shape == (2, 4, left, left)
    assert model(x).shape == (2, 7)


def test_the_blocks_by_their_formulas():
    x = images()
    with torch.no_grad():
        cnn, ode, tis = (models.create(n, **SMALL).double() for n in ("odenet-cnn", "odenet", "tisode"))
        x = x.double()
        z = cnn.extractor(x)
        f = cnn.block.func
        g = f.norm2(f.conv2(f.norm1(f.conv1(z)).relu())).relu()
        torch.testing.assert_close(state(cnn, x), z + g)
        tis.load_state_dict(cnn.state_dict())
        tis.block.step = 1.0
        torch.testing.assert_close(tis(x), cnn(x))  # one Euler step of length 1 is the residual block
        z, f = ode.extractor(x), ode.block.func
        for k in range(10):
            time = torch.full((5, 1, 4, 4), 0.1 * k, dtype=torch.float64)
            h = f.norm1(f.conv1(torch.cat([time, z], 1))).relu()
            z = z + 0.1 * f.norm2(f.conv2(torch.cat([time, h], 1))).relu()
        torch.testing.assert_close(state(ode, x), z)


@pytest.mark.parametrize("window", ["release", "paper"])
@pytest.mark.parametrize("norm", ["mean", "l2"])
def test_the_steady_state_term(window, norm):
    model, x = models.create("tisode", window=window, norm=norm, weight=0.3, **SMALL).double(), images().double()
    with torch.no_grad():
        logits, term = model.forward_with_auxiliary(x, torch.zeros(5))
        torch.testing.assert_close(logits, model(x))
        begin, end = {"release": (0.9, 1.5), "paper": (1.0, 2.0)}[window]
        z = model.block.states(model.extractor(x), (0.0, begin, end))
        moved = z[2] - z[1]  # f ends in a ReLU, so it is nowhere negative
    expected = moved.mean() if norm == "mean" else moved.flatten(1).square().sum(1).sqrt().mean()
    torch.testing.assert_close(term, 0.3 * expected)
    assert term > 0


def test_without_weight_it_is_the_plain_network_to_the_bit():
    model, x = models.create("tisode", weight=0.0, **SMALL), images()
    y = torch.arange(5)
    logits, term = model.forward_with_auxiliary(x, y)
    assert torch.equal(logits, model(x))
    assert term == 0
    losses = []
    for forward in (lambda: model(x), lambda: model.forward_with_auxiliary(x, y)[0] + term):
        loss = torch.nn.functional.cross_entropy(forward(), y)
        losses.append(torch.autograd.grad(loss, list(model.parameters())))
    assert all(torch.equal(a, b) for a, b in zip(*losses, strict=True))


def test_training_on_the_term_makes_the_network_steady():
    model, x = models.create("tisode", weight=1.0, **SMALL), images()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    terms = []
    for _ in range(15):
        optimiser.zero_grad()
        term = model.forward_with_auxiliary(x, torch.zeros(5))[1]
        term.backward()
        optimiser.step()
        terms.append(float(term.detach()))
    assert terms[-1] < 0.5 * terms[0]


def test_the_term_counts_from_its_epoch_on():
    model, x = models.create("tisode", **SMALL), images()
    batch = Batch(x, torch.arange(5), torch.arange(5))
    found = {}
    for epoch in (0.0, 4.99, 5.0, 30.0):
        context = StepContext(model, batch, epoch=epoch)
        found[epoch] = (AuxiliaryFrom(Standard()).loss(model, batch, context).value, len(context.auxiliary))
        plain = StepContext(model, batch)
        torch.testing.assert_close(found[epoch][0], Standard().loss(model, batch, plain).value)
        assert len(plain.auxiliary) == 1
    assert [terms for _, terms in found.values()] == [0, 0, 1, 1]
    with pytest.raises(UserError, match="epochs must be a finite number of 0 or more; got -1"):
        AuxiliaryFrom(epochs=-1)


@pytest.mark.parametrize("settings", [{}, {"solver": "rk4"}, {"solver": "dopri5"}, {"adjoint": True}])
@pytest.mark.parametrize("name", ["odenet", "tisode"])
def test_variants_are_the_same_weights_solved_otherwise(name, settings):
    model, x = models.create(name, **SMALL, **settings), images()
    keys = set(model.state_dict())
    variants = model.attack_variants()
    expected = {"finer solver": {"step": model.block.step / 2}, "rk4": {"solver": "rk4"}}
    if settings.get("solver") == "rk4":
        del expected["rk4"]
    if settings.get("solver") == "dopri5":
        expected = {"tighter tolerance": {"rtol": 1e-4, "atol": 1e-4}, "fixed steps": {"solver": "rk4"}}
    if settings.get("adjoint"):
        expected["not adjoint"] = {}
    assert set(variants) == set(expected)
    other = copy.deepcopy(model)
    other.block.adjoint = False
    before = dict(vars(other.block))
    for label, changes in expected.items():
        vars(other.block).update(before)
        vars(other.block).update(changes)
        assert torch.equal(variants[label](x), other(x)), label
    with torch.no_grad():
        model.fc.bias += 1
        other.fc.bias += 1
    assert torch.equal(variants[label](x), other(x))  # live weights
    assert set(model.state_dict()) == keys
    assert variants[label].network is model


def test_the_cnn_has_no_solver_to_vary():
    assert not hasattr(models.create("odenet-cnn", width=2), "attack_variants")


@pytest.mark.parametrize("settings", [{}, {"solver": "dopri5"}, {"solver": "rk4", "step": 0.5, "adjoint": True}])
def test_the_fast_paths_attack_the_same_network(settings):
    model, x = models.create("odenet", **SMALL, **settings).eval(), images()
    y = model(x).argmax(1)
    attack = attacks.PGD(threat=Threat(eps=0.3), steps=3)
    plain = attack(model, x, y, precision="fp32")
    for precision in ("folded", "twin"):
        fast = attack(model, x, y, precision=precision)
        assert torch.equal(model(fast.x_adv).argmax(1) != y, fast.success)
        assert abs(int(fast.success.sum()) - int(plain.success.sum())) <= 2


def test_denoising_by_hand():
    block = Denoising(3).double()
    z = torch.randn(2, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight, bias = block.conv.weight[:, :, 0, 0], block.conv.bias
    expected = torch.zeros_like(z)
    for n in range(2):
        points = z[n].reshape(3, 4).T
        for i, point in enumerate(points):
            likeness = torch.stack([point @ other / 3**0.5 for other in points]).exp()
            mean = sum(a * other for a, other in zip(likeness / likeness.sum(), points, strict=True))
            expected[n, :, i // 2, i % 2] = point + weight @ mean + bias
    torch.testing.assert_close(block(z), expected)


@pytest.mark.parametrize("name", ["odenet", "tisode", "odenet-cnn"])
def test_denoising_ends_the_extractor(name):
    model = models.create(name, denoise=True, **SMALL)
    assert isinstance(model.extractor[-1], Denoising)
    assert count(model) == count(models.create(name, **SMALL)) + 4 * 4 + 4
    assert model(images()).shape == (5, 10)


def test_the_audit_of_layers_tells_how_far_the_end_state_moves_and_what_could_not_be_paired():
    model, split = models.create("odenet", **SMALL).eval(), digits().test
    question = Layers(perturbations=(attacks.Gaussian(std=0.2),), layers=["extractor", "block"], tolerance_inputs=0)
    (finding,) = audits.run(model, split, [question], classes=[str(c) for c in range(10)], limit=6, seed=0)
    assert finding.data["layers"] == ["extractor", "block"]
    assert finding.data["unpaired"] == {}
    (before, after), (_, gain) = finding.data["mean"][0], finding.data["gain"]["gaussian"]
    assert gain == pytest.approx(after / before)
    assert after > 0


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"width": 5}, "width must be even, .* got 5"),
        ({"width": 0}, "width must be a whole number of 2 or more; got 0"),
        ({"channels": 0}, "channels must be a whole number of 1 or more; got 0"),
        ({"classes": 1}, "classes must be a whole number of 2 or more; got 1"),
        ({"extractor": "smal"}, "extractor must be one of .*small.*; got 'smal'"),
        ({"denoise": "yes"}, "denoise must be True or False; got 'yes'"),
        ({"solver": "eulr"}, "solver must be one of .*euler.*; got 'eulr'"),
        ({"step": -1}, "step must be a finite number above 0; got -1"),
        ({"extractor": ["deep"]}, r"extractor must be one of .*; got \['deep'\]"),
        ({"window": "papr"}, "window must be one of .*paper.*; got 'papr'"),
        ({"window": [1, 2]}, r"window must be one of .*; got \[1, 2\]"),
        ({"adjoint": "no"}, "adjoint must be True or False; got 'no'"),
        ({"weight": -1}, "weight must be a finite number of 0 or more; got -1"),
        ({"norm": "l1"}, "norm must be one of mean, l2; got 'l1'"),
    ],
)
def test_options_that_make_no_sense_are_told(options, line):
    with pytest.raises(UserError, match=line):
        models.create("tisode", **{"width": 2, **options})


def test_another_end_time():
    """The weights are those of time 1; time 0.5 in steps of 0.1 is five of the ten steps."""
    early, late = (models.create("odenet", seed=0, width=4, extractor="small", time=end).eval() for end in (0.5, 1.0))
    for one, other in zip(early.parameters(), late.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    states = late.block.states(late.extractor(x), (0.0, 0.5, 1.0))
    torch.testing.assert_close(early.classify(states[1]), early(x))
    with pytest.raises(UserError, match="time must be a finite number above 0; got 0"):
        models.create("odenet", width=4, time=0)
