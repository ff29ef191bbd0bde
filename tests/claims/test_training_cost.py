"""What training costs and how robust error is split: known answers for a table, its checks and its page."""

import pytest

from buttress.claims.document_tables import errors, rows
from buttress.claims.layer_findings import regularisation_summary
from buttress.claims.recipe import Claim
from buttress.claims.table import Table
from buttress.errors import UserError

SETUPS = {"long": {"training": {"epochs": 40}}, "short": {"training": {"epochs": 5}}}
PGD_10 = {"name": "at", "attack": {"name": "pgd", "steps": 10, "threat": {"eps": 0.2}}}
ROWS = [
    {"name": "plain", "defence": "standard"},
    {"name": "PGD-10", "defence": PGD_10},
    {"name": "free", "setup": "short", "defence": "free"},
    {"name": "unknown", "defence": "j-sigr"},
]
CHECK = {"better": "PGD-10", "than": "plain", "at": 0.2}
FOUND = {"standard": ([90.0, 30.0, 10.0], [94.0, 32.0, 14.0])}  # of seeds 0 and 1 at eps 0, 0.1 and 0.2


class Finished:
    def run(self, jobs, title):
        return [self.result(job) for job in jobs]

    def result(self, job):
        accuracy = FOUND.get(job["defence"] if isinstance(job["defence"], str) else "", ([80.0, 60.0, 50.0],) * 2)
        return {"accuracy": {"PGD": accuracy[job["seed"]]}, "seconds": {"training": 1.0, "measuring": 1.0}}


def judge(*checks, seeds=2, **experiment):
    settings = {"setups": SETUPS, "eps": [0, 0.1, 0.2], "attacks": [], "rows": ROWS, **experiment}
    claim = Claim(source="s", statement="s", kind="table", checks=[CHECK, *checks])
    return {**Table(claim, settings, seeds, Finished()).run(), "verdict_under": "PGD"}


def test_passes_are_those_of_one_visit_times_the_epochs():
    """A forward and a backward pass train; ten steps are ten of each; free replays a batch eight times."""
    costs = {row["name"]: row["cost"] for row in judge()["rows"]}
    assert costs["plain"] == {"passes": 40 * 2, "relative": 1}
    assert costs["PGD-10"] == {"passes": 40 * (2 + 20), "relative": 11}
    assert costs["free"] == {"passes": 5 * 16, "relative": 8}
    assert costs["unknown"] == {"passes": None, "relative": None}


def test_passes_stand_beside_the_seconds():
    page = rows(judge())
    assert "| training | 0 | 0.1 | 0.2 | seconds of training | passes |" in page
    assert "| PGD-10 | 80.0 ± 0.0 | 60.0 ± 0.0 | 50.0 ± 0.0 | 1.0 ± 0.0 | 880 (11 x) |" in page
    assert "| free | 80.0 ± 0.0 | 60.0 ± 0.0 | 50.0 ± 0.0 | 1.0 ± 0.0 | 80 (8 x) |" in page
    assert "1.0 ± 0.0 | - |" in page
    old = judge()
    for row in old["rows"]:
        del row["cost"]
    assert "passes" not in rows(old).lower()


def test_parameters_stand_last_where_they_are_known():
    result = judge()
    assert "parameters" not in rows(result)
    result["rows"][1]["parameters"] = 12345
    page = rows(result)
    assert "| training | 0 | 0.1 | 0.2 | seconds of training | passes | parameters |" in page
    assert "| 1.0 ± 0.0 | 880 (11 x) | 12,345 |" in page
    assert "| 1.0 ± 0.0 | 80 (8 x) | - |" in page


@pytest.mark.parametrize(
    ("by", "verdict", "statement"),
    [
        (0, "cannot fail", "PGD-10 above plain (passes)"),
        (799, "cannot fail", "PGD-10 at least 799 above plain (passes)"),
        (801, "not reproduced", "PGD-10 at least 801 above plain (passes)"),
    ],
)
@pytest.mark.parametrize("seeds", [1, 2])
def test_a_check_on_passes_needs_no_seeds(by, verdict, statement, seeds):
    check = judge({"better": "PGD-10", "than": "plain", "figure": "passes", "by": by}, seeds=seeds)["checks"][1]
    assert check["statement"] == statement
    assert check["published"] is None
    difference = check["under"]["PGD"]
    assert (difference["mean"], difference["low"], difference["high"]) == (800, 800, 800)
    assert difference["seeds"] == [800] * seeds
    assert difference["verdict"] == verdict


def test_free_for_fewer_epochs_is_no_dearer():
    check = judge({"better": "free", "than": "plain", "figure": "passes"})["checks"][1]
    assert check["under"]["PGD"]["verdict"] == "not reproduced"
    assert check["under"]["PGD"]["mean"] == 0


@pytest.mark.parametrize("pair", [("unknown", "plain"), ("plain", "unknown")])
def test_a_check_on_an_unknown_cost_is_refused(pair):
    with pytest.raises(UserError, match="the passes of 'unknown' are unknown"):
        judge({"better": pair[0], "than": pair[1], "figure": "passes"})


