"""How layers hang together, and what no layer stands for, against networks read by eye."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from buttress.layers import capture, crossed_by_every_path
from buttress.layers.paths import trace


def test_predecessors_and_crossings_of_a_residual_network(mixed, inputs, mixed_layers):
    paths = trace(mixed, inputs[:1], "activations")
    assert paths.names == mixed_layers
    # The residual sum is fed by the branch ("block.silu", executed last) and by the skip ("act#1").
    assert paths.predecessors == [-1, 0, 1, 2, 3, 4, 5]
    assert crossed_by_every_path(mixed, inputs) == {name: name != "block.silu" for name in mixed_layers}


def test_parallel_branches_are_fed_by_where_they_part(inputs):
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.left, self.right = (nn.Linear(5, 5) for _ in range(3))

        def forward(self, x):
            h = F.relu(self.stem(x))
            return torch.cat([F.elu(self.left(h)), F.gelu(self.right(h))], 1).sigmoid()

    paths = trace(Fork(), inputs, "activations")
    assert paths.names == ["relu", "elu", "gelu", "sigmoid"]
    assert paths.predecessors == [-1, 0, 0, 2]
    assert paths.crossed == [True, False, False, True]


def test_a_constant_at_a_crossed_layer_cuts_the_input_off(mixed, inputs):
    for name, crossed in crossed_by_every_path(mixed, inputs).items():
        x = inputs.clone().requires_grad_()
        with capture(mixed, [name], replace=lambda _, value: torch.zeros_like(value)):
            output = mixed(x)
        (grad,) = torch.autograd.grad(output.sum(), x, materialize_grads=True)
        assert bool(grad.any()) != crossed


def test_a_layer_that_hands_its_input_on_follows_the_one_it_repeats(inputs):
    net = nn.Sequential(nn.Linear(5, 5), nn.Identity(), nn.Dropout(), nn.ReLU())
    assert trace(net, inputs, "*").names == ["0", "3"]
    paths = trace(net, inputs, ["0", "1", "2", "3"])
    assert paths.names == ["0", "1", "2", "3"]
    assert paths.predecessors == [-1, 0, 1, 2]
    assert all(paths.crossed)


def test_without_a_gradient_order_is_all_there_is(inputs):
    class Blind(nn.Module):
        def forward(self, x):
            with torch.no_grad():
                return x.relu().tanh()

    paths = trace(Blind(), inputs, "activations")
    assert paths.predecessors == [-1, 0]
    assert paths.crossed == [False, False]


class CalledDirectly(nn.Module):
    """Weights that no hook sees: of a module whose ``forward`` is called, and of the network itself."""

    def __init__(self):
        super().__init__()
        self.seen, self.called, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.weight, self.table = nn.Parameter(torch.eye(4)), nn.Parameter(torch.zeros(1, 4))

    def forward(self, x):
        h = self.called.forward(torch.relu(self.seen(x)))
        return self.head(F.linear(h + self.table, 2 * self.weight) @ self.weight)


def test_weights_that_no_layer_stands_for_are_told_among_the_layers_with_weights():
    x = torch.rand(2, 4)
    told = trace(CalledDirectly(), x, "learnable")
    assert told.names == ["seen", "head"]
    assert told.missed == ["linear by called.weight", "linear by weight", "matmul by weight"]
    assert trace(CalledDirectly(), x, "activations").missed == []


@pytest.mark.parametrize(
    "network",
    [
        nn.Linear(4, 3),
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.ReLU()),
        nn.Sequential(nn.Unflatten(1, (2, 2)), nn.TransformerEncoderLayer(2, 1, 4, batch_first=True), nn.Flatten()),
        nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 3), nn.ConvTranspose1d(2, 1, 2), nn.Flatten()),
    ],
)
def test_weights_of_modules_that_are_layers_are_not(network):
    assert trace(network, torch.rand(2, 4), "learnable").missed == []
