from dataclasses import replace

import pytest

from buttress.audits.base.finding import Finding
from buttress.report.kinds import draw


def build(worst):
    rows = [
        {"class": "cat <a>", "index": 0, "inputs": 40, "clean": 0.9, "accuracy": worst, "low": worst - 0.05}
        | {"high": worst + 0.1, "weight_norm": 1.25},
        {"class": "dog", "index": 2, "inputs": 60, "clean": 0.95, "accuracy": 0.8, "low": 0.7, "high": 0.9}
        | {"weight_norm": 2.5},
    ]
    data = {"attack": "PGD-20", "inputs": 100, "classes": rows, "robust": 0.6, "worst": "cat <a>", "cv": 0.0625}
    data |= {
        "mcd": 0.5,
        "predicted": ["cat <a>", "cow", "dog"],
        "confusion": [[worst, 0.1, 0.9 - worst], [0, 0.2, 0.8]],
    }
    data |= {"pearson": 0.5, "spearman": -0.25}
    data["groups"] = {"mistakes": 5, "within": 0.75, "by_group": {"pets": 0.75, "farm": None}}
    return Finding("classes", "Classes", "A verdict.", "warning", data)


@pytest.fixture
def finding():
    return build(0.25)


def test_bars_with_intervals_and_the_confusion(finding, drawn):
    section = draw({"network": finding})
    bars, confusion = drawn(section.html)
    (trace,) = bars.data
    assert list(trace.x) == ["cat &lt;a&gt;", "dog"]
    assert list(trace.y) == [0.25, 0.8]
    assert list(trace.error_y.array) == pytest.approx([0.1, 0.1])
    assert list(trace.error_y.arrayminus) == pytest.approx([0.05, 0.1])
    (shade,) = confusion.data
    assert [list(row) for row in shade.z] == finding.data["confusion"]
    assert (list(shade.x), list(shade.y)) == (["cat &lt;a&gt;", "cow", "dog"], ["cat &lt;a&gt;", "dog"])
    assert section.keys[0].values == {"network": "25.0%"}
    assert "PGD-20" in section.keys[0].note


def test_the_table_and_what_is_below(finding):
    html = draw({"network": finding}).html
    for text in ("dog, 65.0%", "cow, 20.0%", "20.0–35.0%", "1.25", "40"):
        assert f"<td>{text}</td>" in html
    assert html.count('class="vulnerable"') == 1
    assert "Between the best and the worst class: 50.0%. Variance: 0.0625." in html
    assert "Pearson 0.500, Spearman −0.250" in html
    assert "within their group: 75.0% (pets 75.0%)" in html


def test_two_networks_are_compared_by_their_worst_class(drawn):
    section = draw({"before": build(0.25), "after": build(0.4)})
    bars, *confusions = drawn(section.html)
    assert [trace.name for trace in bars.data] == ["before", "after"]
    assert len(confusions) == 2
    assert section.keys[0].changes == {"after": ("+15.0 points", True)}
    assert "<h3>after</h3>" in section.html


@pytest.mark.parametrize("key", ["confusion", "predicted", "groups", "pearson", "mcd", "attack"])
def test_what_may_be_missing(key, finding, drawn):
    data = {k: v for k, v in finding.data.items() if k != key}
    section = draw({"network": replace(finding, data=data)})
    assert drawn(section.html)


def test_an_empty_finding_is_drawn(finding):
    assert draw({"network": replace(finding, data={})}).html == ""


def several(stands, **changes):
    """A finding with a table of six inputs of three classes."""
    attack = {"attack": "PGD-20", "fingerprint": "f", "robust": 0.5, "worst": "cat", "worst_accuracy": 0.0}
    gain = {"difference": 0.125, "low": -0.05, "high": 0.25}
    order = {"spearman": {"value": 0.5, "low": -0.25, "high": 1.0}, "worst_share": 0.875}
    other = {**attack, "attack": "FGSM", "stands": stands, "agreement": order, "gain": gain}
    table = {"attacks": [{**attack, "stands": stands}, other], "labels": [0, 0, 1, 1, 2, 2], "seed": 0}
    finding = build(0.25)
    return replace(finding, data={**finding.data, **table, "same_inputs": "s", **changes})


def test_attacks_and_how_they_compare():
    html = draw({"network": several("000111")}).html
    for text in ("FGSM", "0.50", "-0.25 to 1.00", "87.5%", "+12.5 points (−5.0 to +25.0)"):
        assert text in html
    assert "FGSM" not in draw({"network": build(0.25)}).html


def test_networks_that_can_be_compared_are():
    """Shares of 0, 1/2 and 1 in both, and in the opposite order."""
    alike = draw({"one": several("000111"), "two": several("001011")}).html
    assert "Order of the classes as one" in alike
    assert "1.00" in alike
    assert "-1.00" in draw({"one": several("000111"), "two": several("110100")}).html
    for changes in ({"same_inputs": "t"}, {"seed": 1}, {"attacks": []}):
        assert "Order of the classes" not in draw({"one": several("000111"), "two": several("000111", **changes)}).html
