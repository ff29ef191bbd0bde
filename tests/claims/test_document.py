"""The page on claims: made of the JSON files alone, and honest in its words."""

import json

import pytest

from buttress.claims import write_document
from buttress.claims.document import MARK
from buttress.claims.document_tables import checks, number, profiles, table
from buttress.claims.layer_findings import gain_summary, points, profile_summary, regularisation_summary
from buttress.claims.seed_statistics import paired_difference, spread, verdict
from buttress.errors import UserError
from buttress.layers.regularisers import REGULARISERS

UP, DOWN, EVEN = [5.0, 6.0, 7.0], [-5.0, -6.0, -7.0], [-4.0, 5.0, 0.5]


def pair(row, measure, fgsm, pgd):
    return {
        "row": row,
        "base": "AT",
        "measure": measure,
        "under": {"FGSM": paired_difference(fgsm), "PGD": paired_difference(pgd)},
    }


def claim(pairs=(), name="lsa-x"):
    columns = {"0": spread([90.0, 92.0]), "R&G": spread([90.0, 92.0])}
    checks = [
        {
            "statement": "LR better than AT (R&G)",
            "published": 20.25,
            "under": {
                label: {**paired_difference(UP), "verdict": verdict(paired_difference(UP), 20.25)}
                for label in ("FGSM", "PGD")
            },
        }
    ]
    return {
        "recipe": name,
        "source": "Somebody",
        "statement": "It helps",
        "kind": "table",
        "verdict": "direction only",
        "verdict_under": "FGSM",
        "verdicts": {"FGSM": "direction only", "PGD": "direction only"},
        "scale": "small",
        "seeds": 2,
        "note": "A tenth of it.",
        "silent": ["The paper says no gamma."],
        "eps": [0],
        "rows": [{"name": "AT | x", "published": [88.0], "accuracy": {"FGSM": columns, "PGD": columns}}],
        "sweeps": [
            {
                "row": "LR",
                "by": "R&G",
                "tried": [{"choice": {"gamma": 1}, "score": 2.0}],
                "chosen": {"choice": {"gamma": 1}},
            }
        ],
        "checks": checks,
        "regularised": list(pairs),
        "commit": "abc",
        "versions": {"buttress": "1", "torch": "2", "python": "3", "machine": "Linux x86_64, 1 threads"},
        "cpus": 2,
        "date": "2026-01-02",
        "job_seconds": 125.0,
    }


def test_the_page_is_a_function_of_the_files(tmp_path):
    out, page = tmp_path / "claims", tmp_path / "docs" / "claims.md"
    out.mkdir()
    for name in ("b", "a"):
        (out / f"{name}.json").write_text(json.dumps(claim(name=name)))
    write_document(out, page)
    first = page.read_text()
    write_document(out, page)
    assert page.read_text() == first
    assert first.startswith(MARK)
    assert first.index("## a\n") < first.index("## b\n")
    for text in ("A tenth of it.", "- The paper says no gamma.", "from commit abc", "| gamma 1 | gamma 1: 2.0 |"):
        assert text in first
    assert "| LR better than AT (R&G) | +20.2 | +6.0 (+3.5 to +8.5) | direction only | as before |  |" in first
    assert "| AT \\| x | 91.0 ± 1.4 | 91.0 ± 1.4 | 88.0 | - |" in first
    assert "FGSM: 0 of 1 reproduced, 1 in direction only" in first


def test_what_else_differs_is_told_beside_a_comparison(tmp_path):
    """Clean accuracy 90 and 92 against 80 and 84; 300 parameters against 200; nothing beside a check of one row."""
    result, again = claim(), claim()["checks"][0]
    result["checks"][0]["rows"] = ["LR", "AT"]
    accuracy = {"FGSM": {"0": spread([90.0, 92.0])}, "PGD": {"0": spread([90.0, 92.0])}}
    other = {"FGSM": {"0": spread([80.0, 84.0])}, "PGD": {"0": spread([80.0, 84.0])}}
    result["rows"] = [
        {"name": "LR", "accuracy": accuracy, "parameters": 300},
        {"name": "AT", "accuracy": other, "parameters": 200},
    ]
    result["checks"].append(again)
    lines = [line for line in checks(result).splitlines() if line.startswith("| LR better")]
    assert lines[0].endswith("| clean +9.0, parameters x 1.5 |")
    assert lines[1].endswith("| direction only | as before |  |  |")
    for row in result["rows"]:
        del row["parameters"]
        for columns in row["accuracy"].values():
            columns["0.2"] = columns.pop("0")
    assert "Beside" not in checks(result)


def test_no_page_of_somebody_elses_is_overwritten(tmp_path):
    page = tmp_path / "claims.md"
    page.write_text("mine")
    with pytest.raises(UserError, match="is no page of claims"):
        write_document(tmp_path, page)
    assert page.read_text() == "mine"


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_file_that_is_no_claim_is_named(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=r"x\.json is no result of a claim"):
        write_document(tmp_path, tmp_path / "claims.md")


