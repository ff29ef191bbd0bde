"""Numbers at the ends of their range: sizes whose squares overflow, half precision, infinities, hundreds of layers."""

import math

import pytest
import torch
import torch.nn.functional as F
from tests.layers.test_every_network import CLOSE, in_batches, waved
from tests.layers.zoo.network import FEATURES, Network, OneLayer, Wave, displacement, distance, inputs, logits
from torch import nn

from buttress.layers import LayerProfile, sustainability, tolerance


class Eighths(Wave):
    """A noise of one eighth, which half precision adds exactly."""

    def perturb(self, oracle, x, y, random):
        return x + ((x * 8) % 3 - 1) / 8


class Scaled(OneLayer):
    """Activations of a size whose square float32 has no number for."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, x):
        return self.head(F.relu(self.fc(x) * self.size) / self.size)

    def by_hand(self, x):
        return {"relu": self.fc(x).clamp(min=0) * self.size}

    def rest(self, value, x):
        return self.head(value / self.size)


@pytest.mark.parametrize("size", [1e-25, 1e20])
def test_sizes_whose_squares_are_no_float32_numbers(size, nets):
    network, x = nets.seeded(lambda: Scaled(size)).eval(), inputs(5)
    with torch.no_grad():
        y = logits(network, x).argmax(1)
        expected = displacement(network, x, waved(x))["relu"]
    profile = sustainability(network, [(x, y)], Wave())
    torch.testing.assert_close(profile.values[0, 0], expected.float(), **CLOSE)
    plain = nets.seeded(lambda: Scaled(1.0)).eval()
    found = tolerance(network, [(x, y)], Wave(), steps=6, bisections=3)
    torch.testing.assert_close(found.rho[0], distance(plain, x, y).float(), rtol=0.04, atol=1e-6)


class Overflowing(nn.Module):
    """An activation that overflows where the first feature is above 0.9, and one that does not."""

    def forward(self, x):
        beyond = F.relu((x[:, :1] > 0.9) * 3e38 * 10 + x)
        return F.softplus(x[:, :3]) + 0 * beyond.clamp(max=1)[:, :3]


def test_one_infinite_displacement_is_left_out_and_stays_so_when_saved():
    x = inputs(5)
    x[:, 0], x[2, 0] = 0.3, 0.82
    profile = sustainability(Overflowing(), in_batches(x, [5]), Wave(size=0.1))
    x_adv = Wave(size=0.1).perturb(None, x, None, None)
    assert (x_adv[:, 0] > 0.9).tolist() == [False, False, True, False, False]
    truth = ((x_adv - x).norm(dim=1) / x.norm(dim=1))[torch.arange(5) != 2]
    assert profile.excluded.tolist() == [[1, 0]]
    assert float(profile.mean[0, 0]) == pytest.approx(float(truth.mean()), rel=1e-5)
    assert math.isfinite(profile.sigma())
    for values in (False, True):
        again = LayerProfile.from_dict(profile.to_dict(values=values))
        assert again.mvl(0.1) == profile.mvl(0.1)
        assert again.mu() == pytest.approx(profile.mu(), rel=1e-6)


class Exact(Network):
    """Sums and differences of two features: half precision rounds none of them."""

    def __init__(self, dtype):
        super().__init__(12)
        self.fc = nn.Linear(FEATURES, 12, bias=False)
        with torch.no_grad():
            self.fc.weight.copy_(torch.eye(12).repeat(1, 2) * torch.tensor([1.0, -1.0]).repeat_interleave(12))
        self.to(dtype)

    def forward(self, x):
        return self.head(F.relu(self.fc(x)))

    def by_hand(self, x):
        return {"relu": (x[:12] - x[12:]).clamp(min=0)}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_networks_of_half_precision(dtype, nets):
    network = nets.seeded(lambda: Exact(dtype)).eval()
    x = (inputs(6) * 8).round() / 8
    shift = Eighths()
    profile = sustainability(network, in_batches(x, [6]), shift)
    expected = displacement(network, x, shift.perturb(None, x, None, None))["relu"]
    torch.testing.assert_close(profile.values[0, 0], expected.float(), **CLOSE)
    wide = nets.seeded(lambda: Exact(torch.float32)).eval()
    wide.load_state_dict(network.state_dict())
    y = logits(wide, x).argmax(1)
    found = tolerance(network, [(x, y)], shift, steps=6, bisections=3)
    clear = distance(wide, x, y) > 0.05  # nearer ones are lost in the rounding of the logits
    assert int(clear.sum()) >= 3
    torch.testing.assert_close(found.rho[0][clear], distance(wide, x, y)[clear].float(), rtol=0.06, atol=0)


def test_five_hundred_layers(nets):
    class Deep(Network):
        def __init__(self):
            super().__init__(FEATURES)
            self.body = nn.Sequential(*(part for _ in range(500) for part in (nn.Linear(FEATURES, FEATURES), nn.ELU())))
            for layer in self.body[::2]:
                nn.init.orthogonal_(layer.weight)

        def forward(self, x):
            return self.head(self.body(x))

        def by_hand(self, x):
            out = {}
            for k in range(0, 1000, 2):
                x = self.body[k](x)
                x = out[f"body.{k + 1}"] = torch.where(x > 0, x, x.exp() - 1)
            return out

    network, x = nets.seeded(Deep).eval(), inputs(3)
    profile = sustainability(network, in_batches(x, [3]), Wave())
    with torch.no_grad():
        expected = displacement(network, x, waved(x))
    assert profile.layers == list(expected)
    torch.testing.assert_close(profile.values[0], torch.stack(list(expected.values())).float(), rtol=1e-3, atol=1e-5)


class MixedPrecision(OneLayer):
    """A part in half precision inside a network in full precision, by weights that round nothing there."""

    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype
        with torch.no_grad():
            self.fc.weight.copy_(torch.eye(6).repeat(1, 4))
            self.fc.bias.fill_(-2.0)

    def forward(self, x):
        with torch.autocast("cpu", dtype=self.dtype):
            h = F.relu(self.fc(x))
        return self.head(h.float())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_inside_a_network(dtype, nets):
    network, shift = nets.seeded(lambda: MixedPrecision(dtype)).eval(), Eighths()
    x = (inputs(6) * 8).round() / 8
    with torch.no_grad():
        y = logits(network, x).argmax(1)
        expected = displacement(network, x, shift.perturb(None, x, None, None))["relu"]
    profile = sustainability(network, in_batches(x, [6]), shift)
    torch.testing.assert_close(profile.values[0, 0], expected.float(), **CLOSE)
    found = tolerance(network, [(x, y)], shift, steps=6, bisections=3)
    torch.testing.assert_close(found.rho[0], distance(network, x, y).float(), rtol=0.06, atol=0)
