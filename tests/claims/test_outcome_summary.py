"""What survives of a claim is said in words that follow from its numbers."""

import pytest

from buttress.audits.masking.audit import TESTS
from buttress.audits.masking.checks.paired_attacks import least_gap
from buttress.claims.outcome_summary import (
    ALIKE,
    ALWAYS,
    CHANCE,
    FIGURES,
    NEVER,
    REFUTED,
    SOMETIMES,
    outcome_summary,
)
from buttress.claims.seed_statistics import CANNOT_FAIL, paired_difference, spread, verdict

UP, HIGH, DOWN = [5.0, 6.0, 7.0], [6.0, 7.0, 8.0], [-5.0, -6.0, -7.0]
EVEN, WORSE = [-4.0, 5.0, 0.5], [4.0, -5.0, -0.5]


def check(name, **under):
    return {
        "statement": name,
        "rows": ["A", "B"],
        "under": {
            label: {**paired_difference(values), "verdict": verdict(paired_difference(values), None)}
            for label, values in under.items()
        },
    }


def row(name, clean, said=None, **left):
    accuracy = {label: {"0": spread([clean] * 3), "0.1": spread([value] * 3)} for label, value in left.items()}
    figures = {} if said is None else {"masking": {"values": said}}
    return {"name": name, "accuracy": accuracy, "figures": figures}


def claim(checks=(), rows=None, **more):
    rows = rows or [row("A", 90.0, FGSM=60.0), row("B", 90.0, FGSM=60.0)]
    return {"checks": list(checks), "rows": rows, "eps": [0, 0.1], "seeds": 3, **more}


def lines(claim):
    return outcome_summary(claim).splitlines()[2:]


@pytest.mark.parametrize(
    ("under", "outcome"),
    [
        ({"FGSM": UP, "PGD": HIGH}, f"{ALWAYS}: it."),
        ({"FGSM": UP, "PGD": UP}, f"{FIGURES}: it."),
        ({"FGSM": UP}, f"{ALWAYS}: it."),
        ({"FGSM": UP, "PGD": EVEN}, f"{SOMETIMES}: it under FGSM."),
        (
            {"FGSM": UP, "PGD": DOWN, "Square": EVEN},
            f"{SOMETIMES}: it under FGSM, and wholly on the other side under PGD.",
        ),
        ({"FGSM": EVEN, "PGD": WORSE}, f"{CHANCE}: it."),
        ({"FGSM": [5.0] * 3, "PGD": WORSE}, f"{CHANCE}: it."),
        ({"FGSM": [5.0] * 3, "PGD": [6.0] * 3}, f"{ALIKE}: it."),
        ({"FGSM": WORSE, "PGD": WORSE}, f"{NEVER}: it."),
        ({"FGSM": EVEN, "PGD": DOWN}, f"{REFUTED}: it under PGD."),
        ({"FGSM": DOWN, "PGD": DOWN}, f"{REFUTED}: it."),
    ],
)
def test_a_check_is_told_by_what_came_of_it_under_all_attacks(under, outcome):
    assert f"- {outcome}" in lines(claim([check("it", **under)]))


def test_what_may_be_lost_is_refuted_beyond_that_alone():
    """An interval from 8.5 to 3.5 below is beyond what may be lost where that is 3, and not where it is 7."""
    for by, outcome in ((-7.0, NEVER), (-3.0, REFUTED)):
        lost = check("it", FGSM=DOWN) | {"by": by}
        assert any(line.startswith(f"- {outcome}: it") for line in lines(claim([lost])))


def test_where_no_accuracy_stands_above_under_every_attack_that_comes_first():
    first = "- No accuracy is above another under every attack, as claimed."
    assert lines(claim([check("it", FGSM=EVEN)]))[0] == first
    assert lines(claim([check("a figure", FGSM=UP, PGD=UP)]))[0] == first
    assert first not in lines(claim([check("it", FGSM=EVEN), check("that", FGSM=UP)]))


def test_what_cannot_fail_is_not_told():
    empty = check("it", FGSM=UP)
    empty["under"]["FGSM"]["verdict"] = CANNOT_FAIL
    assert "it" not in outcome_summary(claim([empty])).replace("with", "")


def test_unmatched_clean_accuracy_is_told_by_its_largest_difference():
    rows = [row("A", 90.0, FGSM=60.0), row("B", 92.5, FGSM=60.0), row("C", 10.0, FGSM=60.0)]
    told = "- Clean accuracy of rows that are compared, on the inputs of FGSM, differs by 2.5 points at most (A and B)."
    assert told in lines(claim([check("it", FGSM=UP)], rows))


