"""Pictures of a claim: asked for in its recipe, drawn of its networks, kept beside its numbers."""

import json

import numpy as np
import pytest
import yaml

from buttress.audits.base.png import png
from buttress.claims.document_tables import pictures
from buttress.claims.experiment import Figure
from buttress.claims.figures import figure_of_history
from buttress.claims.jobs import run_job
from buttress.claims.pictures import Pictures, place, slug
from buttress.claims.recipe import Claim
from buttress.claims.reproduce import reproduce
from buttress.claims.table import Table
from buttress.claims.work import key_of
from buttress.errors import UserError

ROWS = ["plain", "AT (eps 1)"]
ANSWERS = {"standard": "3", "fgsm": "8"}  # of the networks of these defences to an image of a 3
HISTORY = {"history": {"under FGSM": "train_fgsm"}}
IMAGES = dict.fromkeys(("input", "occlusion", "gradient"), png(np.zeros((2, 2), np.uint8)))


class Finished:
    """Work that has been done: what was asked is noted."""

    def __init__(self, keys=("train_fgsm",)):
        self.jobs, self.titles, self.keys = [], [], keys

    def run(self, jobs, title):
        self.jobs += jobs
        self.titles.append(title)
        return [self.result(job) for job in jobs]

    def result(self, job):
        seconds = {"training": 1.0, "measuring": 1.0}
        if "finding" not in job:
            epochs = [dict.fromkeys(self.keys, 0.1 * (job["seed"] + epoch)) for epoch in range(3)]
            past = {"history": epochs} if job.get("history") else {}
            return {"accuracy": {"PGD": [90.0, 50.0]}, "seconds": seconds, **past}
        data = {"items": [{"truth": "3", "answer": ANSWERS[job["defence"]], "images": IMAGES}]}
        finding = {"kind": "saliency", "title": "t", "verdict": "v", "severity": "info", "data": data}
        return {"finding": finding, "seconds": seconds}


def table(work, seeds=2, **changes):
    rows = [{"name": name, "defence": defence} for name, defence in zip(ROWS, ANSWERS, strict=True)]
    settings = {"setups": {"A": {"a": 1}}, "eps": [0, 0.2], "attacks": [], "rows": rows, **changes}
    check = {"better": ROWS[1], "than": ROWS[0], "at": 0}
    return Table(Claim(source="s", statement="s", kind="table", checks=[check]), settings, seeds, work)


def test_pictures_of_audits_leave_the_jobs_of_the_table_as_they_were():
    without, with_ = Finished(), Finished()
    before = table(without).run()
    after = table(with_, pictures={"maps": {"audit": "saliency"}}).run()
    mine = [key_of(job) for job in with_.jobs if "finding" not in job]
    assert mine == [key_of(job) for job in without.jobs]
    assert set(after.pop("pictures")) == {"maps"}
    assert after.pop("experiment") != before.pop("experiment")
    assert after == before


def test_curves_are_those_of_the_tables_own_trainings():
    work = Finished(("train_fgsm", "loss"))
    trees = {"a": {**HISTORY, "rows": ROWS[1:]}, "b": {"history": {"loss": "loss"}, "rows": ROWS[1:]}}
    drawings = table(work, seeds=3, pictures=trees).run()["pictures"]
    assert len(work.jobs) == 2 * 3
    assert [job.get("history", False) for job in work.jobs] == [False, True] * 3
    assert drawings["a"]["rows"] == drawings["b"]["rows"] == ROWS[1:]
    assert drawings["a"]["told"].startswith("Mean over 3 seeds")
    assert "AT (eps 1)" in drawings["a"]["svg"]
    assert "plain" not in drawings["a"]["svg"]


def test_an_audit_is_drawn_of_the_first_seed_under_the_largest_budget():
    work = Finished()
    tree = {"audit": {"name": "saliency", "count": 1}, "inputs": 5, "caption": "Look."}
    drawing = table(work, pictures={"maps": tree}).run()["pictures"]["maps"]
    jobs = [job for job in work.jobs if "finding" in job]
    assert [job["seed"] for job in jobs] == [0, 0]
    assert jobs[0]["finding"] == {"audit": tree["audit"], "inputs": 5, "eps": 0.2}
    assert drawing["told"] == "Look. Networks of the first seed."
    assert "✓ 3" in drawing["svg"]
    assert "✗ 8" in drawing["svg"]


