"""Networks that compute in half precision, as a whole or in part: every analysis gives what it gives in single."""

import functools

import pytest
import torch
from torch import nn

from buttress import layers
from buttress.attacks.corruptions.noises import Gaussian
from buttress.attacks.gradient.fgsm import FGSM
from buttress.audits.channels import Channels
from buttress.audits.lipschitz.audit import Lipschitz
from buttress.defences import Batch, StepContext
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.layer_regularised import LayerRegularised
from buttress.layers.block_calls import recorded_calls
from buttress.threat import Threat

X = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(6) % 3
STEP = FGSM(threat=Threat(eps=0.1))
NOISE = Gaussian(std=0.1)
CLOSE = 0.03  # three digits of bfloat16, over a few layers


class Small(nn.Module):
    """A convolution, BatchNorm and two linear layers."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU()
        self.inner, self.gelu, self.head = nn.Linear(48, 8), nn.GELU(), nn.Linear(8, 3)

    def trunk(self, x):
        return self.gelu(self.inner(self.act(self.norm(self.conv(x))).flatten(1)))

    def forward(self, x):
        return self.head(self.trunk(x))


class HalfTrunk(Small):
    """Casts by itself, before and after its trunk."""

    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype
        for part in (self.conv, self.norm, self.inner):
            part.to(dtype)

    def forward(self, x):
        return self.head(self.trunk(x.to(self.dtype)).float())


class HalfHead(Small):
    def __init__(self):
        super().__init__()
        self.head.bfloat16()

    def forward(self, x):
        return self.head(self.trunk(x).bfloat16())


class Autocast(Small):
    """Its trunk, or all of it, under an autocast of its own."""

    def __init__(self, whole):
        super().__init__()
        self.whole = whole

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            if self.whole:
                return super().forward(x)
            h = self.trunk(x)
        return self.head(h.float())


class Single(nn.Linear):
    """A linear layer that casts to its own precision first."""

    def forward(self, x):
        return super().forward(x.float())


NETWORKS = {
    "bfloat16": lambda: Small().bfloat16(),
    "float16": lambda: Small().half(),
    "bfloat16 trunk": lambda: HalfTrunk(torch.bfloat16),
    "float16 trunk": lambda: HalfTrunk(torch.float16),
    "bfloat16 head": HalfHead,
    "autocast trunk": lambda: Autocast(False),
    "autocast": lambda: Autocast(True),
}


@pytest.fixture(params=NETWORKS)
def network(request, nets):
    return nets.seeded(NETWORKS[request.param]).eval()


@pytest.fixture(scope="module")
def in_single(nets):
    """What an analysis gives of the same network in single precision, computed once."""
    return functools.cache(lambda analysis, *options: analysis(nets.seeded(Small).eval(), *options))


def displacement(model):
    """Of a noise: an attack on rounded weights takes other steps."""
    return layers.sustainability(model, [(X, Y)], NOISE, "learnable").mean


def tolerated(model):
    return layers.tolerance(model, [(X, Y)], NOISE, ["gelu"], steps=10, bisections=6).median_rho


def test_displacement_and_tolerance(network, in_single):
    torch.testing.assert_close(displacement(network), in_single(displacement), rtol=CLOSE, atol=0)
    torch.testing.assert_close(tolerated(network), in_single(tolerated), rtol=0.1, atol=0, check_dtype=False)


def loss_and_gradient(model):
    """The value of AT-LR and the length of its gradient."""
    batch = Batch(X, Y, torch.arange(6))
    defence = LayerRegularised(AdversarialTraining(STEP), ["act", "gelu"], 1.0)
    loss = defence.loss(model, batch, StepContext(model, batch, index=0, seed=1)).value
    loss.backward()
    return loss.detach().float(), torch.stack([p.grad.float().norm() for p in model.parameters()]).norm()


def test_regularised_training(network, in_single):
    torch.testing.assert_close(loss_and_gradient(network), in_single(loss_and_gradient), rtol=CLOSE, atol=0)


def blocks(model):
    asked = Lipschitz(perturbations=[NOISE], exact=6, branches=False)
    return {row["name"]: row for row in asked(model, [(X, Y)]).data["blocks"]}


def test_blocks(network, in_single):
    """By an exact decomposition, and iterations that converge as in single precision do."""
    found, expected = blocks(network), in_single(blocks)
    assert found.keys() == expected.keys()
    for name, row in found.items():
        assert row["clean"]["converged"] == 1
        assert row["clean"]["sigma"]["mean"] == pytest.approx(row["clean"]["exact"]["mean"], rel=2e-3)
        assert row["clean"]["sigma"]["mean"] == pytest.approx(expected[name]["clean"]["sigma"]["mean"], rel=CLOSE)


def channels(model, layer):
    return Channels(attack=STEP, layer=layer)(model, [(X, Y)]).data["mean"]


@pytest.mark.parametrize("layer", [None, "conv"])
def test_channels(layer, network, in_single):
    found, expected = channels(network, layer), in_single(channels, layer)
    for name in ("pearson_clean", "negative_clean"):
        assert found[name] == pytest.approx(expected[name], abs=CLOSE)


def test_a_block_with_casts_of_its_own_is_left_out_by_name(nets):
    line = "computes in half precision inside, too coarse for products with its Jacobian"
    for build in (lambda: Autocast(True), lambda: HalfTrunk(torch.bfloat16)):
        model = nets.seeded(lambda build=build: nn.Sequential(build(), Single(3, 3))).eval()
        calls, reasons = recorded_calls(model, X, ["0", "1"])
        assert (list(calls), reasons) == (["1"], {"0": line})
