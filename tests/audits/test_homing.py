"""Homing on tables of outcomes made by hand, and on lines whose every answer is known."""

import pytest
import torch
from scipy.stats import binomtest

from buttress.attacks.gradient.pgd import PGD
from buttress.audits.homing import NO_EXAMPLE, Homing, homing_rates
from buttress.data.dataset import Split
from buttress.errors import UserError
from buttress.threat import Threat

NAMES = ("low", "middle", "high")
ATTACK = PGD(threat=Threat(eps=0.1), steps=10)


def bits(text):
    return torch.tensor([one == "1" for one in text])


def rates(taken_for, home, robust=None):
    """Four classes; inputs 0 to 5 are of class 0, the rest of class 1."""
    y = torch.tensor([0] * 6 + [1] * 4)
    robust = robust or {0: 0.5, 1: 0.5, 2: 0.2, 3: 0.3}
    return homing_rates(y, torch.tensor(taken_for), home, robust, ("a", "b", "c", "d"), seed=0)


def test_rates_by_class_and_confound():
    """Of a's examples four go to c, of which three come home without c, one without d; one goes to d and comes home."""
    found = rates(
        [2, 2, 2, 2, 3, NO_EXAMPLE, 2, NO_EXAMPLE, NO_EXAMPLE, 0],
        {2: bits("1110010000"), 3: bits("1000101111")},
    )
    rows = {(row["class"], row["confound"]): row for row in found["rows"]}
    assert set(rows) == {("a", "c"), ("a", "d"), ("b", "c")}  # of class a as a confound there is no network
    assert (rows["a", "c"]["inputs"], rows["a", "c"]["accuracy"]) == (4, 3 / 4)
    assert rows["a", "c"]["control"]["accuracy"] == 1 / 4
    assert rows["a", "c"]["control_class"] == "d"
    assert (rows["a", "d"]["accuracy"], rows["a", "d"]["others"]) == (1.0, 0.0)
    assert (rows["b", "c"]["accuracy"], rows["b", "c"]["others"]) == (0.0, 1.0)
    bounds = binomtest(3, 4).proportion_ci(0.95, method="exact")
    assert (rows["a", "c"]["low"], rows["a", "c"]["high"]) == pytest.approx((bounds.low, bounds.high))
    assert (found["all"]["inputs"], found["all"]["accuracy"]) == (6, 4 / 6)
    assert found["all"]["control"]["accuracy"] == 2 / 6
    assert (found["difference"]["gained"], found["difference"]["lost"]) == (3, 1)
    assert found["difference"]["p"] == pytest.approx(binomtest(3, 4).pvalue)
    assert found["beyond_others"]["difference"] == pytest.approx(2 / 6)


def test_the_control_is_the_class_of_like_robustness_and_others_are_averaged():
    home = {1: bits("1111110000"), 2: bits("1100000000"), 3: bits("0000000000")}
    found = rates([2] * 6 + [NO_EXAMPLE] * 4, home, {0: 0.9, 1: 0.6, 2: 0.2, 3: 0.3})
    (row,) = found["rows"]
    assert (row["control_class"], row["control"]["accuracy"]) == ("d", 0.0)
    assert (row["accuracy"], row["others"]) == (pytest.approx(1 / 3), 0.5)
    assert rates([2] * 6 + [NO_EXAMPLE] * 4, home, {0: 0.9, 1: 0.21, 2: 0.2, 3: 0.3})["rows"][0]["control_class"] == "b"


def test_an_inputs_own_class_is_no_control():
    """Of examples of b the network without b says nothing."""
    found = rates([NO_EXAMPLE] * 6 + [2] * 4, {1: bits("1" * 10), 2: bits("0" * 10)})
    assert (found["rows"][0]["control"], found["rows"][0]["others"], found["difference"]) == (None, None, None)
    assert found["all"]["accuracy"] == 0.0


def test_without_examples_there_is_nothing_to_come_home():
    found = rates([NO_EXAMPLE] * 10, {2: bits("1" * 10), 3: bits("1" * 10)})
    assert (found["rows"], found["all"], found["difference"]) == ([], None, None)


