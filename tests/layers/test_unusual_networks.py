"""What the zoo has no place for: routes by batch, networks that call themselves, tokens, exported programs."""

import pytest
import torch
import torch.nn.functional as F
from tests.layers.test_every_network import CLOSE, every_network, in_batches, made, waved
from tests.layers.zoo import aliases
from tests.layers.zoo.network import FEATURES, Network, OneLayer, Wave, displacement, distance, inputs, logits
from tests.layers.zoo.parts import exported
from torch import nn
from torch._higher_order_ops.map import map as map_operator

from buttress.errors import UserError
from buttress.layers import capture, layer_names, sustainability, tolerance
from buttress.tensor_forms import parts


class Routes(Network):
    """One of two layers, chosen by what the batch is like."""

    def __init__(self):
        super().__init__(6)
        self.dark, self.bright = (nn.Sequential(nn.Linear(FEATURES, 6), nn.GELU()) for _ in range(2))

    def forward(self, x):
        return self.head(F.relu(self.dark(x) if float(x.detach().mean()) < 0.5 else self.bright(x)))

    def by_hand(self, x):
        dark = bool(x.mean() < 0.5)
        value = F.gelu((self.dark if dark else self.bright)[0](x))
        return {"dark.1": value if dark else None, "bright.1": None if dark else value, "relu": value.clamp(min=0)}


def by_route():
    x = inputs(9)
    x[:3] -= 0.2
    x[3:] += 0.2
    return x


@pytest.mark.parametrize("sizes", [[3, 6], [3, 1, 5]])
def test_layers_are_listed_over_all_inputs_whatever_the_first_calls(sizes, nets):
    network, x = nets.seeded(Routes).eval(), by_route()
    small = Wave(size=0.01)
    profile = sustainability(network, in_batches(x, sizes), small)
    with torch.no_grad():
        expected = displacement(network, x, small.perturb(None, x, None, None))
        y = logits(network, x).argmax(1)
    assert set(profile.layers) == set(expected)
    assert profile.layers[-1] == "relu"
    for layer, row in zip(profile.layers, profile.values[0], strict=True):
        torch.testing.assert_close(row, expected[layer].float(), **CLOSE)
    data = list(zip(x.split(sizes), y.split(sizes), strict=True))
    found = tolerance(network, data, small, steps=6, bisections=3)
    assert found.layers == profile.layers
    truth = distance(network, x, y).float()
    torch.testing.assert_close(found.rho[found.layers.index("relu")], truth, rtol=0.04, atol=1e-6)
    for layer in ("dark.1", "bright.1"):
        assert torch.equal(found.rho[found.layers.index(layer)].isnan(), expected[layer].isnan())


@every_network
def test_a_name_means_the_same_layer_in_evaluation_and_in_training(name, nets):
    network, x = made(name, nets), inputs(4)
    for part in network.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    held = {}
    for mode in (False, True):
        network.train(mode)
        with torch.no_grad(), torch.random.fork_rng(), capture(network, network.layers) as values:
            torch.manual_seed(0)  # the same draws in both
            network(x)
        held[mode] = dict(values)
    assert [layer for layer in held[True] if layer in held[False]] == list(held[False])
    for layer, value in held[False].items():
        torch.testing.assert_close(parts(held[True][layer]), parts(value))


@pytest.mark.parametrize("name", aliases.NETWORKS)
def test_a_name_is_the_same_in_the_hundredth_pass(name, nets):
    """Python rewrites code that has run often."""
    network, x = made(name, nets).train(), inputs(2)
    with torch.no_grad(), capture(network) as held:
        network(x)
        first = list(held)
        for _ in range(99):
            network(x)
        assert list(held) == first


@every_network
def test_every_name_selects_that_layer_alone(name, nets):
    network, x = made(name, nets), inputs(4)
    for layer in layer_names(network, x, network.layers):
        assert layer_names(network, x, [layer]) == [layer]