def test_the_cost_is_that_of_the_defence_chosen():
    chosen = {**PGD_10, "attack": {**PGD_10["attack"], "steps": "$steps"}}
    more = [
        {"name": "chosen", "defence": chosen, "choose": {"steps": [3]}},
        {"name": "above", "defence": {"name": "layer-regularised", "base": "$chosen", "layers": ["x"]}},
    ]
    result = judge({"better": "above", "than": "chosen", "figure": "passes"}, rows=[*ROWS, *more])
    costs = {row["name"]: row["cost"]["passes"] for row in result["rows"]}
    assert costs["chosen"] == 40 * (2 + 6)
    assert result["checks"][1]["under"]["PGD"]["mean"] == costs["above"] - costs["chosen"] > 0


def test_only_layer_regularisation_is_told_as_such():
    """AWP goes around another row's training, too, and the page says nothing of layers then."""
    around = [{"name": name, "defence": {"name": name, "base": "$PGD-10"}} for name in ("awp", "layer-regularised")]
    around[1]["defence"]["layers"] = ["x"]
    result = judge(rows=[*ROWS, *around])
    assert [(pair["row"], pair["base"]) for pair in result["regularised"]] == [("layer-regularised", "PGD-10")]
    assert judge(rows=[*ROWS, around[0]])["regularised"] == []
    text = regularisation_summary(result)
    assert "Of 1 rows" in text
    assert "published: " not in text, "no number was published for these checks"


def test_regularisation_is_held_against_its_base_on_the_same_setup():
    """What the base has of more epochs is the cost of regularisation, and not what it does to a network."""
    regularised = {"name": "LR", "setup": "short", "defence": {"name": "layer-regularised", "base": "$PGD-10"}}
    regularised["defence"]["layers"] = ["x"]
    short = {"name": "PGD-10 short", "setup": "short", "defence": PGD_10}
    assert judge(rows=[*ROWS, regularised])["regularised"][0]["base"] == "PGD-10"
    assert judge(rows=[*ROWS, short, regularised])["regularised"][0]["base"] == "PGD-10 short"


def test_rows_that_build_on_each_other_in_a_circle_are_found():
    more = [{"name": a, "defence": {"name": "layer-regularised", "base": f"${b}"}} for a, b in ("xy", "yx")]
    with pytest.raises(UserError, match="in a circle"):
        judge({"better": "x", "than": "plain", "figure": "passes"}, rows=[*ROWS, *more])


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ({"figure": "monitors fired"}, "monitors fired: nothing watches the training of '(plain|PGD-10)'"),
        ({"figure": "passes", "by": "much"}, "by must be a finite number; got 'much'"),
    ],
)
def test_checks_that_could_not_be_made_are_refused_before_anything_runs(check, message):
    with pytest.raises(UserError, match=message):
        judge({"better": "PGD-10", "than": "plain", **check})


@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        ({"rows": [*ROWS, ROWS[0]]}, "two are called 'plain'"),
        ({"rows": [*ROWS, {"name": "x", "defence": "at", "choose": {"a": []}}]}, "'x' has nothing to choose from"),
        ({"figures": ["a"]}, "figures: a mapping from names to figures was expected"),
    ],
)
def test_tables_that_could_not_be_made_are_refused(experiment, message):
    with pytest.raises(UserError, match=message):
        judge(**experiment)


@pytest.mark.parametrize("name", ["passes", "monitors fired"])
def test_names_of_built_in_figures_are_taken(name):
    with pytest.raises(UserError, match=f"{name}' is what every row has"):
        judge(figures={name: {"audit": "weights", "path": "a"}})


def test_robust_error_is_natural_error_and_boundary_error():
    result = judge(errors=True)
    parts = {row["name"]: row["errors"]["PGD"] for row in result["rows"]}["plain"]
    assert parts["natural"]["seeds"] == [10.0, 6.0]
    assert parts["boundary"]["seeds"] == [80.0, 80.0]  # at the largest eps, not at the one between
    assert parts["robust"]["seeds"] == [90.0, 86.0]
    assert [parts[part]["mean"] for part in parts] == [8.0, 80.0, 88.0]
    assert parts["robust"]["sd"] == pytest.approx(8**0.5)
    page = errors(result)
    assert "### Natural and boundary error in percent under PGD" in page
    assert "| training | natural | boundary | robust |" in page
    assert "| plain | 8.0 ± 2.8 | 80.0 ± 0.0 | 88.0 ± 2.8 |" in page
    assert "| PGD-10 | 20.0 ± 0.0 | 30.0 ± 0.0 | 50.0 ± 0.0 |" in page


def test_nothing_is_said_of_errors_unasked():
    assert all("errors" not in row for row in judge()["rows"])


@pytest.mark.parametrize("eps", [[0.1, 0.2], [0]])
def test_errors_need_budgets_with_and_without_an_attack(eps):
    settings = {"setups": SETUPS, "eps": eps, "attacks": [], "rows": ROWS, "errors": True}
    claim = Claim(source="s", statement="s", kind="table", checks=[{**CHECK, "at": eps[-1]}])
    with pytest.raises(UserError, match="errors need eps 0 and one above"):
        Table(claim, settings, 1, Finished())
