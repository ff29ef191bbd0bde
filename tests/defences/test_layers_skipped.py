"""AT-LR where training skips layers, or runs others: what adds to a step, by hand, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from tests.layers.zoo import modes
from tests.layers.zoo.network import FEATURES, Wave, inputs
from torch import nn

from buttress.defences import Batch, StepContext
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.apart.defence import APART
from buttress.defences.dial.defence import DIAL
from buttress.defences.iat import IAT
from buttress.defences.layer_regularised import LayerRegularised
from buttress.errors import UserError
from buttress.layers.regularisable import names_in, not_regularisable

BASE = AdversarialTraining(Wave())
GAMMA = {"parts.0": 0.5, "parts.1": 1.5}


class Skips(nn.Module):
    """Two layers, each of which training skips in half of all passes; it keeps which it ran."""

    share = 0.5

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(FEATURES, FEATURES) for _ in range(2))
        self.head, self.ran = nn.Linear(FEATURES, 3), []

    def forward(self, x):
        kept = (torch.rand(2) >= self.share).tolist() if self.training else [True, True]
        self.ran.append(kept)
        return self.head(list(self.values(x, kept).values())[-1])

    def values(self, x, kept):
        found = {"x": x}
        for k, part in enumerate(self.parts):
            if kept[k]:
                x = found[f"parts.{k}"] = part(x)
        return found


@pytest.fixture
def batch():
    x = inputs(6)
    return Batch(x, torch.arange(6) % 3, torch.arange(6))


@pytest.fixture
def network(nets):
    return nets.seeded(Skips).train()


def step(defence, network, batch, seed):
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return defence.loss(network, batch, StepContext(network, batch, seed=seed))


def relative_error(clean, perturbed):
    return ((clean - perturbed).norm(dim=1) / clean.norm(dim=1)).mean()


def test_a_layer_adds_to_the_steps_in_which_both_passes_run_it(network, batch):
    """The clean pass is one of its own, and skips what it draws."""
    defence = LayerRegularised(BASE, list(GAMMA), list(GAMMA.values()), "relative_error")
    x_adv = Wave().perturb(None, batch.x, None, None)
    weights, cases = list(network.parameters()), set()
    for seed in range(8):
        loss = step(defence, network, batch, seed)
        perturbed_ran, clean_ran = network.ran[-2:]
        cases |= {(*pair,) for pair in zip(perturbed_ran, clean_ran, strict=True)}
        clean, perturbed = network.values(batch.x, clean_ran), network.values(x_adv, perturbed_ran)
        base = F.cross_entropy(network.head(list(perturbed.values())[-1]), batch.y)
        both = [layer for layer in GAMMA if layer in clean and layer in perturbed]
        expected = base + sum(GAMMA[layer] * relative_error(clean[layer], perturbed[layer]) for layer in both)
        torch.testing.assert_close(loss.value, expected)
        ours, theirs = (
            torch.autograd.grad(v, weights, allow_unused=True, materialize_grads=True) for v in (loss.value, expected)
        )
        torch.testing.assert_close(ours, theirs)
        assert {name for name in loss.logs if name.startswith("displacement")} == {f"displacement {n}" for n in both}
        assert {layer: float(loss.logs[f"steps with {layer}"]) for layer in GAMMA} == {n: n in both for n in GAMMA}
    assert len(cases) == 4, "in both passes, in either alone and in none"


def test_with_a_gradient_of_the_margin_too(network, batch):
    defence = LayerRegularised(BASE, list(GAMMA), 0.5, "tolerance")
    for seed in range(4):
        assert bool(step(defence, network, batch, seed).value.isfinite())


def test_a_layer_that_always_runs_has_no_share_of_steps(network, batch):
    network.share = 0.0
    loss = step(LayerRegularised(BASE, list(GAMMA), 0.5), network, batch, 0)
    assert not any(name.startswith("steps with") for name in loss.logs)


def test_what_is_skipped_so_rarely_that_only_a_step_shows_it(network, batch):
    network.share = 0.0
    defence = LayerRegularised(BASE, list(GAMMA), 0.5)
    step(defence, network, batch, 0)
    network.share = 1.0
    loss, base = step(defence, network, batch, 1), step(BASE, network, batch, 1)
    assert torch.equal(loss.value, base.value)
    assert loss.logs["steps with parts.0"] == 0


def test_what_no_training_pass_runs_is_refused(network, batch):
    network.share = 1.0
    with pytest.raises(UserError, match=r"'parts\.0' cannot be regularised, for it does not run in training passes"):
        step(LayerRegularised(BASE, ["parts.0"]), network, batch, 0)
    network.share = 0.0
    defence = LayerRegularised(BASE, ["parts.0"])
    defence._look(network, [batch.x])
    network.share = 1.0  # the passes of the steps are others than those that were looked at
    for seed in range(20):
        assert step(defence, network, batch, seed).logs["steps with parts.0"] == 0
    with pytest.raises(UserError, match=r"'parts\.0' cannot be regularised, for it does not run in training passes"):
        step(defence, network, batch, 20)


class Routed(nn.Module):
    """Batches take one way or the other, by their first input."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.head = (nn.Linear(FEATURES, size) for size in (FEATURES, FEATURES, 3))

    def forward(self, x):
        return self.head(torch.relu(self.one(x)) if x[0, 0] > 0 else torch.tanh(self.two(x)))


