"""A user's network is called in one place, which hands it tensors of its own and keeps what it returns."""

import ast
from pathlib import Path

import pytest
import torch
from torch import nn

import buttress
from buttress import attacks
from buttress.model_call import call_model, half_precision
from buttress.threat import Threat

SOURCE = Path(buttress.__file__).parent
NETWORKS = {"model", "network", "surrogate", "teacher"}


def calls_of_networks(file):
    """Lines that call something named like a network."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in NETWORKS:
                yield node.lineno


def test_nothing_else_calls_a_network():
    """Networks that hold networks, in models/, pass on what they were handed."""
    files = [file for file in SOURCE.rglob("*.py") if "models" not in file.relative_to(SOURCE).parts[:1]]
    found = [f"{file.relative_to(SOURCE)}:{line}" for file in files for line in calls_of_networks(file)]
    assert [place for place in found if not place.startswith("model_call.py:")] == []


def test_the_input_is_a_copy_and_no_leaf():
    seen = []
    x = torch.zeros(2, 3, requires_grad=True)
    call_model(lambda x: seen.append(x) or x.add_(1), x)
    assert not x.any()
    assert not seen[0].is_leaf


def test_the_output_is_a_copy():
    memory = torch.zeros(2, 3)
    first = call_model(lambda x: memory.fill_(1), torch.zeros(2, 3))
    call_model(lambda x: memory.fill_(2), torch.zeros(2, 3))
    assert first.tolist() == [[1.0] * 3] * 2


@pytest.mark.parametrize(
    ("output", "shape"), [((), (1,)), ((3,), (1, 3)), ((1, 3), (1, 3)), ((1,), (1,)), ((3, 4, 4), (1, 3, 4, 4))]
)
def test_a_single_input_has_its_axis_back(output, shape):
    assert call_model(lambda x: torch.zeros(output), torch.zeros(1, 2)).shape == shape


def test_half_precision_is_that_of_all_weights():
    assert half_precision(nn.Linear(2, 2).half()) == torch.float16
    assert half_precision(nn.Linear(2, 2).bfloat16()) == torch.bfloat16
    assert half_precision(nn.Linear(2, 2)) is None
    assert half_precision(nn.Sequential(nn.Linear(2, 2).half(), nn.Linear(2, 2))) is None  # it casts by itself
    assert half_precision(nn.ReLU()) is None
    assert half_precision(len) is None


def test_a_network_of_float64_gets_such_inputs():
    for model in (nn.Linear(2, 2).double(), nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).double().eval()):
        assert call_model(model, torch.ones(3, 2)).dtype == torch.float64
    assert call_model(nn.Linear(2, 2), torch.ones(3, 2)).dtype == torch.float32
    assert call_model(nn.Flatten(), torch.ones(3, 2)).dtype == torch.float32


def test_float64_is_attacked_from_inputs_of_float32(nets):
    x, y = torch.rand(6, 1, 6, 6, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 4
    pgd = attacks.PGD(threat=Threat(eps=0.1), steps=3)
    exact, usual = pgd(nets.conv().double(), x, y), pgd(nets.conv(), x, y)
    assert exact.x_adv.dtype == torch.float32
    torch.testing.assert_close(exact.x_adv, usual.x_adv)
