"""Results that are kept agree with the recipes of today, and are judged again without measuring."""

import json
from pathlib import Path

import pytest
import yaml

from buttress.errors import UserError
from buttress.workflows import reproduce
from buttress.workflows.claims import find
from buttress.workflows.claims.judging import judged_again

KEPT = sorted((Path(__file__).parents[2] / "claims").glob("*.json"))

RECIPE = {
    "claim": {
        "source": "nobody, table 0",
        "statement": "It helps.",
        "kind": "table",
        "silent": ["All of it."],
        "checks": [
            {"better": "B", "than": "A", "at": 0.2, "by": -5},
            {"better": "B", "than": "A", "figure": "passes", "by": -1},
        ],
        "experiment": {
            "setups": {"only": {"source": {"data": "digits"}, "architecture": {"model": "cnn"}}},
            "eps": [0, 0.2],
            "attacks": [{"attack": "fgsm"}, {"attack": "pgd"}],
            "rows": [{"name": name, "defence": "at"} for name in "AB"],
        },
        "scales": {"small": {}},
    }
}


def seeds(*values):
    return {"mean": sum(values) / len(values), "sd": 1.0, "seeds": list(values)}


ROW = {"cost": {"passes": 60.0, "relative": 2.0}, "seconds": seeds(1.0, 1.0), "defence": "at"}


def rounded(tree):
    """As it is after a turn through JSON, its numbers to six digits behind the point."""
    return json.loads(json.dumps(tree), parse_float=lambda text: round(float(text), 6))


def row(name, fgsm, pgd):
    accuracy = {label: {"0": seeds(90, 92), "0.2": found} for label, found in (("FGSM", fgsm), ("PGD", pgd))}
    return {**ROW, "name": name, "accuracy": accuracy, "published": None}


@pytest.fixture
def kept(tmp_path):
    """A recipe, and a result of it that knows no texts and no checks yet."""
    (tmp_path / "mini.yaml").write_text(yaml.safe_dump(RECIPE))
    experiment = {key: RECIPE["claim"]["experiment"][key] for key in ("setups", "eps", "attacks")}
    result = {
        **experiment,
        "recipe": "mini",
        "kind": "table",
        "scale": "small",
        "seeds": 2,
        "sweeps": [],
        "rows": [row("A", seeds(40, 44), seeds(3, 5)), row("B", seeds(41, 43), seeds(0, 0))],
        "checks": [],
        "verdicts": {},
        "regularised": [],
        "versions": {"buttress": "1", "torch": "2", "python": "3", "machine": "Linux x86_64, 1 threads"},
        "cpus": 2,
        "commit": "abc",
        "date": "2026-01-02",
        "job_seconds": 125.0,
    }
    (tmp_path / "mini.json").write_text(json.dumps(result))
    return tmp_path


def judge(folder):
    return reproduce(str(folder / "mini.yaml"), out=folder, judge=True)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_what_is_kept_is_what_the_recipe_says_of_these_rows(path):
    """Texts, setups, attacks, rows and checks; the checks computed anew from the rows' numbers."""
    kept = json.loads(path.read_text())
    assert rounded(judged_again(kept, find(kept["recipe"]).claim)) == rounded(kept)


def test_nothing_but_texts_checks_and_verdicts_is_made_anew(kept):
    before = json.loads((kept / "mini.json").read_text())
    after = judge(kept)
    assert after["silent"] == ["All of it."]
    assert after["judged"]["date"] > before["date"]
    same = ("rows", "setups", "attacks", "commit", "date", "versions", "job_seconds")
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    assert json.loads((kept / "mini.json").read_text()) == json.loads(json.dumps(after))
    assert "Judged again on" in (kept / "claims.md").read_text()


def test_what_cannot_fail_is_no_evidence(kept):
    """Under PGD row A has 4 %, of which B may lose 5; and equal passes are known to be at most 1 less."""
    after = judge(kept)
    accuracy, passes = (check["under"] for check in after["checks"])
    assert [accuracy[label]["verdict"] for label in ("FGSM", "PGD")] == ["direction only", "cannot fail"]
    assert accuracy["PGD"]["mean"] == -4
    assert {found["verdict"] for found in passes.values()} == {"cannot fail"}
    assert after["verdicts"] == {"FGSM": "direction only", "PGD": "not reproduced"}
    overview = (kept / "claims.md").read_text()
    assert "FGSM: 0 of 1 reproduced, 1 in direction only, 1 that cannot fail" in overview
    assert "PGD: 0 of 0 reproduced, 0 in direction only, 2 that cannot fail" in overview


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"eps": [0, 0.1]}, "eps"),
        ({"rows": [{"name": "A", "defence": "at"}, {"name": "B", "defence": "trades"}]}, r"rows \(B\)"),
        ({"attacks": [{"attack": "fgsm"}]}, "attacks"),
        ({"figures": {"clean": {"audit": "robustness", "path": "clean"}}}, r"figures \(clean\)"),
    ],
)
def test_rows_of_another_experiment_are_refused(kept, change, named):
    changed = json.loads(json.dumps(RECIPE))
    changed["claim"]["experiment"] |= change
    changed["claim"]["checks"] = changed["claim"]["checks"][1:]
    (kept / "mini.yaml").write_text(yaml.safe_dump(changed))
    before = (kept / "mini.json").read_text()
    stored = json.loads(before) | {"figures": {}}
    (kept / "mini.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match=f"mini: the recipe's {named} changed since it was measured: run it again"):
        judge(kept)
    assert json.loads((kept / "mini.json").read_text()) == stored


def test_there_must_be_something_to_judge(tmp_path):
    with pytest.raises(UserError, match="to judge: leave --judge out to measure first"):
        reproduce("self-gradient", out=tmp_path, judge=True)