@pytest.fixture(scope="module")
def thirds(nets):
    """Numbers in [0, 1]; below 0.3 is low, above 0.6 high; without a class, one line."""
    x = torch.tensor([0.05, 0.25, 0.35, 0.45, 0.55, 0.65, 0.9])
    y = torch.tensor([0, 0, 1, 1, 1, 2, 2])
    model = nets.linear([[0.0], [10.0], [30.0]], [0.0, -3.0, -15.0])
    without = {
        "low": nets.linear([[0.0], [20.0]], [0.0, -12.0]),  # from 0.6 on high
        "high": nets.linear([[0.0], [10.0]], [0.0, -3.0]),  # from 0.3 on middle
        "middle": nets.linear([[0.0], [20.0]], [0.0, -9.0]),  # from 0.45 on high
    }
    return model, Split(x[:, None], y, torch.arange(7)), without


@pytest.fixture(scope="module")
def ends(thirds):
    """Without the network that lacks middle."""
    model, split, without = thirds
    return model, split, {name: network for name, network in without.items() if name != "middle"}


def test_inputs_between_lines_come_home(ends):
    """0.35 is taken for low and stands without it, 0.55 for high likewise; each falls where the other is removed.

    0.25 and 0.65 are taken for middle, of which there is no network.
    """
    model, split, without = ends
    finding = Homing(without=without, attack=ATTACK)(model, split, classes=NAMES)
    rows = {(row["class"], row["confound"]): row for row in finding.data["rows"]}
    assert set(rows) == {("middle", "low"), ("middle", "high")}
    for row in rows.values():
        assert (row["inputs"], row["accuracy"], row["control"]["accuracy"], row["others"]) == (1, 1.0, 0.0, 0.0)
    assert finding.data["difference"]["difference"] == 1.0
    assert finding.verdict.startswith(
        "Of 2 inputs that PGD-10 at linf eps 0.1 moves into low and high, 100.0% (15.8% to 100.0%) stand on a network"
    )
    assert "0.0% on one without another class of like robustness: +100 points" in finding.verdict
    assert finding.severity == "info"


def test_one_network_has_no_control(ends):
    model, split, without = ends
    finding = Homing(without={0: without["low"]}, attack=ATTACK)(model, split, classes=NAMES)
    assert finding.verdict.endswith("there is no network without another class to compare with.")
    far = split.subset(torch.tensor([0, 6]))
    assert (
        "no input that was classified correctly"
        in Homing(without=without, attack=ATTACK)(model, far, classes=NAMES).verdict
    )


def test_networks_that_do_not_fit_are_refused_before_any_attack(ends, nets):
    model, split, without = ends
    for wrong, told in (
        ({}, "homing needs networks"),
        ({"lo": without["low"]}, "did you mean 'low'"),
        ({"low": model}, "without low: a network for 2 classes, all but low, was expected; got 3 outputs"),
        ({"low": "runs/low"}, "a network was expected in Python; got 'runs/low'"),
    ):
        with pytest.raises(UserError, match=told):
            Homing(without=wrong, attack=ATTACK)(model, split, classes=NAMES)


def test_the_verdict_sets_the_same_inputs_side_by_side(thirds):
    """0.25 has no control where middle and low are removed; of 0.35, taken for low, the control is high."""
    model, split, without = thirds
    middle = {"middle": without["middle"], **without}
    finding = Homing(without=middle, attack=ATTACK)(model, split, classes=NAMES)
    every, test = finding.data["all"], finding.data["difference"]
    rows = [row for row in finding.data["rows"] if row["control"] is not None]
    assert test["inputs"] == sum(row["inputs"] for row in rows)
    assert test["home"] - every["control"]["accuracy"] == pytest.approx(test["difference"])
    without_control = Homing(without={key: middle[key] for key in ("middle", "low")}, attack=ATTACK)
    fewer = without_control(model, split, classes=NAMES)
    assert fewer.data["difference"]["inputs"] < fewer.data["all"]["inputs"]
    assert f"; of the {fewer.data['difference']['inputs']} with a control" in fewer.verdict
