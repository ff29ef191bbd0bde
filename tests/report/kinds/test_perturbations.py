from dataclasses import replace

import pytest

from buttress.audits.base.finding import Finding
from buttress.report.kinds import draw


@pytest.fixture
def finding():
    data = {
        "attacks": [
            {"label": "FGSM", "accuracy": 0.71, "low": 0.65, "high": 0.76},
            {"label": "PGD-20", "accuracy": 0.43, "low": 0.37, "high": 0.49},
        ],
        "gap": {"difference": 0.28, "low": 0.23, "high": 0.33},
        "cosine": {"mean": 0.214, "low": 0.2, "high": 0.231, "undefined": 2},
        "histogram": {"edges": [-1.0, 0.0, 1.0], "counts": [1, 3]},
    }
    return Finding("perturbations", "One step against many", "It is noise.", "warning", data)


def test_figures_and_the_curve(finding, drawn):
    html = draw({"network": finding}).html
    assert "Accuracy under FGSM" in html
    for cell in ("71.0% (65.0–76.0%)", "43.0% (37.0–49.0%)", "+28.0 points (+23.0 to +33.0)", "2"):
        assert f"<td>{cell}</td>" in html
    assert "<td>0.214 (0.200 to 0.231)</td>" in html
    (figure,) = drawn(html)
    assert list(figure.data[0].x) == [-0.5, 0.5]
    assert list(figure.data[0].y) == [0.25, 0.75]


def test_a_line_and_a_curve_per_network(finding, drawn):
    html = draw({"first": finding, "second": finding}).html
    assert '<th scope="row">second</th>' in html
    assert [trace.name for trace in drawn(html)[0].data] == ["first", "second"]


@pytest.mark.parametrize("data", [{}, {"attacks": []}])
def test_an_empty_finding(finding, data):
    assert draw({"network": replace(finding, data=data)}).html.strip() == ""


def test_what_may_be_missing(finding, drawn):
    html = draw({"network": replace(finding, data={"attacks": finding.data["attacks"]})}).html
    assert html.count("<td>–</td>") == 3
    assert drawn(html) == []
