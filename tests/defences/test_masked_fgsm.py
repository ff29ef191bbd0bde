"""Masked FGSM training against its formula in float64, and its masks."""

import os
import signal

import pytest
import torch
from torch import nn

from buttress.attacks.gradient.fgsm import FGSM
from buttress.defences.base.defence import Batch
from buttress.defences.fgsm_training import FGSMTraining
from buttress.defences.masked_fgsm import MaskedFGSM
from buttress.errors import UserError
from buttress.random import Random, derive
from buttress.threat import Threat
from buttress.training import Interrupted

EPS = 0.07
PATTERNS = ["random_per_batch", "random_per_sample", "fixed"]
every_pattern = pytest.mark.parametrize("pattern", PATTERNS)


@pytest.fixture
def smooth(network):
    return network(dropout=0.0, dtype=torch.float64, activation=nn.Tanh)


def cross_entropy(model, x, y):
    return -model(x).log_softmax(1)[torch.arange(len(y)), y].mean()


@pytest.mark.parametrize("start", ["zero", "uniform"])
@pytest.mark.parametrize("train_on", ["masked", "unmasked"])
@every_pattern
def test_loss_equals_its_formula(pattern, train_on, start, smooth, batch, context):
    """The step is taken at the masked image, moves masked pixels, too, and is added to what is trained on."""
    defence, place = MaskedFGSM(Threat(eps=EPS), 0.4, pattern, train_on, start), context(smooth, batch)
    mask = defence.mask(batch.x, place)
    masked = batch.x * mask
    draws = Random(derive(place.seed, "attack"), batch.ids).uniform(batch.x.shape[1:], torch.float64)
    noise = EPS * (2 * draws - 1) if start == "uniform" else torch.zeros_like(batch.x)
    leaf = (masked + noise).requires_grad_()
    slope = torch.autograd.grad(cross_entropy(smooth, leaf, batch.y), leaf)[0]
    delta = (noise + (1.25 if start == "uniform" else 1) * EPS * slope.sign()).clamp(-EPS, EPS)
    x_adv = ((masked if train_on == "masked" else batch.x) + delta).clamp(0, 1)
    loss = defence.loss(smooth, batch, place).value
    torch.testing.assert_close(loss, cross_entropy(smooth, x_adv, batch.y), rtol=0, atol=1e-12)
    hidden = mask.expand_as(batch.x) == 0
    assert hidden.any()
    assert (delta[hidden] != 0).any()


@every_pattern
def test_masks_are_alike_in_all_channels_and_hide_their_share(pattern, context):
    x = torch.rand(64, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    batch, model = Batch(x, torch.zeros(64, dtype=torch.long), torch.arange(64)), nn.Identity()
    for rate in (0.0, 0.3, 0.8):
        mask = MaskedFGSM(rate=rate, pattern=pattern).mask(x, context(model, batch))
        assert mask.shape == (64 if pattern == "random_per_sample" else 1, 1, 64, 64)
        assert set(mask.unique().tolist()) <= {0.0, 1.0}
        deviation = (rate * (1 - rate) / mask.numel()) ** 0.5
        assert abs(float((mask == 0).float().mean()) - rate) <= 4 * deviation


@every_pattern
def test_when_masks_change(pattern, smooth, batch, context, images):
    defence = MaskedFGSM(pattern=pattern)
    defence.prepare(smooth, images, 5)
    masks = [defence.mask(batch.x, context(smooth, batch, index=index)) for index in (0, 1, 1)]
    assert torch.equal(masks[0], masks[1]) == (pattern == "fixed")
    assert torch.equal(masks[1], masks[2])
    if pattern == "random_per_sample":
        assert len({tuple(mask.flatten().tolist()) for mask in masks[0]}) == len(batch.x)
        order = torch.tensor([3, 1, 7])  # a mask goes with its input, whatever the batch
        part = Batch(batch.x[order], batch.y[order], batch.ids[order])
        assert torch.equal(defence.mask(part.x, context(smooth, part, index=1)), masks[1][order])
    defence.prepare(smooth, images, 6)
    assert torch.equal(defence.mask(batch.x, context(smooth, batch, index=0)), masks[0]) == (pattern != "fixed")


def test_a_fixed_mask_stays_through_a_run_that_was_stopped(network, train, tmp_path, monkeypatch):
    masks, drawn = [], MaskedFGSM.mask

    def mask(self, x, context):
        masks.append(drawn(self, x, context))
        return masks[-1]

    monkeypatch.setattr(MaskedFGSM, "mask", mask)
    count = []

    def stop(done, figures):
        count.append(done)
        if len(count) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(network(), MaskedFGSM(pattern="fixed"), out=tmp_path / "run", progress=stop)
    before = len(masks)
    train(network(), MaskedFGSM(pattern="fixed"), out=tmp_path / "run", resume=True)
    assert 0 < before < len(masks)
    assert all(torch.equal(mask, masks[0]) for mask in masks)


def test_inputs_that_are_no_images_are_masked_number_by_number(context):
    x = torch.rand(5, 1000, generator=torch.Generator().manual_seed(0))
    batch = Batch(x, torch.zeros(5, dtype=torch.long), torch.arange(5))
    assert MaskedFGSM().mask(x, context(nn.Identity(), batch)).shape == (1, 1000)


def test_without_a_mask_it_is_fgsm_training(smooth, batch, context):
    pairs = [MaskedFGSM(Threat(eps=EPS), rate=0.0), FGSMTraining(Threat(eps=EPS))]
    losses = [d.loss(smooth, batch, context(smooth, batch)).value for d in pairs]
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=1e-12)
    assert pairs[0].attack == FGSM(threat=Threat(eps=EPS))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"rate": 1.0}, "rate must be a number in [0, 1); got 1.0"),
        ({"rate": "half"}, "rate must be a number in [0, 1); got 'half'"),
        ({"pattern": "dots"}, "pattern must be one of random_per_batch, random_per_sample, fixed; got 'dots'"),
        ({"train_on": "both"}, "train_on must be one of masked, unmasked; got 'both'"),
        ({"start": "normal"}, "start must be one of zero, uniform; got 'normal'"),
    ],
)
def test_what_it_refuses(settings, line):
    with pytest.raises(UserError) as error:
        MaskedFGSM(**settings)
    assert str(error.value) == line
