"""Roughness along depth, by hand."""

import pytest
import torch
from torch import nn

from buttress import models
from buttress.audits.roughness import Roughness
from buttress.models.architectures.snode import roughness

X = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def test_of_a_standalone_ode():
    net = models.create("snode", seed=0, classes=3, image_size=4, time=1.0, resolution=5, mean=0.5)
    weight = net.model.weight.detach().double()
    finding = Roughness()(net, [(X, torch.tensor([0, 1]))])
    changed = sum(float((weight[k + 1] - weight[k]).square().sum()) for k in range(4))
    sizes = weight.square().sum((1, 2))
    assert finding.data["pairs"] == 4
    assert finding.data["roughness"] == pytest.approx(changed) == pytest.approx(roughness(net.model.weight))
    assert finding.data["relative"] == pytest.approx(changed / float((sizes[1:] + sizes[:-1]).sum() / 2))
    assert finding.verdict.startswith("Over 4 steps of depth ")


def test_of_layers_only_neighbours_of_one_shape_count():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        model[3].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        model[5].weight.copy_(torch.tensor([[1.0, 3.0], [0.0, 0.0]]))
    data = Roughness()(model, [(X, torch.tensor([0, 1]))]).data
    assert data == {"pairs": 1, "roughness": 13.0, "relative": 13.0 / 7.5}


def test_of_no_layers():
    finding = Roughness()(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), [(X, torch.tensor([0, 1]))])
    assert finding.data == {"pairs": 0, "roughness": 0.0, "relative": 0.0}
    assert finding.verdict == "No two neighbouring layers have kernels of one shape."
