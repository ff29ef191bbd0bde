"""Each variant by hand on small trunks, and what an evaluator or an attacker does to such a network."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from buttress import attacks, models
from buttress.attacks.composed.variant import variants_of
from buttress.errors import UserError
from buttress.models.architectures.self_gradient import SelfGradient
from buttress.models.blocks.two_pass_trunks import PassNorm, Trunk
from buttress.threat import Threat

SIDE = 3
KINDS = ("input", "feature", "residual")


def linear(variant="input", normalise="max", **options):
    """A trunk that is one linear layer, in float64."""
    settings = {"gradient": "own", "score": "cross-entropy", "detach": False, "auxiliary": 0.5, "eta": 0.25}
    torch.manual_seed(0)
    inputs = 2 if variant == "input" else 1
    head = nn.Sequential(nn.Flatten(), nn.Linear(inputs * SIDE * SIDE, 4))
    settings |= {"channels": 1, "activation": "relu", **options}
    return SelfGradient(Trunk([nn.Identity()], head, (1,)), variant=variant, normalise=normalise, **settings).double()


def images(count=5, side=SIDE, seed=1):
    return torch.rand(count, 1, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def small(seed=0, **options):
    return models.create("self-gradient", width=4, seed=seed, **options).eval()


def by_hand(weight, bias, x):
    """Logits of a linear network, and the gradient of the sum of CE(z, argmax z): W^T (softmax - one hot)."""
    z = x.flatten(1) @ weight.T + bias
    p = z.softmax(1) - F.one_hot(z.argmax(1), z.shape[1])
    return z, p @ weight


SCALED = {
    "max": lambda g: g / g.abs().amax(1, keepdim=True),
    "l2": lambda g: g / g.norm(dim=1, keepdim=True) * SIDE,
    "sign": torch.sign,
}


@pytest.mark.parametrize("normalise", list(SCALED))
@pytest.mark.parametrize("kind", ["input", "residual"])
def test_the_answer_of_a_linear_trunk_by_hand(kind, normalise):
    net, x = linear(kind, normalise), images()
    layer, rows = net.trunk.head[1], x.flatten(1)
    own = layer.weight[:, : SIDE * SIDE]
    first, gradient = by_hand(own, layer.bias, x)
    seen = SCALED[normalise](gradient)
    if kind == "input":
        answer = first + seen @ layer.weight[:, SIDE * SIDE :].T
    else:
        answer = (rows - 0.25 * seen) @ own.T + layer.bias
    assert torch.allclose(net.first_pass(x), first)
    assert torch.allclose(net(x), answer, rtol=1e-9, atol=1e-9)


def test_the_answer_with_feature_gradients_by_hand():
    net, x = linear("feature"), images()
    (block,), layer = net.corrections, net.trunk.head[1]
    assert torch.equal(net(x), net.first_pass(x))  # a correction is nothing at first
    nn.init.normal_(block.conv2.weight)
    _, gradient = by_hand(layer.weight, layer.bias, x)
    h = torch.cat([x, SCALED["max"](gradient).view_as(x)], 1)
    answer = layer((x + block.conv2(block.relu(block.norm(block.conv1(h))))).flatten(1))
    assert torch.allclose(net(x), answer, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(net(x), net.first_pass(x), atol=1e-3)


def test_the_gradient_of_the_entropy_by_hand():
    net, x = linear(score="entropy"), images()
    start = x.clone().requires_grad_()
    z = F.linear(start.flatten(1), net.trunk.head[1].weight[:, : SIDE * SIDE], net.trunk.head[1].bias)
    (gradient,) = torch.autograd.grad(torch.distributions.Categorical(logits=z).entropy().sum(), start)
    seen = SCALED["max"](gradient.flatten(1))
    assert torch.allclose(net(x), z + seen @ net.trunk.head[1].weight[:, SIDE * SIDE :].T, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("kind", ["input", "residual"])
def test_the_answer_is_differentiated_through_the_gradient(kind):
    net, x = linear(kind), images(2).requires_grad_()
    assert torch.autograd.gradcheck(net, (x,))
    detached = linear(kind, detach=True)
    assert torch.equal(detached(x), net(x))
    (through,) = torch.autograd.grad(net(x)[:, 0].sum(), x)
    (around,) = torch.autograd.grad(detached(x)[:, 0].sum(), x)
    # With the gradient as a constant only the path by the image itself is left, which is linear.
    assert torch.allclose(around.flatten(1), net.trunk.head[1].weight[0, : SIDE * SIDE].expand(2, -1))
    assert not torch.allclose(through, around, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_second_derivatives_reach_the_weights(kind):
    """A weight that the second pass cannot see still moves the answer, by the gradient that it gave."""
    x = images(4, 8).float()
    own, cut = small(variant=kind), small(variant=kind, detach=True)
    for net in (own, cut):
        for part in getattr(net, "corrections", []):
            nn.init.constant_(part.conv2.weight, 0.1)
    gradients = [torch.autograd.grad(net(x).square().sum(), list(net.parameters())) for net in (own, cut)]
    assert torch.equal(own(x), cut(x))
    first = dict(zip([name for name, _ in own.named_parameters()], zip(*gradients, strict=True), strict=True))
    through, around = first["trunk.head.1.weight"]
    assert through.isfinite().all()
    assert not torch.allclose(through, around, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_control_takes_no_gradient_and_is_as_large(kind):
    x = images(4, 8).float()
    net, own = small(variant=kind, gradient="none", detach=False), small(variant=kind)
    sizes = [sum(p.numel() for p in one.parameters()) for one in (own, net)]
    assert sizes[0] - sizes[1] == (kind == "residual")  # its learned step
    calls = []
    net.trunk.register_forward_pre_hook(lambda *_: calls.append(1))
    hooked = net.trunk.head.register_forward_pre_hook(lambda *_: calls.append(1))
    net(x)
    hooked.remove()
    assert calls == [1]  # one pass
    logits, auxiliary = net.forward_with_auxiliary(x, torch.zeros(4).long())
    assert torch.equal(logits, net(x))
    assert auxiliary == 0
    assert (net.attack_variants(), net.ablations()) == ({}, {})
    if kind == "input":
        trunk = net.trunk
        by_hand = trunk.head(trunk.stages[1](trunk.stages[0](torch.cat([x, x], 1))))
        assert torch.equal(net(x), by_hand)


@pytest.mark.parametrize("detach", [False, True])
def test_the_auxiliary_term_is_the_first_passes_cross_entropy(detach):
    net, x, y = small(auxiliary=0.25, detach=detach), images(4, 8).float(), torch.arange(4)
    logits, auxiliary = net.forward_with_auxiliary(x, y)
    assert torch.equal(logits, net(x))
    assert torch.allclose(auxiliary, 0.25 * F.cross_entropy(net.first_pass(x), y))
    gradients = torch.autograd.grad(auxiliary, list(net.trunk.parameters()))
    expected = torch.autograd.grad(0.25 * F.cross_entropy(net.first_pass(x), y), list(net.trunk.parameters()))
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(gradients, expected, strict=True))
    assert small(auxiliary=0).forward_with_auxiliary(x, y)[1] == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", ["none", "batch", "group"])
def test_an_evaluator_may_turn_gradients_off(kind, norm):
    net, x = small(variant=kind, norm=norm), images(6, 8).float()
    for value in net.state_dict().values():
        if value.is_floating_point():
            value.add_(0.05)
    expected = net(x.clone().requires_grad_()).detach()
    with torch.no_grad():
        assert torch.allclose(net(x), expected, atol=1e-6)
        assert not net(x).requires_grad
        assert torch.is_grad_enabled() is False
    with torch.inference_mode():
        assert torch.allclose(net(x.clone()), expected, atol=1e-6)
        assert torch.is_inference_mode_enabled()
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    assert torch.allclose(net(x), expected, atol=1e-6)
    assert torch.allclose(torch.cat([net(one[None]) for one in x]), expected, rtol=1e-4, atol=1e-5)
    assert torch.allclose(pickle.loads(pickle.dumps(copy.deepcopy(net)))(x), expected, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert net(x).isfinite().all()


def test_each_pass_has_statistics_of_its_own():
    net, x = small(norm="batch").train(), images(16, 8).float()
    norm = net.trunk.stages[0][1]
    assert isinstance(norm, PassNorm)
    net(x)
    convolved = [net.trunk.stages[0][0](torch.cat([x, torch.zeros_like(x)], 1)).mean((0, 2, 3))]
    assert torch.allclose(norm.statistics[0].running_mean, 0.1 * convolved[0], atol=1e-6)
    assert not torch.allclose(norm.statistics[0].running_mean, norm.statistics[1].running_mean, atol=1e-4)
    assert not any(isinstance(module, PassNorm) for module in small(norm="batch", gradient="none").modules())


def test_variants_are_made_of_the_live_weights():
    net, x = small(), images(5, 8).float()
    found = variants_of(net)
    assert list(found) == ["detached", "first pass", "smooth"]
    assert torch.equal(found["detached"](x), net(x))
    assert torch.equal(found["first pass"](x), net.first_pass(x))
    assert list(found["smooth"].state_dict()) == list(net.state_dict())
    assert not any(isinstance(module, nn.ReLU) for module in found["smooth"].modules())
    assert sum(isinstance(module, nn.ReLU) for module in net.modules()) == 3
    before = found["smooth"](x)
    with torch.no_grad():
        net.trunk.head[1].weight.mul_(1.5)
    assert not torch.allclose(found["smooth"](x), before)
    assert torch.equal(found["detached"](x), net(x))
    smooth = small(activation="softplus")
    smooth.load_state_dict(net.state_dict())
    assert torch.equal(found["smooth"](x), smooth(x))
    assert list(small(detach=True).attack_variants()) == ["not detached", "first pass", "smooth"]


def test_the_smooth_variant_of_a_sign_has_the_gradient_that_the_sign_hides():
    net, x = linear(normalise="sign"), images(3).requires_grad_()
    smooth = net.attack_variants()["smooth"]
    hidden, shown = (torch.autograd.grad(one(x)[:, 0].sum(), x)[0].flatten(1) for one in (net, smooth))
    own = net.trunk.head[1].weight[0, : SIDE * SIDE].expand(3, -1)
    assert torch.allclose(hidden, own)  # the sign passes nothing on
    assert not torch.allclose(shown, own, atol=1e-3)
    _, gradient = by_hand(net.trunk.head[1].weight[:, : SIDE * SIDE], net.trunk.head[1].bias, x)
    seen = torch.tanh(10 * gradient / gradient.abs().amax(1, keepdim=True))
    answer = smooth.first_pass(x) + seen @ net.trunk.head[1].weight[:, SIDE * SIDE :].T
    assert torch.allclose(smooth(x), answer, rtol=1e-6, atol=1e-8)


def test_ablations_show_nothing_or_noise():
    net, x = small(), images(5, 8).float()
    found = net.ablations()
    assert torch.equal(found["zero gradient"](x), net.first_pass(x))
    torch.manual_seed(3)
    noisy = found["noise for the gradient"](x)
    assert not torch.allclose(noisy, net(x), atol=1e-3)
    assert not torch.allclose(noisy, net.first_pass(x), atol=1e-3)
    assert net.replacement == ""


def test_the_residual_trunk_for_images_of_any_size():
    net = models.create("self-gradient", trunk="resnet18", width=4, channels=3, seed=0)
    assert sum(isinstance(module, PassNorm) for module in net.modules()) == 20
    for variant in KINDS:
        one = models.create("self-gradient", trunk="resnet18", width=4, channels=3, variant=variant, seed=0).eval()
        assert one(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    group = models.create("self-gradient", trunk="resnet18", width=8, norm="group", seed=0)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in group.modules())
    plain = models.create("self-gradient", trunk="resnet18", width=4, gradient="none", variant="residual", seed=0)
    theirs = models.create("resnet18", channels=1, width=4, seed=0)
    for mine, value in zip(plain.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert mine.shape == value.shape
    plain.load_state_dict(dict(zip(plain.state_dict(), theirs.state_dict().values(), strict=True)))
    x = images(3, 16).float()
    assert torch.allclose(plain.eval()(x), theirs.eval()(x), atol=1e-6)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_attacks_in_any_precision(norm):
    """In float32 every input's loss rises; bf16, whose roundings differ by machine, finds most of that on the mean."""
    net, x, y = small(norm=norm), images(6, 8).float(), torch.arange(6)
    attack = attacks.PGD(threat=Threat(eps=0.2), steps=5)
    found = {name: attack(net, x, y, precision=name).loss for name in ("fp32", "folded", "twin", "bf16")}
    clean = F.cross_entropy(net(x), y, reduction="none").detach()
    assert (found["fp32"] > clean).all()
    rises = {name: float((loss - clean).mean()) for name, loss in found.items()}
    assert min(rises["twin"], rises["bf16"]) > rises["fp32"] / 2
    assert torch.allclose(found["folded"], found["fp32"], rtol=0.05)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"variant": "inputs"}, "variant must be one of .*input.*; got 'inputs'"),
        ({"gradient": "true"}, "gradient must be one of .*; got 'true'"),
        ({"normalise": "linf"}, "normalise must be one of .*; got 'linf'"),
        ({"score": "label"}, "score must be one of .*; got 'label'"),
        ({"trunk": "vgg"}, "trunk must be one of .*; got 'vgg'"),
        ({"trunk": "resnet18", "norm": "none"}, "norm must be batch or group"),
        ({"detach": 1}, "detach must be True or False; got 1"),
        ({"auxiliary": -1}, "auxiliary must be a finite number of 0 or more; got -1"),
        ({"eta": math.nan}, "eta must be a finite number; got nan"),
        ({"activation": "tanh"}, "activation must be one of .*; got 'tanh'"),
    ],
)
def test_options_that_mean_nothing(options, told):
    with pytest.raises(UserError, match=told):
        models.create("self-gradient", **options)


def test_images_of_another_size_are_told_in_one_line():
    with pytest.raises(UserError, match="takes 1 channel of images of 8x8 pixels; give such inputs"):
        small()(torch.rand(2, 1, 16, 16))
