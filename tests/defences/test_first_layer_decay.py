"""The first layer's penalty, alone and together with the other tricks for single-step training."""

import copy

import pytest
import torch
from torch import nn

from buttress import models
from buttress.defences.fgsm_training import FGSMTraining
from buttress.defences.first_layer_decay import FirstLayerDecay
from buttress.defences.masked_fgsm import MaskedFGSM
from buttress.errors import UserError
from buttress.models.wrapping.normalized import Normalized
from buttress.threat import Threat
from buttress.training.run_folder import load

BASE = FGSMTraining(Threat(eps=0.07))


@pytest.fixture
def smooth(network):
    return network(dropout=0.0, dtype=torch.float64, activation=nn.Tanh)


@pytest.mark.parametrize(("layer", "index"), [(None, 0), ("4", 4)])
def test_it_adds_the_squared_norm_of_one_layer_and_nothing_else(layer, index, smooth, batch, context):
    twin, weights = copy.deepcopy(smooth), list(smooth.parameters())
    loss = FirstLayerDecay(BASE, weight=0.3, layer=layer).loss(smooth, batch, context(smooth, batch))
    base = BASE.loss(twin, batch, context(twin, batch)).value
    penalised = smooth[index].weight
    torch.testing.assert_close(loss.value, base + 0.3 * (penalised**2).sum(), rtol=0, atol=1e-12)
    torch.testing.assert_close(loss.logs["first layer"], (penalised.detach() ** 2).sum())
    ours = torch.autograd.grad(loss.value, weights)
    theirs = torch.autograd.grad(base, list(twin.parameters()))
    for weight, one, other in zip(weights, ours, theirs, strict=True):
        more = 0.6 * weight if weight is penalised else torch.zeros_like(weight)
        torch.testing.assert_close(one - other, more.detach(), rtol=0, atol=1e-10)


def test_the_layer_is_found_inside_a_normalised_network(smooth, batch, context):
    model = Normalized(smooth, 0.5, 0.5).double()
    assert FirstLayerDecay(BASE).first(model) is smooth[0].weight


def test_without_weight_the_base_keeps_its_bits(network, train, same):
    runs = [train(network(), d) for d in (BASE, FirstLayerDecay(BASE, weight=0.0))]
    same(runs[0].model.state_dict(), runs[1].model.state_dict())


@pytest.mark.parametrize(
    ("model", "layer", "line"),
    [
        (nn.Sequential(nn.Linear(36, 4)), "1", "the network has no layer '1' with weights; known: 0"),
        (nn.Sequential(nn.Linear(36, 4), nn.Flatten()), "1", "the network has no layer '1' with weights; known: 0"),
        (nn.Sequential(nn.Flatten()), None, "Sequential has no convolution or linear layer"),
    ],
)
def test_a_layer_that_is_not_there_is_found_before_training(model, layer, line, images):
    with pytest.raises(UserError) as error:
        FirstLayerDecay(BASE, layer=layer).prepare(model, images, 0)
    assert str(error.value) == line


def test_a_weight_below_zero_is_refused():
    with pytest.raises(UserError, match="weight must be a finite number of 0 or more; got -1"):
        FirstLayerDecay(weight=-1)


def test_all_four_tricks_together(images, train, tmp_path, same):
    """Masks, a larger first stride, a smooth activation and the first layer's decay, there and back again."""
    swaps = {"activation": "silu", "stem_stride": 2}
    model = models.create("cnn", classes=4, image_size=6, width=4, mean=0.4, std=0.2, seed=0, **swaps)
    defence = FirstLayerDecay(MaskedFGSM(Threat(eps=0.05), rate=0.2, start="uniform"), weight=5e-3)
    before = model.model.conv1.weight.detach().clone()
    trained = train(model, defence, epochs=4, batch_size=6, out=tmp_path / "run")
    assert trained.history[-1]["loss"] < trained.history[0]["loss"]
    assert trained.history[-1]["first layer"] > 0
    assert not torch.equal(model.model.conv1.weight, before)
    again = load(tmp_path / "run")
    assert models.spec_of(again) == models.spec_of(model)
    assert (models.spec_of(again)["activation"], models.spec_of(again)["stem_stride"]) == ("silu", 2)
    assert again.model.conv1.stride == (2, 2)
    x = images.test.take(torch.arange(8))[0]
    same(again(x), model(x))
