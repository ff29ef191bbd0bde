"""Of a network that gives no gradients everything is answered that can be, and the rest is named."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from buttress import audits, models
from buttress.attacks import FGSM, PGD, Square
from buttress.audits import Examples, Masking, Robustness
from buttress.audits.base.without_gradients import has_gradient
from buttress.errors import NoGradientError
from buttress.tasks import classification
from buttress.threat import Threat

THREAT = Threat(eps=0.1)


@pytest.fixture(scope="module")
def batch(pictures):
    model, split = pictures
    return [(split.x, model(split.x).argmax(1))]


@pytest.fixture(scope="module")
def blind(pictures):
    """The same network, its gradients cut."""
    return models.FromNumpy(lambda array: pictures[0](torch.from_numpy(array)).detach().numpy())


def test_whether_there_is_a_gradient(pictures, blind):
    model, split = pictures
    assert has_gradient(model, split.x, classification)
    assert not has_gradient(blind, split.x, classification)
    rounded = nn.Sequential(nn.Flatten(), nn.Linear(36, 4))
    rounded.register_forward_pre_hook(lambda module, args: (args[0].detach(),))
    assert not has_gradient(rounded, split.x, classification)  # its weights have one


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_reentrant_checkpoint_leads_no_gradient_back(pictures, reentrant):
    model, split = pictures

    class Checkpointed(nn.Module):
        def forward(self, x):
            return checkpoint(model, x, use_reentrant=reentrant)

    assert has_gradient(Checkpointed(), split.x, classification) is not reentrant


def test_attacks_that_need_gradients_are_left_out_and_named(pictures, blind, batch):
    """The figure is that of an audit in which nobody asked for them."""
    square = Square(threat=THREAT, queries=30)
    attacks = [PGD(threat=THREAT, steps=3), square, FGSM(threat=THREAT)]
    (finding,) = audits.run(blind, batch, [Robustness(attacks=attacks, eps=[0.1])])
    (expected,) = audits.run(pictures[0], batch, [Robustness(attacks=[square], eps=[0.1])])
    assert finding.data["left_out"] == ["PGD-3", "FGSM"]
    assert finding.data["stands"] == expected.data["stands"]
    assert "Left out, for the network gives no gradients: PGD-3, FGSM" in finding.verdict
    assert "--attacks square hopskipjump" in finding.verdict


def test_audits_that_need_gradients_are_left_out_and_named(blind, batch):
    questions = [Examples(attack=PGD(threat=THREAT)), Robustness(attacks=[Square(threat=THREAT, queries=5)])]
    left_out, finding = audits.run(blind, batch, questions)
    assert (left_out.kind, left_out.data["audit"]) == ("left-out", "examples")
    assert "--attacks square hopskipjump" in left_out.verdict
    assert finding.kind == "robustness"
    with pytest.raises(NoGradientError, match="has no gradient"):
        audits.run(blind, batch, questions[:1])


def test_masking_still_answers(blind, batch):
    (finding,) = audits.run(blind, batch, [Masking(attack=PGD(threat=THREAT, steps=3), queries=20, draws=5, inputs=8)])
    assert finding.data["verdict"] == "not trustworthy"
