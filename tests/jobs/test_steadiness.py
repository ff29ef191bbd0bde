"""A network whose answer to an input changes is told: from call to call, or with what is beside it in the batch."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from buttress import audits
from buttress.data.dataset import Split
from buttress.jobs.steadiness import unsteadiness


class Around(nn.Module):
    def __init__(self, **parts):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8, **parts), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x):
        return self.net(x)


class Dropping(Around):
    def forward(self, x):
        return self.net(F.dropout(x, 0.3))


class Counting(Around):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return self.net(x) + self.calls


class Averaging(Around):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x):
        output = self.net(x)
        self.mean.mul_(0.9).add_(output.mean(0).detach(), alpha=0.1)
        return output - self.mean


class AlwaysTraining(Around):
    def train(self, mode=True):
        return super().train(True)


def told(model):
    x = torch.rand(40, 5, generator=torch.Generator().manual_seed(1))
    split = Split(x, torch.arange(40) % 3, torch.arange(40))
    return unsteadiness(audits.subject(model, split, limit=40))


@pytest.mark.parametrize("network", [Dropping, Counting, Averaging])
def test_other_answers_to_the_same_inputs_are_told(network):
    model = network().eval()
    assert told(model).startswith("The network answers differently when it is asked again about the same inputs")
    assert not getattr(model, "mean", torch.zeros(1)).any()  # what it keeps is as it was


@pytest.mark.parametrize("network", [AlwaysTraining, lambda: Around(track_running_stats=False)])
def test_answers_that_depend_on_the_batch_are_told(network):
    assert told(network().eval()).startswith("What the network answers for an input depends on the others in its batch")


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
def test_others_are_not(kind):
    assert told(Around().to(kind).eval()) == ""
