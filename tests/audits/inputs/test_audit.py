"""The audit of single inputs on networks whose every answer is known: also all right, all wrong, one input."""

import json
import math

import pytest
import torch

from buttress import audits, tasks
from buttress.attacks.gradient.pgd import PGD
from buttress.attacks.minimum_norm.fmn import FMN
from buttress.audits.base.finding import to_json
from buttress.audits.inputs.collect import weakest_class, what_to_collect
from buttress.data.dataset import Split
from buttress.errors import UserError
from buttress.threat import Threat

PGD_5 = PGD(threat=Threat(eps=0.1), steps=5)
NAMES = ("low", "middle", "high")


@pytest.fixture(scope="module")
def thirds(nets):
    """Numbers in [0, 1]; below 0.3 is low, above 0.6 high: lines through 0.3 and 0.6."""
    model = nets.linear([[0.0], [10.0], [30.0]], [0.0, -3.0, -15.0])
    x = torch.tensor([0.05, 0.1, 0.15, 0.25, 0.35, 0.45, 0.45, 0.55, 0.65, 0.75, 0.8, 0.9, 0.95, 0.2])
    y = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 1])
    return model, Split(x[:, None], y, torch.arange(100, 114))


def ask(model, data, **settings):
    return audits.Inputs(**{"attacks": [PGD_5], "certificate": None} | settings)(model, data, classes=NAMES)


def test_lists_of_inputs(thirds):
    """Distances: 0.05 for 0.25, 0.35, 0.55 and 0.65; 0.95 and 0.05 are farthest away; 0.2 is wrong as it is."""
    finding = ask(*thirds, shown=4)
    data = finding.data
    assert set(data["hardest"]) == {103, 104, 107, 108}
    assert data["easiest"][0] == 112
    assert (data["failing"], data["wrong"], data["inputs"]) == (5, 1, 14)
    expected = [0.25, 0.2, 0.15, 0.05, 0.05, 0.15, 0.15, 0.05, 0.05, 0.15, 0.2, 0.3, 0.35, 0.0]
    assert data["measured"]["smallest"] == pytest.approx(expected, rel=0.01)
    assert {entry["class"]: set(entry["ids"]) for entry in data["by_class"]} == {
        "low": {103},
        "middle": {104, 107, 113},
        "high": {108},
    }
    card = data["cards"]["113"]
    assert (card["truth"], card["answer"], card["right"], card["smallest"]) == ("middle", "low", False, 0.0)
    assert card["values"] == pytest.approx([0.2])
    assert card["margin"] == pytest.approx(-1.0, abs=1e-5)
    assert "Half of the 13 inputs searched that are classified correctly fall to a linf perturbation of 0.15" in (
        finding.verdict
    )
    assert "5 of 14 fail under PGD-5 at linf eps 0.1." in finding.verdict
    json.loads(to_json({"net": [finding]}, {}))


def test_only_some_are_searched(thirds):
    data = ask(*thirds, inputs=3, minimum_norm=False).data
    assert data["measured"]["ids"] == [100, 106, 113]
    assert data["failing"] == 5
    assert data["cards"]["104"]["smallest"] is None


def test_an_attack_without_a_budget_fails_the_nearer_half(thirds):
    """The seventh of the 13 distances is 0.15, as are three others, which rounding puts before or behind it."""
    data = ask(*thirds, attacks=[FMN(threat=Threat(eps=math.inf), steps=40)], minimum_norm=False).data
    assert data["failing"] in range(1 + 7, 1 + 9)
    assert data["threat"].startswith("linf eps 0.1")


def test_attacks_of_another_threat_are_left_out_by_name(thirds):
    other = PGD(threat=Threat(norm="l2", eps=0.1), steps=2)
    data = ask(*thirds, attacks=[PGD_5, other], minimum_norm=False).data
    assert data["measured"]["left_out"] == {"PGD-2": "its threat is another than that of PGD-5"}


@pytest.mark.parametrize("wrong", [False, True])
def test_all_right_or_all_wrong_and_few(thirds, wrong):
    model, split = thirds
    x, y = split.x[[0, 5]], split.y[[0, 5]]
    y = (y + 1) % 3 if wrong else y
    for count in (2, 1):
        finding = ask(model, [(x[:count], y[:count])], attacks=[PGD(threat=Threat(eps=0.01), steps=2)])
        assert finding.data["failing"] == (count if wrong else 0)
        ending = "stand out neither by their truth nor as groups: collect evenly." if wrong else "what to collect."
        assert finding.verdict.endswith(ending)
        assert ("None of the inputs searched is classified correctly." in finding.verdict) == wrong


def test_images_have_pictures_and_layers_their_inputs(pictures):
    model, split = pictures
    data = audits.Inputs(attacks=[PGD_5], inputs=6, certificate=None, pictures=10)(model, split).data
    assert len(data["cards"]) == 10
    assert all(card["picture"].startswith("data:image/png;base64,") for card in data["cards"].values())
    assert "mean brightness" in data["groups"][0]["sentence"]
    assert data["features"] == data["by_layer"][-1]["layer"]
    for entry in data["by_layer"]:
        assert entry["displacement"] == sorted(entry["displacement"], reverse=True)
        assert set(entry["ids"]) <= set(split.ids.tolist())


def test_values_have_no_classes(nets):
    model, x = nets.linear([[1.0, -1.0]]), 0.2 + 0.6 * torch.rand(6, 2)  # the box is out of reach
    y = model(x).detach()
    audit = audits.Inputs(attacks=[PGD(threat=Threat(eps=0.05), steps=5)])
    (finding,) = audits.run(model, [(x, y)], [audit], task=tasks.Regression(tolerance=0.05))
    assert "labels" not in finding.data
    assert "certificates are for networks that classify" in finding.data["measured"]["unknown"]
    exact = torch.full((6,), 0.025)  # |change| of 0.05 by two weights of 1
    torch.testing.assert_close(torch.tensor(finding.data["measured"]["smallest"]), exact, rtol=0.3, atol=0)


def test_the_weakest_class_and_what_follows():
    y = torch.tensor([0] * 20 + [1] * 20)
    robust = torch.tensor([True] * 18 + [False] * 2 + [True] * 4 + [False] * 16)
    weakest = weakest_class(y, robust, ("cat", "dog"))
    assert (weakest["class"], weakest["accuracy"], weakest["others"]) == ("dog", 0.2, 0.9)
    assert weakest["significant"]
    assert what_to_collect(weakest, [], 18) == (
        "Collect more of class dog next: 20.0% of its 20 inputs stand (5.7% to 43.7%), against 90.0% of the others."
    )
    even = weakest_class(y, torch.tensor([True, False] * 20), ("cat", "dog"))
    assert not even["significant"]
    groups = [{"inputs": 12, "sentence": "they are dark"}, {"inputs": 8, "sentence": ""}]
    assert what_to_collect(even, groups, 20) == (
        "Collect more inputs like those of group 1, the largest of 2: 12 of the 20 that fail; they are dark."
    )


def test_settings_that_show_nothing():
    for settings in ({"attacks": []}, {"inputs": 0}, {"shown": 0}, {"pictures": -1}):
        with pytest.raises(UserError):
            audits.Inputs(**settings)
