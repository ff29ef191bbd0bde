import json
from itertools import product

import pytest

from buttress.audits.base.finding import Finding, to_json
from buttress.jobs.compare import compare
from buttress.jobs.settings import Reporter
from buttress.jobs.trade_off import dominates, trade_off


def finding(clean, main, eps=0.1, norm="linf"):
    data = {"inputs": len(clean), "main_eps": eps, "same_inputs": "a", "fingerprints": ["f"], "seed": 0}
    data |= {"stands": {"clean": clean, "main": main}, "attacks": [{"norm": norm, "label": "PGD", "curve": []}]}
    worst = [{"eps": eps, "accuracy": main.count("1") / len(main), "low": 0.1, "high": 0.9}]
    return Finding("robustness", "R", "", "info", {**data, "worst": worst})


def shares(clean, robust):
    """Findings with these shares of 10 inputs."""
    return [finding("1" * clean + "0" * (10 - clean), "1" * robust + "0" * (10 - robust))]


NETWORKS = {
    "standard": shares(10, 0),
    "at": shares(8, 5),
    "trades": shares(7, 6),
    "worse": shares(7, 5),
    "dear": shares(8, 5),
}
TRAINING = {
    "standard": {"passes": 40.0, "relative": 1.0, "seconds": 3.0},
    "at": {"passes": 440.0, "relative": 11.0, "seconds": 30.0},
    "trades": {"passes": 500.0, "relative": 12.5, "seconds": 33.0},
    "worse": {"passes": 440.0, "relative": 11.0, "seconds": 30.0},
    "dear": {"passes": 880.0, "relative": 22.0, "seconds": 60.0},
}


def test_the_front_is_who_nobody_beats():
    found = {name: f.data for name, f in trade_off(NETWORKS, TRAINING).items()}
    assert {name for name, row in found.items() if row["front"]} == {"standard", "at", "trades"}
    assert found["worse"]["beaten_by"] == ["at"]
    assert found["dear"]["beaten_by"] == ["at"]
    assert found["at"] | {"low": 0.1, "high": 0.9, "passes": 440.0, "seconds": 30.0} == found["at"]


def test_without_costs_the_two_accuracies_decide():
    found = {name: f.data for name, f in trade_off(NETWORKS, {}).items()}
    assert {name for name, row in found.items() if row["front"]} == {"standard", "at", "trades", "dear"}


def test_dominance_is_a_strict_partial_order():
    rows = [dict(zip(("clean", "robust", "passes"), values, strict=True)) for values in product((0, 1), (0, 1), (0, 1))]
    for a, b in product(rows, rows):
        better = a["clean"] >= b["clean"] and a["robust"] >= b["robust"] and a["passes"] <= b["passes"] and a != b
        assert dominates(a, b) == better


def test_other_budgets_and_lone_networks_are_left_out():
    assert trade_off({"a": [finding("11", "01")]}, {}) == {}
    assert trade_off({"a": [finding("11", "01")], "b": [finding("11", "01", eps=0.2)]}, {}) == {}
    assert trade_off({"a": [finding("11", "01")], "b": [Finding("layers", "L", "", "info", {})]}, {}) == {}
    three = {"a": [finding("11", "01")], "b": [finding("11", "01", norm="l2")], "c": [finding("10", "01")]}
    assert set(trade_off(three, {})) == {"a", "c"}


def test_who_is_left_out_is_told(tmp_path):
    lines = []

    class Heard(Reporter):
        def line(self, text):
            lines.append(text)

    for name, found in {"a": shares(9, 4), "b": shares(9, 5), "c": [finding("11", "01", eps=0.2)]}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "findings.json").write_text(to_json({name: found}, {"data": "digits"}))
    compare([tmp_path / name for name in "abc"], out=tmp_path / "out", reporter=Heard())
    assert "attacked otherwise than a, so not in the trade-off: c" in lines


@pytest.mark.parametrize("told", [True, False])
def test_a_comparison_shows_it(told, tmp_path):
    folders = []
    for name, found in NETWORKS.items():
        folder = tmp_path / name
        folder.mkdir()
        settings = {"training": TRAINING[name]} if told else {}
        (folder / "findings.json").write_text(to_json({name: found}, {"data": "digits", "settings": settings}))
        folders.append(folder)
    page = compare(folders, out=tmp_path / "out").read_text()
    assert "Accuracy against training cost" in page
    assert "behind at" in page
    assert ("11 ×" in page) == told
    kept = json.loads((tmp_path / "out" / "findings.json").read_text())["networks"]
    assert [f["kind"] for f in kept["at"]] == ["trade-off", "robustness"]
