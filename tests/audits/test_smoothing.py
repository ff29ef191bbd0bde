"""The audit of smoothing on a plane, whose smoothed network is the plane itself, and on a curved network."""

import json

import pytest
import torch

from buttress import audits
from buttress.audits.base.finding import to_json
from buttress.audits.smoothing import Smoothing
from buttress.certificates import Smoothed
from buttress.errors import UserError


def asked(**settings):
    return Smoothing(**{"sigma": [0.5], "n": 400, "inputs": 60, "steps": 3, "samples": 2, "box": None, **settings})


def test_a_plane_is_certified_up_to_its_distance_and_attacked_beyond(line):
    """With normal noise the smoothed network of a plane is the plane: the truth of both curves is the distance."""
    model, x, y, w = line
    rows = torch.linspace(0, 199, 40).round().long()
    distance = ((x[rows] @ w) * (2 * y[rows] - 1) / w.norm()).double()
    finding = asked(radii=[0.1, 0.3, 0.6], n0=300, inputs=40)(model, [(x, y)])
    (row,) = finding.data["sigmas"]
    assert [point["radius"] for point in row["certified"]] == [0.0, 0.1, 0.3, 0.6]
    for point in row["certified"]:
        truth = float((distance > point["radius"]).double().mean())
        assert truth - 0.35 <= point["accuracy"] <= truth
    for point in row["attacked"]:
        truth = float((distance > point["eps"]).double().mean())
        assert point["accuracy"] == pytest.approx(truth, abs=0.07)  # votes decide near the plane
        certified = next(one["accuracy"] for one in row["certified"] if one["radius"] == point["eps"])
        assert certified <= point["accuracy"]
    assert row["contradicted"] == 0
    assert all(radius <= float(distance[place]) for place, radius in _certified(row))
    assert finding.severity == "info"
    assert finding.verdict.startswith("Smoothed by normal noise of sigma 0.5, ")


def _certified(row):
    return [(place, one["radius"]) for place, one in enumerate(row["rows"]) if one["right"]]


def test_figures_are_those_of_the_smoothed_network(pictures, nets):
    model, split = pictures
    before = nets.state(model)
    finding = asked(sigma=[0.4, 0.2], inputs=10, steps=0, alpha=0.05)(model, split, seed=3, batch_size=64)
    nets.assert_state(model, before)
    data = finding.data
    assert [row["sigma"] for row in data["sigmas"]] == [0.2, 0.4]
    part = audits.subject(model, split, seed=3).subset(10)
    smooth = Smoothed(model, sigma=0.2, n0=100, n=400, alpha=0.05, seed=3)
    certificate = smooth.certify(part.x, ids=part.ids)
    row = data["sigmas"][0]
    assert row["ceiling"] == smooth.ceiling()
    assert row["abstained"] == pytest.approx(float(certificate.abstained.double().mean()))
    assert row["certified"][0]["accuracy"] == pytest.approx(float(certificate.certified(part.y).double().mean()))
    assert [one["id"] for one in row["rows"]] == part.ids.tolist()
    assert [one["radius"] for one in row["rows"]] == certificate.radius.tolist()
    assert "attacked" not in row
    assert data["attack"] is None
    best = [max(one["certified"][k]["accuracy"] for one in data["sigmas"]) for k in range(len(data["best"]))]
    assert [point["accuracy"] for point in data["best"]] == best
    assert json.loads(to_json({"network": [finding]}, {}))["networks"]["network"][0]["kind"] == "smoothing"


def test_a_network_that_cannot_answer_under_noise_is_told(nets):
    """Its classes are thin stripes, so that under noise it answers at random."""

    class Stripes(torch.nn.Module):
        def forward(self, x):
            wave = torch.sin(200 * x[:, :1])
            return torch.cat([wave, -wave], 1)

    x = torch.rand(40, 2, generator=torch.Generator().manual_seed(0))
    y = Stripes()(x).argmax(1)
    finding = asked(inputs=40, steps=0)(Stripes(), [(x, y)])
    assert finding.severity == "warning"
    assert finding.verdict.endswith("train it by --defence smoothed.")


def test_a_network_without_gradients_is_certified_and_not_attacked(pictures):
    model, split = pictures

    class Black(torch.nn.Module):
        def forward(self, x):
            return model(x.detach()).detach()

    finding = asked(inputs=5)(Black(), split)
    assert finding.data["attack"] is None
    assert len(finding.data["sigmas"][0]["rows"]) == 5


def test_radii_are_multiples_of_the_smallest_sigma_as_far_as_votes_can_show():
    assert Smoothing().listed == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert Smoothing(radii=[1.0, 0.5]).listed == [0.0, 0.5, 1.0]
    assert len(Smoothing(sigma=[0.01, 1.0]).listed) <= 13
    assert Smoothing(n=5).listed == [0.0]


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"sigma": []}, r"sigma must be a list of numbers; got \[\]"),
        ({"sigma": 0.5}, "sigma must be a list of numbers; got 0.5"),
        ({"sigma": [0.0]}, "sigma must be a finite number above 0; got 0.0"),
        ({"radii": [-1.0]}, "radii must be a finite number of 0 or more; got -1.0"),
        ({"n": 0}, "n must be a whole number of 1 or more; got 0"),
        ({"alpha": 0.0}, r"alpha must be a number in \(0, 1\); got 0.0"),
        ({"steps": -1}, "steps must be a whole number of 0 or more; got -1"),
        ({"samples": 0}, "samples must be a whole number of 1 or more; got 0"),
        ({"inputs": 0}, "inputs must be a whole number of 1 or more; got 0"),
    ],
)
def test_settings_that_mean_nothing(settings, line):
    with pytest.raises(UserError, match=line):
        Smoothing(**settings)