def test_a_layer_of_some_batches_adds_to_the_steps_that_run_it(nets):
    network, layers = nets.seeded(Routed), ["one", "relu", "two", "tanh"]
    ways, y = [inputs(8), inputs(8)], torch.arange(8) % 3
    ways[0][:, 0], ways[1][:, 0] = 5.0, -5.0
    assert not_regularisable(network, ways, layers) == {}
    assert names_in(network, ways, ["t*", "*"]) == ["two", "tanh", "one", "relu", "head"]
    assert set(not_regularisable(network, ways[:1], layers)) == {"two", "tanh"}
    defence = LayerRegularised(BASE, layers, 0.5, "relative_error")
    defence._look(network, ways)
    for x, ran in zip(ways, (("one", "relu"), ("two", "tanh")), strict=True):
        loss = step(defence, network, Batch(x, y, torch.arange(8)), 0)
        assert {name for name in layers if loss.logs[f"steps with {name}"]} == {*ran}
        x_adv, module = Wave().perturb(None, x, None, None), getattr(network, ran[0])
        act = getattr(torch, ran[1])
        clean, perturbed = module(x), module(x_adv)
        expected = F.cross_entropy(network(x_adv), y) + 0.5 * relative_error(clean, perturbed)
        torch.testing.assert_close(loss.value, expected + 0.5 * relative_error(act(clean), act(perturbed)))


@pytest.mark.parametrize("name", modes.NETWORKS)
def test_names_that_may_mean_another_layer_are_refused_and_no_others(name, nets):
    network, x = nets.seeded(modes.NETWORKS[name]), inputs(6)
    layers = [*network.told, *network.counted]
    state = torch.random.get_rng_state()
    refused = not_regularisable(network, [x], layers)
    assert set(refused) == set(network.counted)
    assert all("counts the runs of one place in the code" in reason for reason in refused.values())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert network.training
    for layer in network.counted[:1]:
        with pytest.raises(UserError, match="a module of its own for each run would"):
            step(LayerRegularised(BASE, [layer]), network, Batch(x, torch.arange(6) % 3, torch.arange(6)), 0)


class Longer(nn.Module):
    """A loop that is longer in some steps than in those that were looked at."""

    often = 2

    def __init__(self):
        super().__init__()
        self.fc, self.head = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, 3)

    def forward(self, x):
        for _ in range(self.often if self.training else 2):
            x = torch.relu(self.fc(x))
        return self.head(x)


def test_a_step_whose_loop_is_another_than_usual_adds_nothing(nets, batch):
    network = nets.seeded(Longer).train()
    defence = LayerRegularised(BASE, ["relu#1"])
    assert "displacement relu#1" in step(defence, network, batch, 0).logs
    network.often = 3
    loss, base = step(defence, network, batch, 1), step(BASE, network, batch, 1)
    assert torch.equal(loss.value, base.value)
    assert loss.logs["steps with relu#1"] == 0


class OfImages(nn.Module):
    """Drops activations of a loop, and a layer with a name of its own, in training."""

    def __init__(self):
        super().__init__()
        self.parts, self.act = nn.ModuleList(nn.Linear(36, 36) for _ in range(3)), nn.Tanh()
        self.head = nn.Linear(36, 4)

    def forward(self, x):
        x = x.flatten(1)
        for part in self.parts:
            if not self.training or bool(torch.rand(()) > 0.5):
                x = torch.relu(part(x))
        return self.head(self.act(x) if not self.training or bool(torch.rand(()) > 0.5) else x)


def named(layer):
    return {
        "dial": DIAL(layer=layer),
        "iat": IAT(variant="manifold", layers=[layer]),
        "apart": APART(layers=[layer]),
        "layer-regularised": LayerRegularised(layers=[layer]),
    }


@pytest.mark.parametrize("name", named("act"))
def test_every_method_that_is_given_layers_refuses_names_that_count(name, nets, images):
    network = nets.seeded(OfImages).train()
    with pytest.raises(UserError, match=r"layer 'relu#1' cannot be .* in evaluation and \d in training"):
        named("relu#1")[name].prepare(network, images, 0)
    if name in ("dial", "iat"):  # which need it in every pass
        with pytest.raises(UserError, match="'act' cannot be used in training, for some training passes skip it"):
            named("act")[name].prepare(network, images, 0)
    else:
        named("act")[name].prepare(network, images, 0)
