"""A recorded graph with batch normalisation by the statistics of a batch is the network in train mode."""

import copy

import pytest
import torch
from torch import nn

from buttress.certificates.bounds.network import BoundedNetwork
from buttress.certificates.network.recording import record
from buttress.certificates.operations.batch_statistics import with_batch_statistics


def networks():
    """With batch normalisation behind others, without an affine part, of features, and in a residual branch."""

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Linear(50, 3)

        def forward(self, x):
            return self.head((x + torch.relu(self.norm(self.conv(x)))).flatten(1))

    conv = nn.Conv2d(2, 3, 3)
    yield nn.Sequential(
        conv, nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3, affine=False), nn.Flatten(),
        nn.Linear(3, 3),
    )  # fmt: skip
    yield nn.Sequential(nn.Flatten(), nn.Linear(50, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3))
    yield Residual()


@pytest.mark.parametrize("which", range(3))
def test_it_computes_what_the_network_does_in_train_mode_gradients_included(which):
    torch.manual_seed(which)
    model = list(networks())[which].double()
    x = torch.randn(6, 2, 5, 5, dtype=torch.float64)
    graph = record(model.eval(), x[:1], lambda output: output)
    graph.renew()
    statistics = with_batch_statistics(graph, x)
    BoundedNetwork(statistics)
    usual = copy.deepcopy(model).train()
    expected, logits = usual(x), statistics.run(x)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)
    one, other = (
        torch.autograd.grad(v.square().sum(), list(m.parameters())) for v, m in ((logits, model), (expected, usual))
    )
    torch.testing.assert_close(one, other, rtol=0, atol=1e-8)
    torch.testing.assert_close(graph.run(x), model(x), rtol=0, atol=1e-10)  # which is as it was


def test_a_graph_without_batch_normalisation_comes_back_as_it_is():
    model = nn.Sequential(nn.Flatten(), nn.Linear(50, 3))
    graph = record(model.eval(), torch.zeros(1, 2, 5, 5), lambda output: output)
    assert with_batch_statistics(graph, torch.zeros(4, 2, 5, 5)) is graph
