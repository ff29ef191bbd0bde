"""Which end time is best, on a network whose loss at each time is known."""

import pytest
import torch
from torch import nn

from buttress import audits, models
from buttress.audits.end_time import EndTime
from buttress.data.dataset import Split
from buttress.errors import UserError


class Known(nn.Module):
    """Best at T = 0.7 on even inputs and 0.9 on odd ones: log p of class 0 is -(T - best)^2 - 0.1."""

    def forward(self, x):
        return torch.zeros(len(x), 2)

    def over_time(self, x, times):
        best = torch.where(x[:, 0, 0, 0] > 0, 0.9, 0.7)
        first = -((times[:, None] - best) ** 2) - 0.1
        logs = torch.stack([first, (1 - first.exp()).log()], 2)
        return {"log_probabilities": logs, "density": times[:, None].expand(-1, len(x)), "mean": best + 0.1}


@pytest.fixture
def split():
    x = (torch.arange(8) % 2)[:, None, None, None].float().expand(8, 1, 2, 2).contiguous()
    return Split(x, torch.zeros(8, dtype=torch.int64), torch.arange(8))


def test_curves_and_the_best_time(split):
    data = EndTime(times=(1.2, 0.4, 0.8))(models.Normalized(Known(), 0.0, 1.0), split).data
    assert data["times"] == [0.4, 0.8, 1.2]
    assert data["nll"] == pytest.approx([0.1 + (0.09 + 0.25) / 2, 0.11, 0.1 + (0.09 + 0.25) / 2])
    assert data["accuracy"] == pytest.approx([1.0, 1.0, 1.0])
    assert data["density"] == pytest.approx([0.4, 0.8, 1.2])
    assert (data["best"], data["best_low"], data["best_high"]) == (0.8, 0.8, 0.8)
    assert data["mean"] == pytest.approx(0.9)
    assert data["spread"] == pytest.approx(0.1)
    assert data["nll_at_mean"] == pytest.approx(0.11)
    assert data["distance"] == pytest.approx(0.1)


def test_the_interval_is_over_inputs(split):
    data = EndTime(times=(0.7, 0.9))(Known(), split).data
    assert (data["best_low"], data["best_high"]) == (0.7, 0.9)


@pytest.mark.parametrize("name", ["lt-node", "alt-node"])
def test_latent_time_networks(name):
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    split = Split(x, torch.arange(5), torch.arange(5))
    model = models.create(name, width=4, extractor="small", seed=1, mean=0.5, std=0.5)
    parts = [audits.run(model, split, [EndTime()], batch_size=size)[0].data for size in (2, 5)]
    assert parts[0]["nll"] == pytest.approx(parts[1]["nll"], rel=1e-5)
    assert len(parts[0]["nll"]) == 40
    area = torch.trapezoid(torch.tensor(parts[0]["density"]), torch.tensor(parts[0]["times"]))
    assert 0.9 < float(area) <= 1
    assert parts[0]["mean"] == pytest.approx(1.0, abs=0.3)
    assert (parts[0]["spread"] > 1e-6) == (name == "alt-node")


def test_networks_without_end_times_and_times_that_are_none(split):
    with pytest.raises(UserError, match="has no latent end time"):
        EndTime()(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), split)
    with pytest.raises(UserError, match=r"times must be a finite number above 0; got 0\.0"):
        EndTime(times=(0.0, 1.0))
