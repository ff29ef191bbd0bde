"""What the verdict leads with, on places made up by hand."""

from dataclasses import replace

import pytest
import torch

from buttress.audits.layer_verdict import displaced, growth, verdict
from buttress.layers import LayerProfile

NAMES = ["a", "b", "c"]


def told(left_out=None, missed=None, **data):
    values = torch.tensor([[[0.1] * 8, [0.2] * 8, [0.9] * 8]])
    profile = LayerProfile.of(
        NAMES, ["pgd"], "relative_error", values, torch.ones(1, 8), predecessors=[-1, 0, 1], crossed=[True] * 3
    )
    profile = replace(profile, left_out=left_out or {}, missed=missed or [])
    found = {"ranks": {"by": data.pop("by", {})}, **data}
    return verdict(profile, displaced(profile, None), profile.layers, growth(profile, 0), found, "PGD-20")


def places(rank, low=None):
    return {"rank": rank, "low": low or rank, "high": rank}


def test_the_layers_that_come_first_by_margin_and_by_patching_are_named_before_those_displaced_most():
    by = {"margin": places([1, 2, 3]), "recovery": places([2, 1, 3], [1, 1, 3])}
    text = told(by=by, margin=[0.25, 0.5, 2.0], patching={"recovery": [0.5, 0.75, 0.25]})
    first, second, third = text.split(". ")[:3]
    assert first == "By margin a matters most (0.25)"
    assert second == (
        "By patching b and a matter most, which cannot be told apart (75% and 50% of the beaten inputs are right "
        "again, on average over how much of the clean value is put back)"
    )
    assert third.startswith("Most displaced under PGD-20: c")


@pytest.mark.parametrize(
    ("by", "margin", "expected"),
    [
        (places([1, 2, 2], [1, 1, 1]), [0.5, 0.6, 0.6], "By margin no layer stands out."),
        (places([2, 1, None]), [None, 0.5, None], "By margin b matters most (0.5)."),
        (
            places([1, 1, 3]),
            [None, None, 3.0],
            "By margin a and b matter most, which cannot be told apart (infinite and",
        ),
        (places([1, None, None]), [0.5, None, None], "Most displaced"),
        (places([None] * 3), [None] * 3, "Most displaced"),
    ],
    ids=["alike", "undefined", "infinite", "a single one", "none"],
)
def test_alike_undefined_and_infinite_margins(by, margin, expected):
    assert told(by={"margin": by}, margin=margin).startswith(expected)


def test_without_beaten_inputs_patching_shows_nothing():
    assert told(patching_inputs=0).startswith("No input is beaten, so patching shows nothing. Most displaced")
    assert told().startswith("Most displaced")


def test_what_was_left_out_and_missed_is_said_at_the_end_and_each_reason_once():
    constant = {"gate": "does not depend on the input"}
    text = told(
        left_out=constant,
        not_searched={"c": "is not called in every pass"},
        patching={"left_out": {**constant, "c": "is not called in every pass", "b": "is not called"}},
        missed=["abs after c"],
    )
    assert text.endswith(
        " Not measured: gate, which does not depend on the input."
        " Without a margin: c, which is not called in every pass."
        " Not patched: b, which is not called."
        " Perhaps layers, but written by hand and not seen as such: abs after c."
    )
    assert "Not" not in told()
