"""The pretended device finds planted mistakes, and lets pass what a GPU lets pass."""

import copy

import pytest
import torch
import torch.nn.functional as F
from tests.pretended_device import PretendedDevice
from torch import nn

from buttress.ambient_state import usual_state

HERE = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(4) % 3

MISTAKES = {
    "sum": lambda x: x + HERE,
    "written into the CPU's": lambda x: HERE.clone().add_(x),
    "number written into": lambda x: torch.zeros(()).add_(x.sum()),
    "choice": lambda x: torch.where(x > 0, x, HERE),
    "joined": lambda x: torch.cat([x, HERE]),
    "numbers joined": lambda x: torch.stack([x.sum(), torch.tensor(1.0)]),
    "indices of the CPU's": lambda x: HERE[(x[:, 0] > 0.5)],
    "gathered": lambda x: x.gather(1, CLASSES[:, None]),
    "labels": lambda x: F.cross_entropy(x, CLASSES),
    "weights": lambda x: nn.Linear(3, 2)(x),
    "made without a device": lambda x: x * torch.arange(3),
    "generator": lambda x: torch.rand(3, device=x.device, generator=torch.Generator()),
    "generator in place": lambda x: x.clone().uniform_(generator=torch.Generator()),
    "numpy": lambda x: x.numpy(),
    "in a gradient": lambda x: torch.autograd.grad(Mistaken.apply(x.requires_grad_()).sum(), x),
    "vectorised": lambda x: torch.func.vmap(lambda row: row + HERE[0])(x),
}
FINE = {
    "numbers": lambda x: x + torch.tensor(2.0) + x.sum(),
    "indices": lambda x: x[torch.tensor([0, 1])],
    "copied from": lambda x: HERE.clone().copy_(x).to(x.device),
    "copied to": lambda x: x.clone().copy_(HERE),
    "moved": lambda x: x + HERE.to(x) + HERE.to(x.device),
    "made there": lambda x: x + torch.zeros(3, device=x.device) + x.new_tensor([1.0, 2.0, 3.0]) + torch.ones_like(x),
    "one-hot": lambda x: x * F.one_hot(CLASSES.to(x.device), 3),
    "network": lambda x: copy.deepcopy(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).to(x.device))(x),
    "network like a tensor": lambda x: nn.Linear(3, 4).to(x)(x),
    "gradient": lambda x: torch.autograd.grad((y := x.clone().requires_grad_()).square().sum(), y)[0],
    "view": lambda x: x[1:].T.detach().data,
    "Jacobian": lambda x: torch.func.jacrev(torch.square)(x),
}
FLOAT64 = {
    "double": lambda x: x.double(),
    "to": lambda x: x.to(torch.float64),
    "moved": lambda x: HERE.double().to(x.device),
    "made": lambda x: torch.zeros(3, dtype=torch.float64, device=x.device),
    "made alike": lambda x: torch.zeros_like(x, dtype=torch.float64),
    "made anew": lambda x: x.new_zeros(3, dtype=torch.float64),
    "softmax": lambda x: x.softmax(1, dtype=torch.float64),
    "module": lambda x: nn.Linear(3, 2).double().to(x.device)(x.double()),
}


class Mistaken(torch.autograd.Function):
    """Its backward pass multiplies by what lies on the CPU."""

    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        return grad * HERE


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_found(mistake):
    with PretendedDevice() as place:
        x = HERE.to(place.device)
        with pytest.raises((RuntimeError, TypeError)):
            MISTAKES[mistake](x)


@pytest.mark.parametrize("step", FINE)
def test_what_a_gpu_does_passes(step):
    with PretendedDevice() as place:
        assert FINE[step](HERE.to(place.device)).device == place.device
        assert FINE[step](HERE.to(place.device)).cpu().device == torch.device("cpu")
    assert HERE.device == torch.device("cpu")


@pytest.mark.parametrize("step", FLOAT64)
def test_float64_is_refused_where_there_is_none_and_float32_stands_in_for_it(step):
    with PretendedDevice("mps") as place:
        with pytest.raises(TypeError, match=r"mps has no torch\.float64"):
            FLOAT64[step](HERE.to(place.device))
        with usual_state():
            there = FLOAT64[step](HERE.to(place.device))
        assert (there.dtype, there.device) == (torch.float32, place.device)
        with usual_state():
            assert FLOAT64[step](HERE).dtype == torch.float64
