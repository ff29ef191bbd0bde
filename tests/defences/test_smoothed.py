"""Training under normal noise: all inputs have it, and none of it is clipped."""

import pytest
import torch
import torch.nn.functional as F

from buttress.defences import Batch
from buttress.defences.smoothed import SmoothedTraining
from buttress.errors import UserError


def test_every_input_has_noise_of_that_deviation_and_none_is_clipped(context):
    batch = Batch(torch.full((500, 1, 5, 5), 0.9), torch.zeros(500, dtype=torch.int64), torch.arange(500))
    noise = SmoothedTraining(sigma=0.5).noisy(batch.x, context(None, batch)) - batch.x
    assert float(noise.std()) == pytest.approx(0.5, rel=0.03)
    assert abs(float(noise.mean())) < 0.02
    assert float(noise.flatten(1).std(1).min()) > 0.2
    assert float((batch.x + noise).max()) > 1.5


def test_the_loss_is_cross_entropy_of_the_noisy_inputs(network, batch, context):
    model, defence = network(dropout=0.0, dtype=torch.float64).eval(), SmoothedTraining(sigma=0.3)
    place = context(model, batch)
    expected = F.cross_entropy(model(defence.noisy(batch.x, place)), batch.y)
    torch.testing.assert_close(defence.loss(model, batch, place).value, expected)


def test_its_settings_and_its_label():
    assert SmoothedTraining(sigma=0.5).settings() == {"sigma": 0.5}
    assert SmoothedTraining().label() == "smoothed"


@pytest.mark.parametrize("sigma", [0.0, -1.0])
def test_a_deviation_that_is_none_is_told(sigma):
    with pytest.raises(UserError, match="sigma must be a finite number above 0"):
        SmoothedTraining(sigma=sigma)
