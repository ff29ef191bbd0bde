import pytest
import torch

from buttress import audits
from buttress.audits.boundary import Boundary
from buttress.errors import UserError

W = torch.tensor([[0.0, 0.0], [3.0, -4.0]])


def ask(nets, **fields):
    x = torch.tensor([[0.0, 0.0], [2.0, 1.0], [1.0, 0.5]])
    data = [(x, torch.tensor([0, 1, 1]))]
    return audits.run(nets.linear(W), data, [Boundary(**fields)], classes=["low", "high"])[0]


def test_the_plane_is_the_sigmoid_of_the_linear_network(nets):
    data = ask(nets, grid=5, margin=0.5).data
    assert data["x"] == pytest.approx([-1, 0, 1, 2, 3])
    assert data["y"] == pytest.approx([-0.5, 0, 0.5, 1, 1.5])
    for row, y in zip(data["probability"], data["y"], strict=True):
        assert row == pytest.approx([float(torch.sigmoid(torch.tensor(3 * x - 4 * y))) for x in data["x"]])


def test_points_and_classes_are_the_datas(nets):
    finding = ask(nets, grid=2, margin=0.0, points=2)
    assert finding.data["points"] == {"x": [0.0, 2.0], "y": [0.0, 1.0], "label": [0, 1]}
    assert finding.data["classes"] == ["low", "high"]
    assert (
        finding.verdict == "50% of the plane shown is classified as high."
    )  # (2, 0) and (2, 1), not (0, 0) and (0, 1)


def test_inputs_with_other_features_are_told(line):
    model, x, y, _ = line
    finding = audits.run(model, [(x, y)], [Boundary()])[0]
    assert (finding.verdict, finding.data) == ("The inputs do not have two features.", {})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"grid": 1}, "grid must be a whole number of 2 or more; got 1"),
        ({"points": -1}, "points must be a whole number of 0 or more; got -1"),
        ({"margin": -0.1}, "margin must be a finite number of 0 or more; got -0.1"),
    ],
)
def test_what_draws_nothing_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        Boundary(**fields)
