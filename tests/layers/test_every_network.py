"""Networks of every kind against what is computed by hand, input by input: displacement, tolerance and AT-LR."""

import pytest
import torch
from tests.layers.zoo.every import NETWORKS
from tests.layers.zoo.network import STEPS, Wave, displacement, distance, inputs, logits

from buttress.defences import Batch, StepContext
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.layer_regularised import LayerRegularised
from buttress.errors import UserError
from buttress.layers import sustainability, tolerance

CLOSE = {"rtol": 1e-5, "atol": 1e-5, "equal_nan": True}
EVERY = ("every layer",)
# Layers that a batch computes for some of its inputs at a time, or whose values carry no gradient.
REFUSED = {
    "experts by mask": ("low.1", "high.1"),
    "experts by index": ("low.1", "high.1"),
    "an expert without inputs": ("high.1",),
    "row by row": ("gelu",),
    "sorted": EVERY,
    "slots": EVERY,
    "turned round": EVERY,
    "turned round, steps first": EVERY,
    "shuffled": EVERY,
    "checkpointed, reentrant": EVERY,
    "a checkpointed method, reentrant": EVERY,
    "inside of an autograd function": EVERY,
    "without a gradient": EVERY,
    "in inference mode": EVERY,
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def made(name, nets):
    return nets.seeded(NETWORKS[name]).eval()


def in_batches(x, sizes):
    y = torch.zeros(len(x), dtype=torch.int64)
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


def waved(x):
    return Wave().perturb(None, x, None, None)


@every_network
def test_the_network_and_the_computation_by_hand_agree(name, nets):
    network, x = made(name, nets), inputs(5)
    with torch.no_grad():
        torch.testing.assert_close(network(x), logits(network, x), rtol=1e-5, atol=1e-5)


@pytest.mark.representatives(sizes=[[STEPS], [5, 1]])
@pytest.mark.parametrize(
    "sizes",
    [[STEPS], [4], [5, 1], [1, 1]],
    ids=["as many inputs as steps", "fewer", "one left over", "one by one"],
)
@every_network
def test_displacement_by_hand(name, sizes, nets):
    network, x = made(name, nets), inputs(sum(sizes))
    profile = sustainability(network, in_batches(x, sizes), Wave(), network.layers)
    with torch.no_grad():
        expected = displacement(network, x, waved(x))
    unreached = {layer for layer, truth in expected.items() if bool(truth.isnan().all())}
    expected = {layer: truth for layer, truth in expected.items() if layer not in unreached}
    assert profile.layers == list(expected)
    for row, (layer, truth) in zip(profile.values[0], expected.items(), strict=True):
        torch.testing.assert_close(row, truth.float(), **CLOSE, msg=lambda text, layer=layer: f"{layer}: {text}")
    assert set(profile.left_out) == network.left_out_of(sizes) | unreached
    for function in network.missed:
        assert any(function in line for line in profile.missed)
    assert bool(profile.missed) == bool(network.missed)


@every_network
def test_centred_displacement_by_hand(name, nets):
    network, x = made(name, nets), inputs(STEPS)
    profile = sustainability(network, in_batches(x, [5, 1]), Wave(), network.layers, "centred")
    with torch.no_grad():
        expected = displacement(network, x, waved(x), centred=True)
    for layer, row in zip(profile.layers, profile.values[0], strict=True):
        torch.testing.assert_close(row, expected[layer].float(), rtol=1e-4, atol=1e-4, equal_nan=True)


@pytest.mark.representatives(count=[STEPS])
@pytest.mark.parametrize("count", [STEPS, 4])
@every_network
def test_tolerance_by_hand(name, count, nets):
    network, x = made(name, nets), inputs(count)
    y = logits(network, x).argmax(1)
    found = tolerance(network, [(x, y)], Wave(), [network.last], steps=2, bisections=1)
    assert found.layers == [network.last]
    truth = distance(network, x, y).float()
    known = ~found.rho[0].isnan()
    assert bool((found.rho[0] >= truth * (1 - 1e-4))[known].all())  # an upper bound
    assert set(found.left_out) == (set() if network.searched else {network.last})
    if network.searched:
        torch.testing.assert_close(found.rho[0].float(), truth, rtol=0.04, atol=1e-6)


def batch_of(x):
    return Batch(x, torch.arange(len(x)) % 3, torch.arange(len(x)))


@pytest.mark.parametrize("name", [name for name in NETWORKS if REFUSED.get(name) != EVERY])
def test_regularisation_by_hand(name, nets):
    network, batch = made(name, nets), batch_of(inputs(STEPS))
    layers = [layer for layer in network.by_hand(batch.x[0]) if layer not in REFUSED.get(name, ())]
    gammas = [0.2 * (k + 1) for k in range(len(layers))]
    base = AdversarialTraining(Wave())
    network.train()
    for part in network.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    alone = base.loss(network, batch, StepContext(network, batch)).value
    defence = LayerRegularised(base, layers, gammas, "relative_error")
    loss = defence.loss(network, batch, StepContext(network, batch))
    shifts = displacement(network, batch.x, waved(batch.x))
    for layer in layers:
        found = loss.logs[f"displacement {layer}"].double()
        torch.testing.assert_close(found, shifts[layer].nanmean().detach(), **CLOSE)
    by_hand = sum(gamma * shifts[layer].nanmean() for gamma, layer in zip(gammas, layers, strict=True))
    weights = list(network.parameters())
    ours, theirs = (
        torch.autograd.grad(value, weights, allow_unused=True, materialize_grads=True)
        for value in (loss.value - alone, by_hand)
    )
    assert sum(float(part.norm()) for part in theirs) > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", REFUSED)
def test_a_layer_that_cannot_be_regularised_is_refused_by_name(name, nets):
    network, batch = made(name, nets).train(), batch_of(inputs(STEPS))
    for layer in network.by_hand(batch.x[0]) if REFUSED[name] == EVERY else REFUSED[name]:
        defence = LayerRegularised(AdversarialTraining(Wave()), [layer])
        with pytest.raises(UserError, match=f"layer '{layer}' (cannot be regularised|does not run)"):
            defence.loss(network, batch, StepContext(network, batch))
