"""Robustness by class on a network whose every answer is known."""

import math

import pytest
import torch
from scipy.stats import binomtest, pearsonr, spearmanr
from torch import nn

from buttress.attacks import Gaussian
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.classes import Classes, tied_with_worst
from buttress.data.dataset import Split
from buttress.errors import UserError
from buttress.threat import Threat

EPS = 0.1
ATTACK = PGD(threat=Threat(eps=EPS), steps=10)
NAMES = ("low", "middle", "high")


@pytest.fixture(scope="module")
def thirds(nets):
    """Numbers in [0, 1]; below 0.3 is low, above 0.6 high: lines through 0.3 and 0.6."""
    model = nets.linear([[0.0], [10.0], [30.0]], [0.0, -3.0, -15.0])
    x = torch.tensor([0.05, 0.1, 0.15, 0.25, 0.35, 0.45, 0.45, 0.55, 0.65, 0.75, 0.8, 0.9, 0.95, 0.2])
    y = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 1])
    return model, Split(x[:, None], y, torch.arange(14))


def test_accuracies_and_gaps(thirds):
    """low: 0.25 falls; middle: 0.45 twice stands, 0.35 and 0.55 fall, 0.2 is wrong; high: 0.65 falls."""
    finding = Classes(attack=ATTACK)(*thirds, classes=NAMES)
    data, rows = finding.data, finding.data["classes"]
    assert [row["class"] for row in rows] == list(NAMES)
    assert [row["inputs"] for row in rows] == [4, 5, 5]
    assert [row["clean"] for row in rows] == pytest.approx([1.0, 0.8, 1.0])
    assert [row["accuracy"] for row in rows] == pytest.approx([3 / 4, 2 / 5, 4 / 5])
    for row, right in zip(rows, (3, 2, 4), strict=True):
        bounds = binomtest(right, row["inputs"]).proportion_ci(0.95, method="exact")
        assert (row["low"], row["high"]) == pytest.approx((bounds.low, bounds.high))
    assert data["robust"] == pytest.approx(9 / 14)
    assert (data["worst"], data["mcd"]) == ("middle", pytest.approx(0.4))
    mean = (0.75 + 0.4 + 0.8) / 3
    assert data["cv"] == pytest.approx(((0.75 - mean) ** 2 + (0.4 - mean) ** 2 + (0.8 - mean) ** 2) / 3)
    assert finding.severity == "info"
    assert finding.verdict.startswith(
        "Robust accuracy under PGD-10 at linf eps 0.1 is 64.3%; in the worst class, middle,"
    )
    assert "middle, 40.0%" in finding.verdict
    assert finding.verdict.endswith("40 points below the best; that may be chance.")


def test_what_attacked_inputs_are_taken_for(thirds):
    data = Classes(attack=ATTACK)(*thirds, classes=NAMES).data
    assert data["predicted"] == list(NAMES)
    expected = [[0.75, 0.25, 0.0], [0.4, 0.4, 0.2], [0.0, 0.2, 0.8]]
    torch.testing.assert_close(torch.tensor(data["confusion"]), torch.tensor(expected))


def test_mistakes_within_groups(thirds):
    """Five mistakes: low to middle, middle to low twice, middle to high, high to middle."""
    ask = Classes(attack=ATTACK, groups={"lower": ["low", 1], "upper": ["high"]})
    found = ask(*thirds, classes=NAMES).data["groups"]
    assert found == {"mistakes": 5, "within": 3 / 5, "by_group": {"lower": 3 / 4, "upper": 0.0}}
    partly = Classes(attack=ATTACK, groups={"ends": ["low", "high"]})(*thirds, classes=NAMES).data["groups"]
    assert partly == {"mistakes": 2, "within": 0.0, "by_group": {"ends": 0.0}}
    assert "groups" not in Classes(attack=ATTACK)(*thirds, classes=NAMES).data


@pytest.mark.parametrize(
    ("groups", "told"),
    [({"a": ["lw"]}, "did you mean 'low'"), ({"a": ["low"], "b": [0]}, "'low' is in 'a' and in 'b'")],
)
def test_groups_that_cannot_be(groups, told, thirds):
    with pytest.raises(UserError, match=told):
        Classes(attack=ATTACK, groups=groups)(*thirds, classes=NAMES)


def test_correlation_with_the_norms_of_the_last_weights(thirds):
    data = Classes(attack=ATTACK)(*thirds, classes=NAMES).data
    norms, shares = [0.0, 10.0, 30.0], [0.75, 0.4, 0.8]
    assert [row["weight_norm"] for row in data["classes"]] == pytest.approx(norms)
    assert data["pearson"] == pytest.approx(pearsonr(norms, shares).statistic)
    assert data["spearman"] == pytest.approx(spearmanr(norms, shares).statistic)


