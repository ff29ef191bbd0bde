"""The min-max property against scipy and by hand."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import kurtosis
from torch import nn

from buttress import audits
from buttress.audits.base.finding import to_json
from buttress.audits.weights import Weights


def test_figures_of_each_layer(nets, pictures):
    model, split = pictures
    finding = Weights()(model, split)
    rows = finding.data["layers"]
    assert [(row["layer"], row["kind"], row["weights"]) for row in rows] == [
        ("0", "Conv2d", 36),
        ("2", "Conv2d", 216),
        ("5", "Linear", 216),
    ]
    for row in rows:
        weight = model.get_submodule(row["layer"]).weight.detach().double().flatten().numpy()
        assert row["kurtosis"] == pytest.approx(kurtosis(weight, fisher=False), rel=1e-10)
        assert row["spread"] == pytest.approx(np.abs(weight).sum() / (len(weight) * (weight**2).sum()) ** 0.5)
        assert row["small"] == (np.abs(weight) < 0.01).mean()
        assert row["largest"] == np.abs(weight).max()
    every = torch.cat([model[k].weight.detach().flatten() for k in (0, 2, 5)]).abs()
    assert finding.data["small"] == pytest.approx(float((every < 0.01).double().mean()))
    assert finding.data["weights"] == 468
    top = max(rows, key=lambda row: row["kurtosis"])
    assert f"highest in {top['layer']}, {top['kurtosis']:.3g} " in finding.verdict


def test_one_weight_alone_and_weights_of_one_size(pictures):
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.Linear(4, 4))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].weight[2, 5] = -3.0
        model[2].weight.copy_(torch.tensor([1.0, -1.0, 1.0, -1.0]).expand(4, 4))
    alone, even = Weights()(model, pictures[1]).data["layers"]
    assert alone["spread"] == pytest.approx(1 / 12)
    assert alone["small"] == 143 / 144
    assert alone["largest"] == 3
    assert alone["kurtosis"] == pytest.approx(144 - 2 + 1 / 143)  # of one weight among n
    assert (even["spread"], even["kurtosis"], even["small"]) == (pytest.approx(1), pytest.approx(1), 0)


def test_what_is_not_defined_is_null_in_the_file(pictures):
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4))
    nn.init.zeros_(model[1].weight)
    finding = Weights()(model, pictures[1])
    assert math.isnan(finding.data["layers"][0]["kurtosis"])
    row = json.loads(to_json({"network": [finding]}, {}))["networks"]["network"][0]["data"]["layers"][0]
    assert (row["kurtosis"], row["spread"], row["small"], row["largest"]) == (None, None, 1.0, 0.0)


def test_a_network_without_layers_says_so(line):
    class Plain(nn.Module):
        def forward(self, x):
            return x[:, :2]

    finding = Weights()(Plain(), [(line[1], line[2])])
    assert finding.data == {}
    assert "no convolution or linear layer" in finding.verdict
    assert "weights" in audits.names()
