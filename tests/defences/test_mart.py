"""MART against its formula, input by input."""

import copy

import pytest
import torch

from buttress.attacks.gradient.pgd import PGD
from buttress.defences.mart import MART, boosted_cross_entropy
from buttress.errors import UserError
from buttress.threat import Threat


def written_out(clean, adversarial, y, lam):
    """The published terms of each input, one after the other."""
    total = 0.0
    for p, q, label in zip(clean.softmax(1), adversarial.softmax(1), y.tolist(), strict=True):
        other = max((q[c].item(), c) for c in range(len(q)) if c != label)[1]
        boosted = -q[label].log() - (1.0001 - q[other]).log()
        divergence = sum(p[c] * (p[c] / q[c]).log() for c in range(len(p)))
        total = total + boosted + lam * divergence * (1 - p[label])
    return total / len(y)


def test_the_loss_and_its_gradient_through_all_three_factors(network, batch, context):
    model = network(dropout=0.0, dtype=torch.float64, activation=torch.nn.Tanh)
    with torch.no_grad():
        model[7].weight.mul_(8)  # confident, right and wrong
    by_hand, place = copy.deepcopy(model), context(model, batch)
    attack = PGD(threat=Threat(eps=0.1), steps=3, step_size=0.04, start="normal")
    x_adv = attack.craft(by_hand, batch.x, batch.y, seed=place.seed, ids=batch.ids)
    clean, adversarial = by_hand(batch.x), by_hand(x_adv)
    right = clean.argmax(1) == batch.y
    assert right.any()
    assert not right.all()
    expected = written_out(clean, adversarial, batch.y, 4.0)
    loss = MART(Threat(eps=0.1), steps=3, step_size=0.04, lam=4.0).loss(model, batch, place).value
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-12)
    ours = torch.autograd.grad(loss, list(model.parameters()))
    theirs = torch.autograd.grad(expected, list(by_hand.parameters()))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_boosting_looks_at_the_best_other_class():
    logits = torch.tensor([[0.6, 0.3, 0.1], [0.6, 0.3, 0.1]], dtype=torch.float64).log()
    found = boosted_cross_entropy(logits, torch.tensor([0, 1]))
    probabilities = torch.tensor([[0.6, 0.7001], [0.3, 0.4001]], dtype=torch.float64)
    torch.testing.assert_close(found, -probabilities.log().sum(1))


@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_it_is_finite_where_the_softmax_is_saturated(scale):
    logits = (scale * torch.tensor([[1.0, 0.0], [1.0, 0.0]])).requires_grad_()
    value = boosted_cross_entropy(logits, torch.tensor([0, 1]))
    assert torch.isfinite(value).all()
    assert torch.isfinite(torch.autograd.grad(value.sum(), logits)[0]).all()


@pytest.mark.parametrize("lam", [-0.1, float("nan"), float("inf")])
def test_a_weight_that_means_nothing(lam):
    with pytest.raises(UserError, match="lam must be a finite number of 0 or more"):
        MART(lam=lam)