@pytest.mark.parametrize(
    ("values", "judgement"),
    [
        ([UP, UP], "It helps throughout."),
        ([UP, EVEN], "It helps in places."),
        ([UP, DOWN], "It helps in places and harms in others."),
        ([EVEN, EVEN], "It does not help."),
        ([DOWN, EVEN], "It does not help, and it harms."),
    ],
)
def test_the_judgement_follows_from_the_intervals(values, judgement):
    text = regularisation_summary(claim([pair(f"LR{i}", "relative_error", v, EVEN) for i, v in enumerate(values)]))
    assert "speak of are +6.0 points under FGSM and +6.0 points under PGD; published: +20.2." in text
    if UP in values:
        assert "Above: LR0 (+6.0)" in text
    fgsm, pgd = [line for line in text.splitlines() if line.startswith("- ")]
    assert fgsm.startswith(f"- The published measure (relative error), under FGSM: {judgement} Of 2 rows")
    assert "under PGD: It does not help. Of 2 rows, 0 are above" in pgd
    assert "**" not in text  # nothing is said of the centred measure, which no row has


@pytest.mark.parametrize(
    ("centred", "sentence"),
    [
        (
            UP,  # differences 4.4, 5.5 and 6.8, the interval by Student's t of two degrees of freedom
            "**The centred measure helps in 1 rows and harms in none** (under PGD); on average it does better than the "
            "published measure (+5.6, +2.6 to +8.6 points of R&G over the base, seed by seed).",
        ),
        (
            DOWN,
            "**The centred measure does not help either, and harms in 1 rows** (under PGD); on average it does worse",
        ),
        (
            EVEN,
            "**The centred measure shows neither gain nor harm that so few seeds can tell from 0** (under PGD); on "
            "average it does neither better nor worse, as far as these seeds can tell, than the published measure "
            "(+0.1, -11.2 to +11.4 points",
        ),
    ],
)
def test_the_centred_measure_is_judged_under_the_strongest_attack(centred, sentence):
    pairs = [pair("LR", "relative_error", UP, [0.6, 0.5, 0.2]), pair("LR (centred)", "centred", EVEN, centred)]
    assert sentence in regularisation_summary(claim(pairs))


@pytest.mark.parametrize("measure", sorted(REGULARISERS))
def test_every_measure_of_training_is_summarised(measure):
    """With the two that are compared at the end, whatever else there is."""
    others = [pair("LR", "relative_error", UP, EVEN), pair("LR (centred)", "centred", EVEN, EVEN)]
    text = regularisation_summary(claim([*others, pair("LR (own)", measure, UP, UP)]))
    assert "LR (own)" in text
    assert "on average it does" in text


def test_cells_that_give_a_gain_are_told_from_those_that_come_near():
    near = {"better": "a", "than": "b", "at": "0.5", "difference": 16.3}
    cells = [
        {"gain": 16.35, "recipe": "r", "found": [], "nearest": [near]},
        {"gain": 16.3, "recipe": "r", "found": [near], "nearest": [near]},
    ]
    text = gain_summary({"cells": cells})
    assert "+16.35 (r): it is no difference of two cells of a column. Nearest: a less b at eps 0.5 (+16.30)." in text
    assert "+16.3 (r): the published table gives it as a less b at eps 0.5 (+16.30)." in text


def test_the_most_displaced_layer_is_named():
    values = {"pgd": [spread([0.1]), spread([0.9])], "salt": [spread([0.3]), spread([0.2])]}
    profile = {"layers": ["relu1", "relu2"], "displacement": {"relative_error": values}, "published": {}}
    assert "- A, relative error: relu1 under salt; relu2 under pgd." in profile_summary({"profiles": {"A": profile}})


def test_numbers_and_tables():
    assert [points(-0.04), points(-0.06), points(2.25)] == ["+0.0", "-0.1", "+2.2"]
    assert [number(None), number(0.456), number(12.34), number(12.34, signed=True), number(-0.1)] == [
        "-",
        "0.46",
        "12.3",
        "+12.3",
        "-0.10",
    ]
    assert table(["a", "b"], [["1", "2|3"]]) == "| a | b |\n| --- | --- |\n| 1 | 2\\|3 |"


def test_profiles_have_a_table_for_each_network_and_measure_with_published_numbers():
    cell = {"mean": 0.5, "sd": 0.25}
    displacement = {"relative_error": {"fgsm": [cell, {"mean": 1.0, "sd": None}]}, "centred": {"fgsm": [cell, cell]}}
    profile = {"layers": ["a", "b"], "displacement": displacement, "published": {"fgsm": [0.4, 0.9]}}
    first, second = profiles({"profiles": {"cnn": profile}}).split("### ")[1:]
    assert first.startswith(
        "cnn: relative error by layer\n\nMean over seeds; ± is the standard deviation; [published]."
    )
    assert "| fgsm | 0.50 ± 0.25 [0.40] | 1.00 [0.90] |" in first
    assert second.startswith("cnn: centred by layer\n\nMean over seeds; ± is the standard deviation.")
    assert "| fgsm | 0.50 ± 0.25 | 0.50 ± 0.25 |" in second
