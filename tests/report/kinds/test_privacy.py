from dataclasses import replace

import pytest

from buttress.audits.base.finding import Finding
from buttress.report.kinds import draw


def inferred(advantage, **more):
    shares = {"advantage": advantage, "low": advantage - 0.05, "high": advantage + 0.05}
    rates = {"accuracy": (1 + advantage) / 2, "auroc": 0.75, "at": {"0.001": None, "0.01": 0.0625}}
    return {**shares, **rates, "threshold": -0.1, "curve": [[0.0, 0.0], [0.25, 0.5], [1.0, 1.0]], **more}


def gap(members, others):
    ends = {"difference": members - others, "low": 0.05, "high": 0.35}
    return {"members": {"accuracy": members}, "others": {"accuracy": others}, "gap": ends}


@pytest.fixture
def finding():
    lengths = {"max": 8.0, "p95": 4.0, "mean": 2.0}
    paired = {"max": {"ratio": 1.75}, "p95": {"ratio": 1.5}, "mean": {"ratio": 1.25, "low": 1.125, "high": 1.375}}
    data = {
        "inputs": 100,
        "attack": "<PGD> at linf eps 0.1",
        "clean": gap(1.0, 0.8),
        "robust": gap(0.9, 0.5),
        "intensity": {"clean": lengths, "adversarial": lengths, "paired": paired, "cross_run": {"max": 2.25}},
        "membership": {
            "confidence": inferred(0.25),
            "likelihood ratio": inferred(0.375, form="offline", references=4),
        },
        "confidences": {"middles": [-1.0, 1.0], "members": [0.25, 0.75], "others": [0.5, 0.5]},
        "noise": {
            "scale": 0.125,
            "laplace": 0.03125,
            "gaussian": 0.0625,
            "histogram": {"middles": [-0.1, 0.1], "density": [5.0, 5.0]},
        },
        "composed": {
            "step_epsilon": 0.5,
            "steps": 70,
            "epsilon": 48.0,
            "delta": 1e-5,
            "average_gap": 1.0,
            "likely_gap": {"gap": 432.0, "probability": 0.875, "inputs": 10.0},
            "assumptions": ["nobody has shown <this>"],
        },
    }
    return Finding("privacy", "Privacy", "V.", "warning", data)


def test_tables_plots_and_assumptions(finding, drawn):
    section = draw({"network": finding})
    html = section.html
    for text in ("25.0%", "20.0–30.0%", "62.5%", "0.750", "6.2%", "1.75", "1.12–1.38", "2.25", "+20.0 points", "90.0%"):
        assert f"<td>{text}</td>" in html
    assert "calibrated by reference networks (offline, 4 references)" in html
    assert "no guarantee of privacy" in html
    assert "nobody has shown &lt;this&gt;." in html
    assert html.count("says nothing (100% or more)") == 2
    assert [key.values["network"] for key in section.keys] == ["37.5%", "+20.0 points"]
    roc, confidences, noise = drawn(html)
    assert list(roc["data"][1]["y"]) == [0.0, 0.5, 1.0]
    assert list(confidences["data"][0]["y"]) == [0.25, 0.75]
    assert list(noise["data"][0]["y"]) == [5.0, 5.0]


def test_what_was_left_out_has_no_place(finding, drawn):
    """Without an attack, without noise, and beside another network."""
    data = {key: value for key, value in finding.data.items() if key not in ("noise", "composed")}
    bare = replace(finding, data={**data, "robust": None, "intensity": {"left_out": "no parameters"}})
    html = draw({"bare": bare, "<whole>": finding}).html
    assert len(drawn(html)) == 4
    assert "<whole>" not in html
    alone = draw({"bare": bare}).html
    assert "guarantee" not in alone
    assert "Gradient norm" not in alone
    assert draw({"left": replace(finding, data={})}).html == ""
