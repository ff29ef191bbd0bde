"""A linear network whose robustness is known in closed form, images, and an attack that keeps count of itself."""

from dataclasses import dataclass, field

import pytest
import torch

from buttress.attacks import Attack
from buttress.data.dataset import Split
from buttress.threat import Threat


@dataclass(frozen=True, kw_only=True)
class Counted(Attack):
    """One sign step; remembers the budget and the number of inputs of each of its runs."""

    threat: Threat = Threat()
    runs: list = field(default_factory=list, compare=False)

    def perturb(self, oracle, x, y, random):
        self.runs.append((self.threat.eps, len(x)))
        _, grad = oracle.loss_and_grad(x)
        return x + self.threat.eps * grad.sign()

    def fingerprint(self):
        return f"counted {self.threat}"


@pytest.fixture
def counted():
    return Counted(threat=Threat(eps=0.1))


@pytest.fixture(scope="session")
def line():
    """(model, x, y, w): two classes, told apart by the sign of w x; 200 inputs, some on the wrong side."""
    random = torch.Generator().manual_seed(0)
    w = torch.tensor([0.7, -1.1, 0.4])
    x = 0.6 * torch.randn(200, 3, generator=random)
    y = ((x @ w + 0.2 * torch.randn(200, generator=random)) > 0).long()
    model = torch.nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.copy_(torch.stack([-w / 2, w / 2]))
        model.bias.zero_()
    return model.eval(), x, y, w


@pytest.fixture(scope="session")
def pictures(nets):
    """(model, split): 24 images 1x6x6 of four classes and a convolutional network that has seen none of them."""
    random = torch.Generator().manual_seed(1)
    x = torch.rand(24, 1, 6, 6, generator=random)
    return nets.conv(seed=3), Split(x, torch.arange(24) % 4, torch.arange(100, 124))
