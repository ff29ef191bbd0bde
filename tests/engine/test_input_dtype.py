"""Networks get inputs of the data type that they take, also where float32 and float64 are mixed in them."""

import pytest
import torch
from torch import nn

from buttress import audits
from buttress.attacks import PGD
from buttress.engine.input_dtype import input_dtype, suited
from buttress.engine.preserved_model import preserved
from buttress.layers import sustainability, tolerance


class Mixed(nn.Module):
    """A layer of one data type before one of another, each given its own; the first as the inputs come."""

    def __init__(self, first=torch.float32, second=torch.float64, *, converts=False):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 6).to(first), nn.Linear(6, 3).to(second)
        self.converts = converts

    def forward(self, x):
        x = x.to(self.first.weight.dtype) if self.converts else x
        return self.second(torch.tanh(self.first(x)).to(self.second.weight.dtype)).to(x.dtype)


MIXED = {
    "float64 late": (lambda: Mixed(), torch.float32),
    "float64 first": (lambda: Mixed(torch.float64, torch.float32), torch.float64),
    "float64 first, of float32 inputs": (lambda: Mixed(torch.float64, torch.float32, converts=True), torch.float32),
    "float64 late, of any inputs": (lambda: Mixed(converts=True), torch.float32),
}
X = torch.rand(8, 4, generator=torch.Generator().manual_seed(1))
Y = torch.arange(8) % 3


def test_weights_of_one_kind_tell_the_data_type():
    kinds = [nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2).bfloat16(), nn.Linear(2, 2).double()]
    assert [input_dtype(m, torch.zeros(1, 2)) for m in kinds] == [*[torch.float32] * 3, torch.float64]


@pytest.mark.parametrize("kind", MIXED)
def test_mixed_weights_take_what_the_network_runs_with(kind):
    make, dtype = MIXED[kind]
    assert suited(make(), X).dtype == dtype


def test_a_network_that_takes_no_such_inputs_at_all_is_given_float32():
    assert input_dtype(Mixed(), torch.zeros(2, 5)) == torch.float32


@pytest.mark.parametrize("kind", MIXED)
def test_mixed_networks_are_measured_and_audited(kind):
    make, dtype = MIXED[kind]
    network, x = make().eval(), X.to(dtype)
    attack = PGD(steps=2)
    x_adv = attack(network, x, Y).x_adv
    clean, perturbed = (torch.tanh(network.first(some.to(network.first.weight.dtype))) for some in (x, x_adv))
    expected = (clean - perturbed).norm(dim=1) / clean.norm(dim=1)
    found = sustainability(network, [(x, Y)], attack).values[0, 0]
    torch.testing.assert_close(found, expected.float().detach(), rtol=1e-4, atol=1e-6)
    assert bool((tolerance(network, [(x, Y)], attack, steps=2, bisections=2).rho >= 0).all())
    questions = [audits.Channels(attack=attack, layer="tanh"), audits.Robustness(attacks=[attack])]
    assert len(audits.run(network, [(x, Y)], questions)) == 2


def test_the_default_data_type_is_the_weights_where_they_agree():
    with preserved(nn.Linear(2, 2).double(), "eval", 0, torch.device("cpu")):
        assert torch.zeros(1).dtype == torch.float64
    with preserved(Mixed(torch.float64, torch.float32), "eval", 0, torch.device("cpu")):
        assert torch.zeros(1).dtype == torch.float32