def test_appearance_is_what_the_strongest_attack_of_a_row_takes_beyond_pgd():
    rows = [
        row("A", 90.0, **{"PGD from B": 1.0, "PGD-40": 60.0, "AutoAttack": 50.0, "Square": 55.0}),
        row("B", 90.0, **{"PGD from B": 80.0, "PGD-40": 60.0, "AutoAttack": 60.0, "Square": 58.0}),
        row("C", 90.0, **{"PGD from B": 80.0, "PGD-40": 60.0, "AutoAttack": 60.0, "Square": 61.0}),
    ]
    told = lines(claim([check("it", FGSM=UP)], rows))[-1]
    assert told.startswith("- Points of accuracy that PGD-40 takes at eps 0.1, and that the table's strongest attack")
    assert told.endswith("furthest apart: A 30.0 and 89.0 (PGD from B); B 30.0 and 32.0 (Square).")
    alike = [{**rows[2], "name": name} for name in "AB"]
    told = lines(claim([check("it", FGSM=UP)], alike))[-1]
    assert told == "- No attack of the table takes more accuracy at eps 0.1 than PGD-40."


def test_an_attack_on_few_inputs_tells_nothing_of_appearance_or_of_clean_accuracy():
    rows = [row(name, 90.0, **{"PGD-40": 60.0, "AutoAttack": 40.0}) for name in "AB"]
    rows[0]["accuracy"]["PGD-40"]["0"] = spread([88.0] * 3)
    attacks = [{"attack": "pgd", "inputs": 50}, {"attack": "autoattack", "inputs": 24}]
    told = lines(claim([check("it", FGSM=UP)], rows, experiment={"attacks": attacks}))
    assert told[-1] == "- No attack of the table takes more accuracy at eps 0.1 than PGD-40."
    assert "on the inputs of PGD-40, differs by 2.0 points at most (A and B)." in told[-2]
    attacks[1]["inputs"] = 25
    assert (
        "A 28.0 and 50.0 (AutoAttack)"
        in lines(claim([check("it", FGSM=UP)], rows, experiment={"attacks": attacks}))[-1]
    )
    attacks[1]["inputs"] = None  # all
    assert (
        "on the inputs of AutoAttack, differs by 0.0"
        in (lines(claim([check("it", FGSM=UP)], rows, experiment={"attacks": attacks}))[-2])
    )


def test_inputs_that_are_wrong_already_do_not_count_for_an_attack():
    """AutoAttack leaves least, but was asked about inputs of which fewer were right."""
    rows = [row(name, 90.0, **{"PGD-40": 60.0, "AutoAttack": 55.0}) for name in "AB"]
    for each in rows:
        each["accuracy"]["AutoAttack"]["0"] = spread([80.0] * 3)
    told = lines(claim([check("it", FGSM=UP)], rows))[-1]
    assert told == "- No attack of the table takes more accuracy at eps 0.1 than PGD-40."


@pytest.mark.parametrize(("audit", "inputs", "asked"), [({"inputs": 30}, None, 30), ({}, 50, 50), ({}, None, 200)])
def test_masking_tells_which_rows_it_doubts_and_what_it_cannot_show(audit, inputs, asked):
    good, bad = ["trustworthy"] * 3, ["trustworthy", "not trustworthy", "suspect"]
    figure = {"audit": {"name": "masking", **audit}, "path": "verdict", "inputs": inputs}
    experiment = {"figures": {"masking": figure, "other": {"audit": "end-time", "path": "mean"}}}
    gap = least_gap(asked, level=0.01 / TESTS, floor=0.01, tolerated=0.05)
    both = [row("A", 90.0, bad, FGSM=60.0), row("B", 90.0, good, FGSM=60.0)]
    told = lines(claim([check("it", FGSM=UP)], both, experiment=experiment))[-1]
    assert told == (
        f'- The verdict "masking", on {asked} inputs, doubts A (2 of 3); '
        f"it can show no gap below {100 * gap:.0f} points to a costlier attack."
    )
    calm = [row("A", 90.0, good, FGSM=60.0), row("B", 90.0, FGSM=60.0)]
    assert "doubts no row;" in lines(claim([check("it", FGSM=UP)], calm, experiment=experiment))[-1]
