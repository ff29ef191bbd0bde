"""The audit of uncertain inputs on a network whose answer is known, and on one of which it is not."""

import json
import math

import pytest
import torch

from buttress.audits.base.finding import to_json
from buttress.audits.uncertainty import UncertaintyPropagation
from buttress.errors import UserError


def phi(value):
    return 0.5 * torch.special.erfc(-value / math.sqrt(2))


def test_two_classes_told_apart_by_a_plane(line):
    model, x, y, w = line
    finding = UncertaintyPropagation(std=0.2, inputs=50, draws=400)(model, [(x, y)])
    data, rows = finding.data, torch.linspace(0, 199, 50).long()
    lead = (x[rows] @ w) * (2 * y[rows] - 1)
    wanted = phi(-lead.double() / (0.2 * w.double().norm()))
    assert [row["id"] for row in data["rows"]] == rows.tolist()
    for row, share in zip(data["rows"], wanted.tolist(), strict=True):
        assert row["predicted_error"] == row["union"] == pytest.approx(share, rel=1e-4, abs=1e-9)
        assert row["predicted_std"] == pytest.approx([0.1 * float(w.norm())] * 2, rel=1e-5)
        assert row["measured_error"] == pytest.approx(share, abs=0.1)
    assert data["errors"]["measured"] == pytest.approx(float(wanted.mean()), abs=0.02)
    assert data["covariance_error"] == pytest.approx(data["sampling_error"], rel=0.5)
    assert data["shift"] < 0.12
    assert data["correlation"] > 0.95
    assert data["accuracy"] == float((lead > 0).double().mean())
    assert data["noisy_accuracy"] == pytest.approx(1 - data["errors"]["measured"])
    assert finding.verdict.startswith("With normal noise of standard deviation 0.2 on 50 inputs, ")


def test_a_variance_for_each_value(line):
    model, x, y, w = line
    std = [0.0, 0.3, 0.1]
    data = UncertaintyPropagation(std=std, inputs=5, draws=20)(model, [(x, y)]).data
    wanted = 0.5 * float((w * torch.tensor(std)).norm())
    assert data["rows"][0]["predicted_std"] == pytest.approx([wanted] * 2, rel=1e-5)
    with pytest.raises(UserError, match=r"one number for each of the 3 values of an input, not 2"):
        UncertaintyPropagation(std=[0.1, 0.1])(model, [(x, y)])


def test_a_curved_network(pictures, nets):
    model, split = pictures
    model.train()
    before = nets.state(model)
    asked = UncertaintyPropagation(std=0.02, draws=200)
    finding = asked(model, split, batch_size=64)
    nets.assert_state(model, before)
    data = finding.data
    assert data["inputs"] == 24
    assert len(data["rows"][0]["predicted_std"]) == 4
    assert data["covariance_error"] < 2 * data["sampling_error"]  # noise is small, so the network is nearly linear
    assert data["errors"]["predicted"] <= data["errors"]["union"]
    parts = asked(model, split, batch_size=5).data
    assert parts["rows"][7]["measured_std"] == pytest.approx(data["rows"][7]["measured_std"], rel=1e-3)
    assert parts["errors"] == pytest.approx(data["errors"], abs=1e-3)
    assert (
        json.loads(to_json({"network": [finding]}, {}))["networks"]["network"][0]["kind"] == "uncertainty-propagation"
    )
    model.eval()


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"std": 0.0}, "std must be a positive number"),
        ({"std": [0.1, -0.1]}, "std must be a finite number of 0 or more; got -0.1"),
        ({"std": []}, "std must be a positive number"),
        ({"inputs": 0}, "inputs must be a whole number of 1 or more; got 0"),
        ({"draws": 1}, "draws must be a whole number of 2 or more; got 1"),
    ],
)
def test_settings_that_measure_nothing(fields, line):
    with pytest.raises(UserError, match=line):
        UncertaintyPropagation(**fields)
