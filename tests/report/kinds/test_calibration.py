from dataclasses import replace

import pytest

from buttress.audits.base.finding import Finding
from buttress.report.kinds import draw


def figures(error, nll, **more):
    return {"error": error, "error_low": 0.01, "error_high": 0.22, "nll": nll, "nll_low": 0.25, "nll_high": 0.5} | {
        "brier": 0.125,
        "ece": 0.034,
        "confidence": 0.87,
        "entropy": 0.375,
        **more,
    }


@pytest.fixture
def finding():
    bins = [{"from": 0.0, "to": 0.5, "inputs": 0, "confidence": None, "accuracy": None}]
    bins.append({"from": 0.5, "to": 1.0, "inputs": 40, "confidence": 0.875, "accuracy": 0.75})
    data = {
        "inputs": 40,
        "clean": figures(0.1, 0.3125),
        "reliability": bins,
        "conditions": [
            {"label": "<noise>", "kind": "noise", "eps": None, **figures(0.2, 0.75)},
            {"label": "FGSM at linf eps 0.1", "kind": "attack", "eps": 0.1, **figures(0.6, 1.75)},
        ],
        "outside": [
            {
                "name": "uniform",
                "inputs": 40,
                "confidence_auroc": 0.25,
                "entropy_auroc": 0.625,
                "confidence": 0.5,
                "entropy": 2.0,
            }
        ],
    }
    return Finding("calibration", "Calibration", "V.", "info", data)


def test_tables_and_plots(finding, drawn):
    section = draw({"network": finding})
    html = section.html
    assert "<noise>" not in html
    for text in ("10.0%", "1.0–22.0%", "0.312", "0.250–0.500", "0.125", "3.4%", "87.0%", "0.375", "1.75", "0.625"):
        assert f"<td>{text}</td>" in html
    assert html.count('class="vulnerable"') == 1  # strange inputs that seem surer
    assert "Mutual information" not in html
    assert [key.values["network"] for key in section.keys] == ["3.4%", "0.312"]
    plots = drawn(html)
    assert len(plots) == 3
    assert list(plots[0]["data"][1]["x"]) == [0.875]
    assert list(plots[1]["data"][0]["x"]) == [0, 0.1]
    assert list(plots[1]["data"][0]["y"]) == [0.3125, 1.75]


def test_figures_of_the_network_itself_have_columns(finding):
    clean = figures(0.1, 0.3125, mutual_information=0.0625, end_time_mean=1.5, end_time_std=0.75)
    html = draw({"network": replace(finding, data={**finding.data, "clean": clean})}).html
    for text in ("Mutual information", "End time", "0.0625", "1.50", "0.750"):
        assert text in html


def test_several_networks_and_parts_that_are_missing(finding, drawn):
    bare = replace(finding, data={"clean": figures(0.1, 0.3125)})
    html = draw({"before": finding, "after": bare}).html
    assert [html.count(text) for text in ("<h3>before</h3>", "<h3>after</h3>")] == [1, 1]
    assert len(drawn(draw({"network": bare}).html)) == 1
    assert draw({"network": replace(finding, data={})}).html == ""
