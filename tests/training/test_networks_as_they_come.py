"""Whatever a network does with its inputs, and whatever the caller has switched on, training gives the same bits."""

import copy

import pytest
import torch
from tests.networks import InPlace, Plain, everything_switched_on
from torch import nn

from buttress.defences import TRADES, AdversarialTraining
from buttress.training import EMA
from buttress.training.signals import Interrupted


def test_in_place_networks_and_ambient_settings_give_the_same_weights(mlp, points, train, attack):
    inner, data = mlp(), points
    for defence in (AdversarialTraining(attack), TRADES(threat=attack.threat)):
        plain, other = Plain(copy.deepcopy(inner)), InPlace(copy.deepcopy(inner))
        expected = train(plain, data, defence)
        with everything_switched_on():
            trained = train(other, data, defence)
        assert trained.history == expected.history
        for mine, reference in zip(other.parameters(), plain.parameters(), strict=True):
            assert torch.equal(mine, reference)


class InParts(nn.Module):
    """Two linear layers of data types of their own, the second of what neighbours share by a matrix in some form."""

    def __init__(self, first=torch.float32, second=torch.float32, form=torch.Tensor.clone):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(2, 6).to(first), nn.Linear(6, 2).to(second)
        self.register_buffer("shares", form((0.5 * torch.eye(6) + 0.5 * torch.eye(6).roll(1, 0)).to(first)))

    def forward(self, x):
        h = torch.tanh(self.first(x))
        return self.second((self.shares @ h.T).T.to(self.second.weight.dtype)).to(x.dtype)


@pytest.mark.parametrize("kinds", [(torch.float32, torch.float64), (torch.float64, torch.float32)])
def test_networks_of_two_data_types_are_trained(kinds, points, train):
    model = InParts(*kinds)
    before = copy.deepcopy(model.state_dict())
    train(model, points, epochs=1)
    assert all(not torch.equal(value, before[name]) for name, value in model.named_parameters())


@pytest.mark.filterwarnings("ignore:Sparse (CSR|CSC|BSR|invariant)")
@pytest.mark.parametrize("form", ["to_sparse", "to_sparse_csr"])
def test_a_sparse_buffer_trains_as_a_dense_one_does_and_runs_are_resumed(form, points, train, tmp_path, stop_at):
    def run(form, **options):
        return train(InParts(form=form), points, average=EMA(decay=0.5), **options).model

    whole, sparse = run(torch.Tensor.clone), getattr(torch.Tensor, form)
    with pytest.raises(Interrupted):
        run(sparse, out=tmp_path / "run", progress=stop_at(8))
    resumed = run(sparse, out=tmp_path / "run", resume=True)
    for mine, expected in zip(resumed.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(resumed.shares.to_dense(), whole.shares, rtol=0, atol=0)
