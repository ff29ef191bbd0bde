"""Gradient norms example by example: against the closed form, a loop, and networks that torch.func cannot take."""

import pytest
import torch
from torch import nn

from buttress.errors import NoGradientError
from buttress.layers import example_gradients as module
from buttress.layers.example_gradients import batch_gradient, example_gradients, lengths, ratios
from buttress.tasks import Regression, classification


def batch(count=12, *shape):
    random = torch.Generator().manual_seed(0)
    x = torch.rand(count, *(shape or (5,)), generator=random)
    return x, torch.randint(4, (count,), generator=random)


def by_hand(model, x, y):
    """One backward pass for each example."""
    norms = []
    for i in range(len(x)):
        model.zero_grad()
        nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1]).backward()
        norms.append(torch.cat([p.grad.flatten() for p in model.parameters()]).norm())
    model.zero_grad()
    return torch.stack(norms).double()


def test_of_a_linear_softmax_model_in_closed_form():
    """The gradient is (p - e_y) x^T and p - e_y: its norm is |p - e_y| sqrt(|x|^2 + 1)."""
    torch.manual_seed(0)
    model, (x, y) = nn.Linear(5, 4), batch()
    error = model(x).softmax(1) - nn.functional.one_hot(y, 4)
    expected = error.norm(dim=1) * (x.square().sum(1) + 1).sqrt()
    found = example_gradients(model, x, y, classification)
    assert found.vectorised
    torch.testing.assert_close(found.norms, expected.detach().double())


@pytest.mark.parametrize("at_once", [1, 2**24])
def test_any_number_at_once_is_the_same(nets, monkeypatch, at_once):
    model, (x, y) = nets.conv().eval(), batch(6, 1, 6, 6)
    expected = by_hand(model, x, y)
    monkeypatch.setattr(module, "_AT_ONCE", at_once)
    torch.testing.assert_close(example_gradients(model, x, y, classification).norms, expected, rtol=1e-5, atol=1e-7)


class ReadsANumber(nn.Linear):
    """A forward pass that torch.func cannot follow."""

    def forward(self, x):
        return super().forward(x) * (1.0 if float(x.sum()) > -1 else 2.0)


def test_a_loop_where_torch_func_cannot_follow():
    torch.manual_seed(0)
    model, (x, y) = ReadsANumber(5, 4), batch()
    found = example_gradients(model, x, y, classification)
    assert not found.vectorised
    torch.testing.assert_close(found.norms, by_hand(model, x, y), rtol=1e-5, atol=1e-7)


def test_batch_norm_and_dropout_are_in_eval_mode_and_the_network_comes_back():
    torch.manual_seed(0)
    model, (x, y) = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 4)).train(), batch()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    norms = example_gradients(model, x, y, classification).norms
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    torch.testing.assert_close(norms, by_hand(model.eval(), x, y), rtol=1e-5, atol=1e-7)


def test_a_frozen_network_is_measured_as_any_and_a_frozen_layer_has_no_part():
    torch.manual_seed(0)
    model, (x, y) = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 4)), batch()
    whole = example_gradients(model, x, y, classification).norms
    model[0].requires_grad_(False)
    head = example_gradients(model, x, y, classification).norms
    model[1].requires_grad_(False)
    torch.testing.assert_close(example_gradients(model, x, y, classification).norms, whole)
    torch.testing.assert_close(head, example_gradients(model[1], model[0](x), y, classification).norms)
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_networks_of_another_precision(dtype):
    torch.manual_seed(0)
    model, (x, y) = nn.Linear(5, 4), batch()
    expected = example_gradients(model, x, y, classification).norms
    found = example_gradients(model.to(dtype), x, y, classification).norms
    torch.testing.assert_close(found, expected, rtol=0.05, atol=1e-3)


def test_the_batch_gradient_is_the_mean_of_the_examples():
    torch.manual_seed(0)
    model, (x, y) = nn.Linear(5, 4), batch()
    each = torch.stack([batch_gradient(model, x[i : i + 1], y[i : i + 1], classification) for i in range(len(x))])
    torch.testing.assert_close(batch_gradient(model, x, y, classification), each.mean(0))
    torch.testing.assert_close(each.norm(dim=1), example_gradients(model, x, y, classification).norms)


def test_other_tasks_have_a_training_loss_too():
    """Of squared error e^2: 2 |e| sqrt(|x|^2 + 1)."""
    torch.manual_seed(0)
    model, (x, _) = nn.Linear(5, 1), batch()
    y = torch.rand(12)
    expected = 2 * (model(x)[:, 0] - y).abs() * (x.square().sum(1) + 1).sqrt()
    torch.testing.assert_close(example_gradients(model, x, y, Regression()).norms, expected.detach().double())


def test_a_network_without_parameters_is_refused_by_name():
    with pytest.raises(NoGradientError, match="has no parameters"):
        example_gradients(nn.Flatten(), *batch(), classification)


def test_statistics_and_their_ratios():
    low, high = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 2.0, 6.0])
    assert lengths(low) == pytest.approx({"max": 2, "p95": 1.9, "mean": 1})
    assert ratios(high, low) == pytest.approx({"max": 3, "p95": 5.6 / 1.9, "mean": 3})
    assert ratios(high, torch.zeros(3)) == {}