def test_a_curve_of_an_unknown_figure_is_refused():
    with pytest.raises(UserError, match="no 'train_fsgm' in the history of plain; did you mean 'train_fgsm'"):
        table(Finished(), pictures={"a": {"history": {"x": "train_fsgm"}}}).run()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["a"], "a mapping from names to pictures"),
        ({"a": {}}, "pictures: a: either audit or history is needed"),
        ({"a": {"audit": "saliency", **HISTORY}}, "either audit or history"),
        ({"a": {"audit": "saliency", "row": []}}, "there is no entry 'row'; did you mean 'rows'"),
        ({"a": {**HISTORY, "rows": ["plane"]}}, "there is no row 'plane'; did you mean 'plain'"),
        ({"a": {**HISTORY, "rows": ["plain", "plain"]}}, "different rows"),
        ({"a": {**HISTORY, "rows": "plain"}}, "must be a list"),
        ({"a": {"history": ["loss"]}}, "which figure each label shows"),
        ({"a": {"history": {"loss": 3}}}, "which figure each label shows"),
        ({"a": {**HISTORY, "inputs": 3}}, "a history has none"),
        ({"a": {"audit": "saliency", "inputs": 0}}, "inputs must be a whole number of 1 or more; got 0"),
        ({"a": {"audit": "salience"}}, "did you mean 'saliency'"),
        ({"a": {"audit": {"name": "saliency", "window": 2}}}, "odd"),
        ({"a": {"audit": "robustness"}}, "no still picture of the audit 'robustness' is drawn"),
        ({"!": HISTORY}, "'!' makes no file name"),
        ({"A b": HISTORY, "a-B": HISTORY}, "'A b' makes no file name of its own"),
    ],
)
def test_what_cannot_be_drawn_is_answered_before_anything_runs(asked, message):
    with pytest.raises(UserError, match=message):
        table(None, pictures=asked)


