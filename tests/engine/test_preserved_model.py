"""The random state of every device comes back, and recurrent layers give gradients on a GPU."""

import pytest
import torch
from torch import nn

from buttress.attacks import PGD
from buttress.engine.preserved_model import preserved
from buttress.errors import UserError
from buttress.random import own_draws


class Device:
    """Stands for ``torch.cuda``: one generator's state, and a record of what was done to it."""

    def __init__(self):
        self.state, self.seeds = "the caller's", []

    def get_rng_state(self, device):
        return self.state

    def set_rng_state(self, state, device):
        self.state = state

    def manual_seed(self, seed):
        self.state = seed
        self.seeds.append(seed)


@pytest.fixture
def gpu(monkeypatch):
    """A GPU as far as random states go."""
    device = Device()
    monkeypatch.setattr(torch, "get_device_module", lambda place: device)
    return device


def test_a_gpu_draws_from_the_seed_and_its_state_comes_back(gpu):
    before = torch.get_rng_state()
    with own_draws(7, {torch.device("cpu"), torch.device("cuda")}):
        assert gpu.state == 7
        assert torch.initial_seed() == 7
    assert gpu.state == "the caller's"
    assert torch.equal(torch.get_rng_state(), before)


def test_computing_on_the_cpu_leaves_a_gpu_alone(gpu, nets, monkeypatch):
    """`torch.manual_seed` would seed it."""
    model = nets.conv()
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch, "manual_seed", lambda seed: pytest.fail("every device was seeded"))
    PGD(steps=1)(model, torch.rand(2, 1, 6, 6), torch.zeros(2, dtype=torch.long))
    assert gpu.state == "the caller's"
    assert not gpu.seeds


@pytest.mark.parametrize(
    ("model", "mode", "without"),
    [
        (nn.Sequential(nn.GRU(3, 3)), "eval", True),
        (nn.Sequential(nn.GRU(3, 3)), "train", False),
        (nn.Sequential(nn.Linear(3, 3)), "eval", False),
    ],
    ids=["recurrent", "in train mode", "of other layers"],
)
def test_recurrent_layers_in_eval_mode_do_without_cudnn_on_a_gpu(gpu, model, mode, without):
    """Which refuses the backward pass there."""
    enabled = torch.backends.cudnn.enabled
    with preserved(model, mode, 0, torch.device("cuda")):
        assert torch.backends.cudnn.enabled == (enabled and not without)
    assert torch.backends.cudnn.enabled == enabled
    with preserved(model, mode, 0, torch.device("cpu")):
        assert torch.backends.cudnn.enabled == enabled


def test_a_network_whose_parameters_are_not_there_yet_is_told():
    model = nn.Sequential(nn.LazyLinear(3))
    message = "parameter 'weight' of a LazyLinear is not there yet: run the network once"
    with pytest.raises(UserError, match=message), preserved(model, "eval", 0, torch.device("cpu")):
        pass
