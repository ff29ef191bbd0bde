"""What a method can do that takes more than one loss a batch."""

import copy

import pytest
import torch
from torch import nn

from buttress.defences import Loss
from buttress.defences.standard import Standard
from buttress.training import Optimiser, fit

SGD = Optimiser(name="sgd", lr=0.05, momentum=0.0)


@pytest.fixture
def small(nets):
    return nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 4))).train()


def test_gradients_of_several_losses_add_up_to_one_update(small, images):
    class Halves(Standard):
        def step(self, step):
            for _ in range(2):
                loss = step.loss()
                step.backward(Loss(0.5 * loss.value, loss.logs))
            step.apply()

    runs = [
        fit(
            copy.deepcopy(small),
            images,
            d,
            epochs=2,
            batch_size=12,
            seed=3,
            optimiser=SGD,
            validate_with="none",
            keep="last",
        )
        for d in (Standard(), Halves())
    ]
    torch.testing.assert_close(runs[0].model.state_dict(), runs[1].model.state_dict())