class GateAlone(OneLayer):
    """An activation of a parameter, and none of the input."""

    def forward(self, x):
        return self.head(self.fc(x) * torch.sigmoid(self.head.bias.sum()))


def test_a_profile_in_which_nothing_was_measured_says_so(nets):
    profile = sustainability(nets.seeded(GateAlone), in_batches(inputs(6), [6]), Wave())
    assert profile.layers == []
    assert profile.left_out == {"sigmoid": "does not depend on the input"}
    assert profile.mvl(0.1) == []


def test_an_exported_program_is_seen_or_refused_in_one_line(nets):
    module = exported(nets.seeded(lambda: nn.Sequential(nn.Linear(FEATURES, 6), nn.ReLU(), nn.Linear(6, 3))))
    x = inputs(6)
    weight, bias = (module.get_parameter(f"0.{part}") for part in ("weight", "bias"))
    with torch.no_grad():
        clean, perturbed = (F.linear(part, weight, bias).clamp(min=0) for part in (x, waved(x)))
    profile = sustainability(module, in_batches(x, [6]), Wave())
    torch.testing.assert_close(profile.values[0], ((clean - perturbed).norm(dim=1) / clean.norm(dim=1))[None], **CLOSE)


class Augmented(OneLayer):
    """Adds what it says to the input turned round, in evaluation only, and asks for that first."""

    def forward(self, x):
        aside = 0
        if not self.training and not self.inside:
            self.inside = True
            aside = self(x.flip(-1))
            self.inside = False
        return aside + self.head(F.relu(self.fc(x)))

    inside = False


@pytest.mark.parametrize("mode", [True, False])
def test_a_network_that_calls_itself_keeps_the_names_of_its_own_pass(mode, nets):
    network, x = nets.seeded(Augmented).train(mode), inputs(4)
    with torch.no_grad(), capture(network) as held:
        network(x)
        expected = network.fc(x).clamp(min=0)
    torch.testing.assert_close(held["relu"], expected)
    assert len(held) == (1 if mode else 2)


def test_data_made_in_inference_mode(nets):
    network = nets.seeded(OneLayerWithRelu).eval()
    with torch.inference_mode():
        x = inputs(6)
        y = logits(network, x).argmax(1)
    plain, plain_y = x.clone(), y.clone()
    one, other = (sustainability(network, [pair], Wave()) for pair in ((x, y), (plain, plain_y)))
    assert torch.equal(one.values, other.values)
    one, other = (tolerance(network, [pair], Wave(), steps=4, bisections=2) for pair in ((x, y), (plain, plain_y)))
    assert torch.equal(one.rho, other.rho)


class OneLayerWithRelu(OneLayer):
    def forward(self, x):
        return self.head(F.relu(self.fc(x)))


class Tokens(Network):
    """Reads words by their numbers."""

    def __init__(self):
        super().__init__(6)
        self.embed = nn.Embedding(11, 6)

    def forward(self, x):
        return self.head(F.relu(self.embed(x)).mean(1))


def test_tokens_are_refused_in_one_line_but_their_embeddings_are_not(nets):
    network, x = nets.seeded(Tokens).eval(), torch.arange(30).reshape(6, 5) % 11
    y = torch.zeros(6, dtype=torch.int64)
    for analysis in (sustainability, tolerance):
        with pytest.raises(UserError, match=r"torch\.int64"):
            analysis(network, [(x, y)], Wave())
    assert layer_names(network, x) == ["relu"]
    embedded = network.embed(x).detach()
    profile = sustainability(FromEmbeddings(network), [(embedded, y)], Wave())
    clean, perturbed = (part.clamp(min=0).flatten(1) for part in (embedded, waved(embedded)))
    torch.testing.assert_close(profile.values[0, 0], (clean - perturbed).norm(dim=1) / clean.norm(dim=1), **CLOSE)