def test_pictures_that_are_no_mapping_are_a_mistake(tmp_path):
    recipe = {**MINI, "claim": {**MINI["claim"], "experiment": {**MINI["claim"]["experiment"], "pictures": 5}}}
    (tmp_path / "mini.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(UserError, match="a mapping from names to pictures was expected; got 5"):
        reproduce(str(tmp_path / "mini.yaml"), **options(tmp_path))


def test_names_of_files_are_safe(tmp_path):
    assert slug("../Über: maps (2)") == "ber-maps-2"
    assert place(tmp_path, "mini", "A/B") == tmp_path / "mini.a-b.svg"
    assert list(Pictures({"x": HISTORY}, ROWS).pictures) == ["x"]


def test_the_page_links_to_the_files():
    entry = {"file": "my claim.a.svg", "rows": ["A [x]", "B"], "told": "Seen."}
    text = pictures({"pictures": {"a": entry}}, "../claims")
    assert text == "### Pictures\n\n**a.** Seen.\n\n![a: A (x), B](../claims/my%20claim.a.svg)"


MINI = {
    "summary": "a miniature",
    "claim": {
        "source": "nobody",
        "statement": "It helps.",
        "kind": "table",
        "checks": [{"better": "AT", "than": "plain", "at": 0.2}],
        "experiment": {
            "setups": {
                "A": {
                    "source": {"data": "moons", "data_args": {"samples": 64, "val": 16, "test": 40}},
                    "architecture": {"model": "lsa-a"},
                    "training": {
                        "epochs": 2,
                        "keep": "last",
                        "monitors": [
                            {"name": "catastrophic-overfitting", "inputs": 16, "threat": {"eps": 0.2, "box": None}}
                        ],
                    },
                }
            },
            "eps": [0, 0.2],
            "attacks": [{"attack": "fgsm"}],
            "pictures": {
                "Curves": {"history": {"FGSM": "train_fgsm", "PGD-10": "train_robust"}},
                "Boundary": {"audit": {"name": "boundary", "grid": 5}, "rows": ["AT"]},
            },
            "rows": [
                {"name": "plain", "defence": "standard"},
                {
                    "name": "AT",
                    "defence": {"name": "at", "attack": {"name": "fgsm", "threat": {"eps": 0.1, "box": None}}},
                },
            ],
        },
        "scales": {"small": {}},
    },
}


def options(folder):
    places = {"out": folder / "out", "work": folder / "work", "document": folder / "docs" / "claims.md"}
    return {"seeds": 1, "workers": 0, "resume": True, **places}


def test_from_the_recipe_to_the_page(tmp_path):
    (tmp_path / "mini.yaml").write_text(yaml.safe_dump(MINI))
    reproduce(str(tmp_path / "mini.yaml"), **options(tmp_path))
    entries = json.loads((tmp_path / "out" / "mini.json").read_text())["pictures"]
    assert entries["Curves"] == {"file": "mini.curves.svg", "rows": ["plain", "AT"], "told": "One seed."}
    assert entries["Boundary"]["file"] == "mini.boundary.svg"
    page = (tmp_path / "docs" / "claims.md").read_text()
    assert "![Curves: plain, AT](../out/mini.curves.svg)" in page
    texts = {path.name: path.read_text() for path in (tmp_path / "out").glob("*.svg")}
    assert set(texts) == {"mini.curves.svg", "mini.boundary.svg"}
    assert "feature 1" in texts["mini.boundary.svg"]
    assert len(list((tmp_path / "work").glob("*.json"))) == 2 + 1  # the table, whose curves they are, and the boundary
    (tmp_path / "out" / "mini.curves.svg").unlink()
    reproduce(str(tmp_path / "mini.yaml"), **options(tmp_path))
    again = {path.name: path.read_text() for path in (tmp_path / "out").glob("*.svg")}
    assert again == texts  # the same from results that were kept


def test_a_history_is_that_of_the_training():
    experiment = MINI["claim"]["experiment"]
    drop = {"drop": {"history": "train_robust", "path": "drop", "times": 100}}
    measurements = {"accuracy": {"eps": [0, 0.2], "attacks": []}, "history": True, "figures": drop}
    result = run_job(
        {"setup": experiment["setups"]["A"], "defence": "standard", "seed": 0, "split": "test", **measurements}, None
    )
    history = result["history"]
    assert len(history) == 2
    first, last = (epoch["train_robust"] for epoch in history)
    assert result["figures"]["drop"] == 100 * (max(first, last) - last)
    assert {"train_fgsm", "train_robust", "perturbation_cosine"} <= set(history[0])
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@pytest.mark.parametrize(("path", "value"), [("last", 30.0), ("best", 50.0), ("drop", 20.0)])
def test_figures_of_a_history(path, value):
    epochs = [{"robust": 0.2}, {"loss": 1.0}, {"robust": 0.5}, {"robust": 0.3}]
    assert figure_of_history(Figure(history="robust", path=path, times=100), epochs) == pytest.approx(value)
    with pytest.raises(UserError, match="no 'robbed' in the history; did you mean 'robust'"):
        figure_of_history(Figure(history="robbed", path=path), epochs)


@pytest.mark.parametrize(
    ("figure", "message"),
    [
        ({"path": "x"}, "figures: f: either audit or history is needed"),
        ({"path": "last", "audit": "weights", "history": "robust"}, "either audit or history"),
        ({"path": "last", "history": 3}, "history must be a text; got 3"),
        ({"path": "worst", "history": "robust"}, "of a history path is last, best, drop; got 'worst'"),
    ],
)
def test_a_figure_is_of_an_audit_or_of_the_history(figure, message):
    with pytest.raises(UserError, match=message):
        table(None, figures={"f": figure})


def test_no_file_of_somebody_elses_is_overwritten(tmp_path):
    (tmp_path / "mini.yaml").write_text(yaml.safe_dump(MINI))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mini.curves.svg").write_text("mine")
    with pytest.raises(UserError, match=r"mini\.curves\.svg exists and is no picture of a claim"):
        reproduce(str(tmp_path / "mini.yaml"), **options(tmp_path))
    assert (tmp_path / "out" / "mini.curves.svg").read_text() == "mine"
    assert not (tmp_path / "work").exists()
