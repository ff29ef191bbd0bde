"""Gains read off other claims' results, and looked for in published cells."""

import json

import pytest

from buttress.claims import find
from buttress.claims.announced_gains import nearest_cells, run_gains
from buttress.claims.recipe import Claim
from buttress.claims.seed_statistics import row_differences, spread
from buttress.errors import UserError

MNIST = find("lsa-table3-mnist").claim
MOON = find("lsa-table2-moon").claim


def test_the_mnist_gain_is_a_cell_of_table_3():
    best = nearest_cells(MNIST.published, MNIST.experiment["eps"], 21.79)[0]
    assert best == {"better": "AT-APGD-LR-L0", "than": "AT-APGD", "at": "0.5", "difference": 21.79}


def test_the_moon_gain_is_none_of_table_2():
    best = nearest_cells(MOON.published, MOON.experiment["eps"], 16.35)[0]
    assert best == {"better": "AT-TRADES-LR-L2", "than": "Normal", "at": "0.5", "difference": 16.3}


def test_the_sum_of_a_row_counts_as_a_column():
    found = nearest_cells({"a": [1.0, 2.0], "b": [0.5, 0.0]}, [0, 0.1], 2.5)
    assert found[0] == {"better": "a", "than": "b", "at": "R&G", "difference": 2.5}
    assert len(found) == 2 * 3


def result(seeds):
    """A claim's file for Table 3 with the given accuracies at eps 0.5, by row."""
    rows = [
        {"name": name, "accuracy": {label: {"0.5": spread(values)} for label in ("FGSM", "PGD")}}
        for name, values in seeds.items()
    ]
    return {"rows": rows, "eps": MNIST.experiment["eps"], "scale": "small", "seeds": 3, "commit": "c", "date": "d"}


CLAIM = Claim(
    source="",
    statement="",
    kind="gains",
    checks=[{"recipe": "lsa-table3-mnist", "better": "AT-APGD-LR-L0", "than": "AT-APGD", "at": 0.5, "gain": 21.79}],
)


def test_a_gain_is_judged_by_the_results_of_the_other_claim(tmp_path):
    seeds = {"AT-APGD-LR-L0": [50.0, 52.0, 54.0], "AT-APGD": [30.0, 31.0, 32.0]}
    (tmp_path / "lsa-table3-mnist.json").write_text(json.dumps(result(seeds)))
    found = run_gains(CLAIM, tmp_path)
    (check,) = found["checks"]
    assert check["published"] == 21.79
    assert check["under"]["FGSM"]["seeds"] == [20.0, 21.0, 22.0]
    assert check["under"]["PGD"]["verdict"] == "reproduced"
    (cell,) = found["cells"]
    assert [entry["difference"] for entry in cell["found"]] == [21.79]
    assert found["derived_from"]["lsa-table3-mnist"]["seeds"] == 3


def test_the_other_claim_must_be_there_and_be_one(tmp_path):
    with pytest.raises(UserError, match="run buttress reproduce lsa-table3-mnist first"):
        run_gains(CLAIM, tmp_path)
    (tmp_path / "lsa-table3-mnist.json").write_text("[]")
    with pytest.raises(UserError, match="cannot be read as the result of a claim"):
        run_gains(CLAIM, tmp_path)
    (tmp_path / "lsa-table3-mnist.json").write_text(json.dumps(result({"AT-APGD": [1.0]})))
    with pytest.raises(UserError, match="has no row 'AT-APGD-LR-L0'"):
        run_gains(CLAIM, tmp_path)


def test_equal_sums_differ_by_nothing():
    ours, theirs = (
        {"accuracy": {"FGSM": {"R&G": spread([sum(parts)])}}} for parts in ([0.1, 0.2, 0.3], [0.3, 0.2, 0.1])
    )
    assert sum([0.1, 0.2, 0.3]) != sum([0.3, 0.2, 0.1])
    assert row_differences(ours, theirs, "R&G")["FGSM"]["mean"] == 0
