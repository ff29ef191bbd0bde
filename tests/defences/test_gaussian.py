"""Training with Gaussian noise: how many inputs, how much, and within the box."""

import pytest
import torch
import torch.nn.functional as F

from buttress.defences import Batch
from buttress.defences.gaussian import GaussianTraining
from buttress.defences.standard import Standard
from buttress.errors import UserError


def many(count=2000):
    return Batch(torch.full((count, 1, 5, 5), 0.5), torch.zeros(count, dtype=torch.int64), torch.arange(count))


def test_a_share_of_the_inputs_gets_one_of_the_deviations(context):
    batch = many()
    noisy = GaussianTraining(std=(0.05, 0.2), probability=0.25, box=None).noisy(batch.x, context(None, batch))
    spread = (noisy - 0.5).flatten(1).std(1)
    touched = spread > 0
    assert abs(float(touched.float().mean()) - 0.25) < 0.03
    low = spread[touched] < 0.11  # 25 values tell 0.05 from 0.2
    assert abs(float(low.float().mean()) - 0.5) < 0.07
    assert float(spread[touched][low].square().mean().sqrt()) == pytest.approx(0.05, rel=0.05)
    assert float(spread[touched][~low].square().mean().sqrt()) == pytest.approx(0.2, rel=0.05)


def test_noise_stays_in_the_box_and_follows_the_input_and_the_step(context):
    batch, defence = many(64), GaussianTraining(std=[1.0], probability=1.0)
    noisy = defence.noisy(batch.x, context(None, batch))
    assert (float(noisy.min()), float(noisy.max())) == (0.0, 1.0)
    part = Batch(batch.x[10:20], batch.y[10:20], batch.ids[10:20])
    assert torch.equal(defence.noisy(part.x, context(None, part)), noisy[10:20])
    assert not torch.equal(defence.noisy(batch.x, context(None, batch, index=4)), noisy)


def test_the_loss_is_cross_entropy_of_the_noisy_inputs(network, batch, context):
    model, defence = network(dropout=0.0, dtype=torch.float64).eval(), GaussianTraining()
    place = context(model, batch)
    expected = F.cross_entropy(model(defence.noisy(batch.x, place)), batch.y)
    torch.testing.assert_close(defence.loss(model, batch, place).value, expected)


@pytest.mark.parametrize("settings", [{"probability": 0.0}, {"std": 0.0}])
def test_without_noise_it_is_standard_training(settings, network, train, same):
    runs = [train(network(dropout=0.0), defence) for defence in (Standard(), GaussianTraining(**settings))]
    same(runs[0].model.state_dict(), runs[1].model.state_dict())


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"std": ()}, "std must be a list of finite numbers of 0 or more; got none"),
        ({"std": -0.1}, "std must be a finite number of 0 or more; got -0.1"),
        ({"probability": 1.5}, r"probability must be a number in \[0, 1\]; got 1.5"),
        ({"box": (1, 0)}, "box must be"),
    ],
)
def test_settings_that_make_no_sense_are_told(settings, line):
    with pytest.raises(UserError, match=line):
        GaussianTraining(**settings)
