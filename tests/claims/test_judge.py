"""Results that are kept agree with the recipes of today, and are judged again without measuring."""

import json
from pathlib import Path

import pytest
import yaml

from buttress.claims import find
from buttress.claims.judge import judge_again
from buttress.claims.reproduce import reproduce
from buttress.claims.result_files import read_result
from buttress.errors import UserError

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


ROW = {"seconds": seeds(1.0, 1.0), "defence": "at"}


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
    experiment = RECIPE["claim"]["experiment"]
    result = {
        "experiment": experiment,
        "eps": experiment["eps"],
        "setups": experiment["setups"],
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
    """Texts, the whole experiment, and checks computed anew from the rows' numbers."""
    kept = read_result(path)
    claim = find(kept["recipe"]).claim
    assert kept["recipe"] == path.stem
    if claim.kind == "table":
        assert rounded(judge_again(kept, claim)) == rounded(kept)
    else:
        assert (kept["kind"], kept["statement"], kept["silent"]) == (claim.kind, claim.statement, claim.silent)


def test_nothing_but_texts_checks_and_verdicts_is_made_anew(kept):
    before = json.loads((kept / "mini.json").read_text())
    after = judge(kept)
    assert after["silent"] == ["All of it."]
    assert after["judged"]["date"] > before["date"]
    same = ("experiment", "setups", "commit", "date", "versions", "job_seconds")
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    measured = [{**row, "published": None, "cost": {"passes": 440.0, "relative": 11.0}} for row in before["rows"]]
    assert after["rows"] == measured  # PGD-10 over 20 epochs wherever the recipe says nothing else; it is computed
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


def test_a_check_that_came_later_says_so_for_good(kept):
    first = judge(kept)
    assert [check.get("later") for check in first["checks"]] == [True, True]  # the result had none of them
    for check in first["checks"]:
        check.pop("later")
    (kept / "mini.json").write_text(json.dumps(first))
    assert [check.get("later") for check in judge(kept)["checks"]] == [None, None]
    more = json.loads(json.dumps(RECIPE))
    more["claim"]["checks"].append({"row": "B", "at": 0.2, "above": 3})
    (kept / "mini.yaml").write_text(yaml.safe_dump(more))
    for _ in range(2):
        assert [check.get("later") for check in judge(kept)["checks"]] == [None, None, True]
    assert "| B above 3 (accuracy at eps 0.2; differences are from that) † |" in (kept / "claims.md").read_text()


AT = {"name": "A", "defence": "at"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"eps": [0, 0.1]}, "eps"),
        ({"rows": [AT, {"name": "B", "defence": "trades"}]}, "rows"),
        ({"rows": [AT, {"name": "B", "defence": "at", "setup": "only"}]}, "rows"),
        ({"rows": [AT, {"name": "B", "defence": "at", "choose": {"x": [1]}}]}, "rows"),
        ({"setups": {"only": {"source": {"data": "digits"}, "architecture": {"model": "mlp"}}}}, "setups"),
        ({"attacks": [{"attack": "fgsm"}]}, "attacks"),
        ({"figures": {"clean": {"audit": "robustness", "path": "clean"}}}, "figures"),
        ({"errors": True, "sweep": {"attack": "fgsm"}}, "errors, sweep"),
    ],
)
def test_rows_of_another_experiment_are_refused(kept, change, named):
    changed = json.loads(json.dumps(RECIPE))
    changed["claim"]["experiment"] |= change
    (kept / "mini.yaml").write_text(yaml.safe_dump(changed))
    before = (kept / "mini.json").read_text()
    with pytest.raises(UserError, match=f"mini: the recipe's {named} changed since it was measured: run it again"):
        judge(kept)
    assert (kept / "mini.json").read_text() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "profiles"}, "only the rows of a table can be judged again"),
        ({"experiment": None}, "does not tell how it was measured"),
        ({"scale": None}, "does not tell how it was measured"),
        ({"recipe": "other"}, r"mini\.json is a result of other, not of mini"),
    ],
)
def test_results_that_cannot_be_judged_are_left_alone(kept, change, message):
    stored = json.loads((kept / "mini.json").read_text())
    stored = {key: value for key, value in (stored | change).items() if value is not None}
    (kept / "mini.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match=message):
        judge(kept)
    assert json.loads((kept / "mini.json").read_text()) == stored


@pytest.mark.parametrize("stray", ["page.md", "stray.json"])
def test_nothing_is_written_where_the_page_cannot_be(kept, stray):
    (kept / stray).write_text("mine")
    before = (kept / "mini.json").read_text()
    with pytest.raises(UserError, match=stray.replace(".", r"\.")):
        reproduce(str(kept / "mini.yaml"), out=kept, judge=True, document=kept / "page.md")
    assert (kept / "mini.json").read_text() == before


def test_a_recipe_without_checks_is_refused(kept):
    empty = {"claim": {**RECIPE["claim"], "checks": []}}
    (kept / "mini.yaml").write_text(yaml.safe_dump(empty))
    with pytest.raises(UserError, match="at least one is needed"):
        judge(kept)


def test_there_must_be_something_to_judge(tmp_path):
    with pytest.raises(UserError, match="to judge: leave --judge out to measure first"):
        reproduce("self-gradient", out=tmp_path, judge=True)
