"""Where the most vulnerable layer went, of profiles whose places are known."""

import pytest

from buttress.audits.base.finding import Finding
from buttress.jobs.layer_comparison import depths, with_layers_compared

LAYERS = ["a", "b", "c", "d"]


def profile(first, layers=LAYERS, inputs="same", attack="pgd"):
    """Layers of which those in ``first`` may each be the most vulnerable by margin, and no other."""
    rank = [1 + (layer not in first) * len(first) for layer in layers]
    ends = {"rank": rank, "low": rank, "high": [len(first) if layer in first else len(layers) for layer in layers]}
    values = [0.5 * place for place in rank]
    data = {
        "layers": list(layers),
        "perturbations": ["pgd"],
        "measure": "relative_error",
        "mean": [values],
        "margin": values,
        "perturbed_by": attack,
        "same_inputs": inputs,
        "ranks": {"by": {"margin": ends}},
    }
    return Finding("layers", "Layers", "", "info", data)


def compared(**networks):
    found = with_layers_compared({name: [finding] for name, finding in networks.items()})
    return {name: findings[1] for name, findings in found.items()}


def test_a_layer_that_moved():
    last = compared(before=profile(["a"]), after=profile(["d"]))["after"]
    assert last.verdict == "By margin the most vulnerable layer moved from a in before to d."
    move = last.data["moves"]["margin"]
    assert (move["change"], move["from"], move["to"]) == ("moved", ["a"], ["d"])
    assert move["shifted"] == ["a", "d"]


def test_layers_that_cannot_be_told_apart_have_not_moved():
    last = compared(before=profile(["a", "b"]), after=profile(["b"]))["after"]
    assert last.verdict == "By margin the most vulnerable layer is not shown to have moved: a or b in before, b here."
    assert last.data["moves"]["margin"]["change"] == "not shown"
    same = compared(before=profile(["c"]), after=profile(["c"]))["after"]
    assert same.verdict.endswith("is not shown to have moved: c in both.")
    assert same.data["moves"]["margin"]["shifted"] == []


def test_where_no_layer_stands_out_nothing_is_said_to_have_moved():
    last = compared(before=profile(LAYERS), after=profile(["c"]))["after"]
    assert last.verdict == "By margin no layer of before stands out."
    both = compared(before=profile(LAYERS), after=profile(LAYERS))["after"]
    assert both.verdict == "By margin no layer of before and none of after stands out."


@pytest.mark.parametrize(("first", "change"), [(["x"], "not shown"), (["w"], "moved"), (["v", "w"], "moved")])
def test_other_layers_are_set_side_by_side_by_depth(first, change):
    """Of 6 layers against 4: x is as deep as b and c are, v and w are deeper."""
    deep = profile(first, layers=["s", "t", "x", "y", "v", "w"])
    last = compared(before=profile(["b", "c"]), after=deep)["after"]
    assert last.data["moves"]["margin"]["change"] == change
    assert last.data["moves"]["margin"]["shifted"] == []
    assert "b (depth 33%) or c (depth 67%) in before" in last.verdict
    assert last.verdict.endswith("The layers are not the same; they are set side by side by depth.")


def test_other_inputs_and_other_perturbations_are_told():
    last = compared(before=profile(["a"]), after=profile(["a"], inputs="others", attack="pgd at another eps"))["after"]
    assert (
        "They were looked at by another perturbation than those of before, which may be what differs." in last.verdict
    )
    assert "They were looked at on other inputs than those of before" in last.verdict


def test_of_three_each_is_set_against_the_first():
    found = compared(a=profile(["a"]), b=profile(["b"]), c=profile(["c"]))
    assert [finding.data["reference"] for finding in found.values()] == ["a"] * 3
    assert found["a"].data["moves"] == {}
    assert found["c"].verdict.endswith("moved from a in a to c.")


def test_what_has_no_profile_is_left_as_it_is():
    other = Finding("robustness", "R", "", "info", {})
    alone = {"a": [other, profile(["a"])], "b": [other]}
    assert with_layers_compared(alone) == alone
    found = with_layers_compared({**alone, "c": [profile(["d"]), other]})
    assert [[finding.kind for finding in findings] for findings in found.values()] == [
        ["robustness", "layers", "layer-comparison"],
        ["robustness"],
        ["layers", "layer-comparison", "robustness"],
    ]


def test_depth_is_from_the_first_layer_to_the_last():
    assert depths(LAYERS) == [0, 1 / 3, 2 / 3, 1]
    assert depths(["only"]) == [0]
