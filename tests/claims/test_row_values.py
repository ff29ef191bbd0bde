"""Rows that differ in a number, which fills the blanks of defence and figures and is a figure that others rise with."""

import pytest

from buttress.claims.recipe import Claim
from buttress.claims.table import Table
from buttress.errors import UserError

AT = {"name": "at", "attack": {"name": "pgd", "steps": 2, "threat": {"eps": "$eps"}}}
ROWS = [{"name": f"eps {eps}", "defence": AT, "values": {"eps": eps}} for eps in (0.1, 0.2, 0.3)]
GAP = {"audit": {"name": "privacy", "attack": {"name": "fgsm", "threat": {"eps": "$eps"}}}, "path": "a"}
CHECK = {"across": [row["name"] for row in ROWS], "figure": "eps", "rises": "gap"}


class Finished:
    """Work that finds ten times the eps at which the figure is measured, and falls with it in the second seed."""

    def __init__(self):
        self.jobs = []

    def run(self, jobs, title):
        self.jobs += jobs
        return [self.result(job) for job in jobs]

    def result(self, job):
        eps = job["figures"]["gap"]["audit"]["attack"]["threat"]["eps"]
        assert job["defence"]["attack"]["threat"]["eps"] == eps
        gap = 10 * eps if job["seed"] == 0 else -eps
        return {"accuracy": {"PGD": [90.0, 50.0]}, "figures": {"gap": gap}, "seconds": {"training": 1.0}}


def table(work=None, **experiment):
    settings = {"setups": {"A": {}}, "eps": [0, 0.2], "attacks": [], "rows": ROWS, "figures": {"gap": GAP}}
    return Table(Claim(source="s", statement="s", kind="table", checks=[CHECK]), {**settings, **experiment}, 2, work)


def test_each_row_has_its_own_and_what_rises_with_it_is_judged():
    work = Finished()
    result = table(work).run()
    assert len(work.jobs) == 6
    assert [row["figures"]["eps"]["seeds"] for row in result["rows"]] == [[0.1, 0.1], [0.2, 0.2], [0.3, 0.3]]
    (check,) = result["checks"]
    assert check["statement"] == "gap rises with eps (rank correlation over 3 rows)"
    assert check["under"]["PGD"]["seeds"] == [1.0, -1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": {}}, "the figure 'gap' has a blank \\$eps"),
        ({"values": {"eps": "much"}}, "eps must be a finite number"),
        ({"values": [0.1]}, "values must be numbers by name"),
        ({"choose": {"eps": [0.1]}}, "eps is a value and to be chosen"),
    ],
)
def test_rows_that_cannot_be_filled_are_refused(change, message):
    row = {**ROWS[0], **({"defence": "standard"} if change == {"values": {}} else {}), **change}
    with pytest.raises(UserError, match=message):
        table(rows=[row, *ROWS[1:]])


def test_a_figure_of_the_same_name_is_refused():
    with pytest.raises(UserError, match="eps' is what every row has"):
        table(figures={"eps": GAP})
