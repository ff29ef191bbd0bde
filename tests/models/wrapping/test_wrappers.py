"""The network inside wrappers, and the same wrappers around another."""

import pytest
import torch
from torch import nn

from buttress.models import FromProbabilities, Normalized, Output
from buttress.models.wrapping.wrappers import inner, nested, network_with, optional_method, rewrap


class Own(nn.Module):
    """A user's own wrapper."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(2 * x)


class Answering(nn.Linear):
    def uncertainty(self, x, factor=1):
        return factor * x.sum(1)


def wrapped(network: nn.Module) -> nn.Module:
    return Output(FromProbabilities(Normalized(nn.DataParallel(network), 0.5, 0.25)), 0)


def test_the_network_inside_all_wrappers():
    network = nn.Sequential(nn.Linear(2, 2))
    assert inner(network) is network
    assert inner(wrapped(network)) is network
    kinds = [type(module) for module in nested(wrapped(network))]
    assert kinds == [Output, FromProbabilities, Normalized, nn.DataParallel, nn.Sequential]


def test_a_network_of_the_users_that_holds_another_is_no_wrapper():
    own = Own(nn.Linear(2, 2))
    assert inner(Normalized(own, 0.0, 1.0)) is own


def test_the_outermost_network_with_a_method():
    network = Answering(2, 2)
    assert network_with(Own(wrapped(network)), "uncertainty") is network
    assert network_with(Own(wrapped(nn.Linear(2, 2))), "uncertainty") is None
    assert network_with(print, "uncertainty") is None


def test_the_same_wrappers_around_another_network():
    model = Normalized(nn.DataParallel(nn.Linear(2, 2)), 0.5, 0.25)
    called = []
    model.register_forward_hook(lambda *_: called.append(1))
    other = rewrap(model, nn.Identity())
    assert [type(module) for module in nested(other)] == [Normalized, nn.Identity]
    assert other.mean is model.mean
    torch.testing.assert_close(other(torch.ones(1, 2)), torch.full((1, 2), 2.0))
    assert called == [1]
    assert isinstance(inner(model), nn.Linear)  # as it was
    plain = nn.Linear(2, 2)
    assert rewrap(plain, model) is model


@pytest.mark.parametrize("more", [(), (3,)])
def test_a_method_is_asked_in_the_networks_wrappers(more):
    model = Own(Normalized(Answering(2, 2), 0.5, 0.25))
    question = optional_method(model, "uncertainty", *more)
    # 2 * 1 = 2, (2 - 0.5) / 0.25 = 6, and two features.
    torch.testing.assert_close(question(torch.ones(1, 2)), torch.tensor([12.0]) * (more[0] if more else 1))
    assert optional_method(model, "over_time") is None
