"""GradAlign's penalty against a double backward pass written out here, in float64."""

import copy

import pytest
import torch

from buttress.defences.eps_warmup import EpsWarmup
from buttress.defences.fgsm_training import FGSMTraining
from buttress.defences.grad_align import GradAlign, misalignment
from buttress.errors import UserError
from buttress.threat import Threat

EPS = 0.07


@pytest.fixture
def smooth(network):
    return network(dropout=0.0, dtype=torch.float64, activation=torch.nn.Tanh)


def cross_entropy(model, x, y):
    return -model(x).log_softmax(1)[torch.arange(len(y)), y].sum()


def slopes(model, batch, context, eps=EPS):
    """The gradients at the inputs and at uniform noise, the second one with its graph."""
    eta = eps * (2 * context.random.uniform(batch.x.shape[1:], torch.float64) - 1)
    found = []
    for start in (batch.x, batch.x + eta):
        leaf = start.clone().requires_grad_()
        found.append(torch.autograd.grad(cross_entropy(model, leaf, batch.y), leaf, create_graph=True)[0].flatten(1))
    return found


def penalised(model, batch, context, lam, both=False, eps=EPS):
    first, second = slopes(model, batch, context, eps)
    x_adv = (batch.x + eps * first.detach().sign().view_as(batch.x)).clamp(0, 1)
    first = first if both else first.detach()
    cosine = (first * second).sum(1) / (first.square().sum(1).sqrt() * second.square().sum(1).sqrt())
    return cross_entropy(model, x_adv, batch.y) / len(batch.y) + lam * (1 - cosine.mean())


def test_loss_and_gradient_equal_a_double_backward_by_hand(smooth, batch, context):
    """Through BatchNorm in train mode; the first gradient is held fixed."""
    place, weights = context(smooth, batch), list(smooth.parameters())
    loss = GradAlign(Threat(eps=EPS), lam=0.7).loss(smooth, batch, place).value
    expected = penalised(smooth, batch, place, 0.7)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-10)
    ours, theirs = torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    through_both = torch.autograd.grad(penalised(smooth, batch, place, 0.7, both=True), weights)
    assert max(float((a - b).abs().max()) for a, b in zip(ours, through_both, strict=True)) > 1e-3


def test_without_weight_it_is_fgsm_training(smooth, batch, context):
    values = [
        d.loss(smooth, batch, context(smooth, batch)).value
        for d in (GradAlign(Threat(eps=EPS), lam=0.0), FGSMTraining(Threat(eps=EPS)))
    ]
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=1e-12)


def test_statistics_of_batch_norm_follow_the_perturbed_batch_alone(smooth, batch, context):
    twin = copy.deepcopy(smooth)
    GradAlign(Threat(eps=EPS)).loss(smooth, batch, context(smooth, batch))
    FGSMTraining(Threat(eps=EPS)).loss(twin, batch, context(twin, batch))
    torch.testing.assert_close(dict(smooth.named_buffers()), dict(twin.named_buffers()), rtol=0, atol=1e-12)


def test_dropout_is_the_same_in_both_gradients(network, batch, context):
    """Without noise both gradients are one, whatever is dropped."""
    model = network(dropout=0.5, dtype=torch.float64, activation=torch.nn.Tanh)
    loss = GradAlign(Threat(eps=0.0)).loss(model, batch, context(model, batch))
    assert float(loss.logs["misalignment"]) == pytest.approx(0, abs=1e-12)


def test_rows_of_zeros_are_left_out():
    first = torch.tensor([[1.0, 0.0], [0.0, 0.0], [3.0, 4.0], [1.0, 1.0]])
    second = torch.tensor([[0.0, 2.0], [1.0, 1.0], [3e-30, 4e-30], [0.0, 0.0]], requires_grad=True)
    value = misalignment(first, second)
    assert value.item() == pytest.approx(1 - (0 + 1) / 2, abs=1e-6)  # faint as it is, the third row counts
    (slope,) = torch.autograd.grad(value, second)
    assert (slope[[1, 3]] == 0).all()
    assert slope.isfinite().all()
    assert misalignment(first, torch.zeros(4, 2)).item() == 0


def test_a_constant_prediction_has_no_penalty(smooth, batch, context):
    with torch.no_grad():
        smooth[7].weight.zero_()
    loss = GradAlign(Threat(eps=EPS)).loss(smooth, batch, context(smooth, batch))
    assert loss.logs["misalignment"] == 0
    assert torch.isfinite(loss.value)
    loss.value.backward()


@pytest.mark.parametrize(("level", "weight"), [(1, 0.0267), (4, 0.0632), (8, 0.2), (12, 0.632), (16, 2.0), (76, 0.2)])
def test_the_weight_follows_the_authors_rule_up_to_16(level, weight):
    assert GradAlign(Threat(eps=level / 255)).weight == pytest.approx(weight, rel=2e-3)
    assert GradAlign(Threat(eps=level / 255), lam=0.3).weight == 0.3


def test_its_budget_can_grow(smooth, batch, context):
    grown = EpsWarmup(GradAlign(Threat(eps=EPS), lam=0.7), epochs=4)
    place = context(smooth, batch, epoch=1.0)
    value = grown.loss(smooth, batch, place).value
    torch.testing.assert_close(value, penalised(smooth, batch, place, 0.7, eps=EPS / 4), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"threat": Threat(norm="l2")}, "grad-align is defined in linf; got l2"),
        ({"threat": Threat(eps=float("inf"))}, "grad-align needs a finite eps; got inf"),
        ({"lam": -0.1}, "lam must be a finite number of 0 or more; got -0.1"),
    ],
)
def test_what_it_refuses(settings, line):
    with pytest.raises(UserError) as error:
        GradAlign(**settings)
    assert str(error.value) == line