def test_without_a_last_layer_there_is_no_correlation(thirds):
    model = nn.Sequential(thirds[0], nn.Softplus())
    data = Classes(attack=ATTACK)(model, thirds[1], classes=NAMES).data
    assert "pearson" not in data
    assert "weight_norm" not in data["classes"][0]


@pytest.mark.parametrize(("wrong", "severity"), [(15, "warning"), (3, "info")])
def test_a_worst_class_that_is_no_chance_is_a_warning(wrong, severity, nets):
    """Two classes of 40; of one, ``wrong`` inputs lie too near to the line."""
    x = torch.cat([torch.full((40,), 0.1), torch.full((40 - wrong,), 0.9), torch.full((wrong,), 0.55)])
    y = torch.arange(80) // 40
    model = nets.linear([[-5.0], [5.0]], [2.5, -2.5])
    finding = Classes(attack=ATTACK)(model, Split(x[:, None], y, torch.arange(80)), classes=("a", "b"))
    assert finding.severity == severity
    assert finding.data["worst"] == "b"
    assert ("chance" in finding.verdict) == (severity == "info")


def test_classes_without_inputs_are_left_out(thirds):
    model, split = thirds
    finding = Classes(attack=ATTACK)(model, split.subset((split.y != 1).nonzero().flatten()), classes=NAMES)
    assert [row["class"] for row in finding.data["classes"]] == ["low", "high"]
    assert [len(row) for row in finding.data["confusion"]] == [3, 3]
    assert "pearson" not in finding.data
    only = Classes(attack=ATTACK)(model, split.subset((split.y == 1).nonzero().flatten()), classes=NAMES)
    assert only.severity == "info"
    assert only.data["mcd"] == 0


def test_the_attack_is_asked_once_for_all_audits(thirds):
    from buttress import audits

    calls = []
    about = audits.subject(*thirds, classes=NAMES, watch=lambda *told: calls.append(told))
    for _ in range(2):
        assert not math.isnan(Classes(attack=ATTACK).ask(about).data["cv"])
    assert calls.count(("PGD-10", 1.0)) == 1


def test_a_tie_for_the_worst_class_is_called_one():
    """30 of 60 and 33 of 60 cannot be told apart, 60 of 60 can; Fisher's exact test."""
    rows = [{"class": name, "accuracy": hits / 60, "inputs": 60} for name, hits in (("a", 33), ("b", 60), ("c", 30))]
    assert tied_with_worst(rows) == ["a"]
    assert tied_with_worst(rows[1:]) == []


def test_other_attacks_put_the_classes_in_the_same_order(thirds):
    """On lines every attack finds what there is: the same inputs fall, so the order is the same."""
    data = Classes(attack=ATTACK)(*thirds, classes=NAMES).data
    assert [entry["attack"].split(" at ")[0] for entry in data["attacks"]] == ["PGD-10", "FGSM", "T-PGD-20"]
    for entry in data["attacks"]:
        assert entry["classes"] == pytest.approx({"low": 3 / 4, "middle": 2 / 5, "high": 4 / 5})
        assert (entry["worst"], entry["worst_accuracy"]) == ("middle", pytest.approx(2 / 5))
        stands = [one == "1" for one in entry["stands"]]
        assert stands == [k == label for k, label in zip(entry["predictions"], data["labels"], strict=True)]
    assert "agreement" not in data["attacks"][0]
    for entry in data["attacks"][1:]:
        assert entry["agreement"]["spearman"]["value"] == pytest.approx(1.0)
        assert entry["agreement"]["worst"] is True
        assert entry["gain"]["difference"] == 0.0


def test_others_in_the_threat_of_the_attack_unless_given(thirds):
    weak = PGD(threat=Threat(eps=0.02), steps=10)
    data = Classes(attack=ATTACK, others=[ATTACK, weak])(*thirds, classes=NAMES).data
    assert [entry["attack"] for entry in data["attacks"]] == ["PGD-10 at linf eps 0.1", "PGD-10 at linf eps 0.02"]
    assert data["attacks"][1]["gain"]["weaker"] == "PGD-10 at linf eps 0.02"
    assert len(Classes(attack=ATTACK, others=[])(*thirds, classes=NAMES).data["attacks"]) == 1
    noise = Classes(attack=Gaussian(std=0.1))(*thirds, classes=NAMES).data["attacks"]
    assert len(noise) == 1
