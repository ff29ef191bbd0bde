from dataclasses import replace

import pytest

from buttress.audits.base.finding import Finding
from buttress.report.kinds import draw


@pytest.fixture
def finding():
    data = {
        "inputs": 40,
        "times": [0.5, 1.0],
        "nll": [0.75, 0.625],
        "accuracy": [0.5, 0.75],
        "density": [0.25, 0.375],
        "mean": 1.25,
        "spread": 0.125,
        "best": 1.0,
        "best_low": 0.5,
        "best_high": 1.0,
        "best_nll": 0.625,
        "nll_at_mean": 0.6875,
        "distance": 0.25,
    }
    return Finding("end-time", "End time", "V.", "info", data)


def test_curves_marks_and_the_row(finding, drawn):
    html = draw({"<net>": finding}).html
    assert "<net>" not in html
    for text in ("40", "1.25", "0.125", "1.00", "0.500–1.00", "0.625", "0.688", "75.0%"):
        assert f"<td>{text}</td>" in html
    (plot,) = drawn(html)
    assert [trace["name"] for trace in plot["data"]] == [
        *("loss", "accuracy", "density of the posterior", "mean of the posterior", "least loss"),
    ]
    assert list(plot["data"][3]["x"]) == [1.25, 1.25]


def test_several_networks_share_a_table(finding, drawn):
    html = draw({"before": finding, "after": finding}).html
    assert html.count("<table>") == 1
    assert len(drawn(html)) == 2
    assert draw({"network": replace(finding, data={})}).html == ""