class FromEmbeddings(nn.Module):
    """What comes behind the embedding, which an attack in continuous values needs."""

    def __init__(self, network):
        super().__init__()
        self.head = network.head

    def forward(self, h):
        return self.head(F.relu(h).mean(1))


class OfDerivatives(OneLayer):
    """Runs inside of a transformation of torch.func, then an activation."""

    def __init__(self, transformed):
        super().__init__()
        self.transformed = transformed

    def inner(self, x):
        return self.head(self.transformed(lambda z: torch.tanh(self.fc(z)), x))

    def forward(self, x):
        return torch.sigmoid(self.inner(x))


TRANSFORMED = {
    "vmap": lambda f, x: torch.vmap(f)(x),
    "grad": lambda f, x: torch.func.grad(lambda z: f(z).sum())(x)[:, :6],
    "jvp": lambda f, x: torch.func.jvp(f, (x,), (torch.ones_like(x),))[1],
}


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own, where it first transforms
@pytest.mark.parametrize("name", TRANSFORMED)
def test_what_runs_inside_of_a_transformation_is_told(name, nets):
    network, x = nets.seeded(lambda: OfDerivatives(TRANSFORMED[name])), inputs(4)
    profile = sustainability(network, in_batches(x, [4]), Wave())
    clean, perturbed = (network.inner(part).sigmoid().detach() for part in (x, waved(x)))
    assert profile.layers == ["sigmoid"]
    expected = (clean - perturbed).norm(dim=1) / clean.norm(dim=1)
    torch.testing.assert_close(profile.values[0, 0], expected, **CLOSE)
    assert any("tanh" in line for line in profile.missed)


class Branches(OneLayer):
    def forward(self, x):
        return self.head(F.relu(torch.cond(x.sum() > 0, lambda z: self.fc(z).tanh(), self.fc, (x,))))


@pytest.mark.parametrize("sign", [1, -1])
def test_of_torch_cond_the_branch_that_is_taken_is_seen(sign, nets):
    network, x = nets.seeded(Branches), sign * inputs(4).abs()
    profile = sustainability(network, in_batches(x, [4]), Wave(size=0.01))
    hidden = [network.fc(part).detach() for part in (x, Wave(size=0.01).perturb(None, x, None, None))]
    if sign > 0:
        hidden = [part.tanh() for part in hidden]
    values = {"tanh": hidden} if sign > 0 else {}
    values["relu"] = [part.clamp(min=0) for part in hidden]
    assert profile.layers == list(values)
    for row, (clean, perturbed) in zip(profile.values[0], values.values(), strict=True):
        torch.testing.assert_close(row, (clean - perturbed).norm(dim=1) / clean.norm(dim=1), **CLOSE)


class Scanned(OneLayer):
    def forward(self, x):
        return self.head(map_operator(lambda row: torch.tanh(self.fc(row)), x))


def test_loops_that_run_compiled_alone_are_refused_in_one_line(nets):
    with pytest.raises(UserError, match="write it as a loop in Python"):
        sustainability(nets.seeded(Scanned), in_batches(inputs(4), [4]), Wave())


class Halves(Network):
    """Two layers that are parts of one memory."""

    def __init__(self):
        super().__init__(6)
        self.fc, self.left, self.right = nn.Linear(FEATURES, 6), nn.Identity(), nn.Identity()

    def forward(self, x):
        left, right = self.fc(x).chunk(2, 1)
        return self.head(torch.cat([self.left(left), self.right(right)], 1))


def test_halves_of_one_value_are_two_layers(nets):
    network, x = nets.seeded(Halves), inputs(4)
    profile = sustainability(network, in_batches(x, [4]), Wave(), ["left", "rig*"])
    clean, perturbed = (network.fc(part).detach().chunk(2, 1) for part in (x, waved(x)))
    assert profile.layers == ["left", "right"]
    for row, one, other in zip(profile.values[0], clean, perturbed, strict=True):
        torch.testing.assert_close(row, (one - other).norm(dim=1) / one.norm(dim=1), **CLOSE)
