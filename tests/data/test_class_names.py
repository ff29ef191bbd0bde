"""Classes by name or by number, and data without some of them."""

import json

import pytest
import torch

from buttress.data import without_classes
from buttress.data.class_names import class_indices
from buttress.data.dataset import Dataset, Split
from buttress.errors import UserError
from buttress.jobs.settings import Source

NAMES = ("cat", "dog", "ship", "truck")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [(["dog"], [1]), ([2], [2]), (["3"], [3]), (["truck", 0, "cat"], [3, 0])],
)
def test_classes_by_name_or_index(wanted, found):
    assert class_indices(wanted, NAMES) == found


def test_a_name_goes_before_an_index():
    assert class_indices(["1", 1], ("0", "2", "1")) == [2, 1]


@pytest.mark.parametrize(
    ("wanted", "told"),
    [("dogg", "did you mean 'dog'"), (4, "0 to 3; got 4"), ("17", "0 to 3; got '17'"), (-1, "0 to 3; got -1")],
)
def test_unknown_classes_are_refused(wanted, told):
    with pytest.raises(UserError, match=told):
        class_indices([wanted], NAMES)


@pytest.fixture
def four():
    """Input i of a split is of class i mod 4, and its value says its id."""
    parts = {}
    for k, name in enumerate(("train", "val", "test")):
        ids = torch.arange(8) + 8 * k
        parts[name] = Split(ids[:, None].float(), ids % 4, ids)
    return Dataset("four", **parts, classes=NAMES, box=None, provenance="made here.")


def test_the_labels_of_the_others_close_the_gap(four):
    rest = without_classes(four, ["dog"])
    assert rest.classes == ("cat", "ship", "truck")
    for name, part in rest.splits.items():
        assert part.y.tolist() == [0, 1, 2, 0, 1, 2]
        kept = [i for i in four.splits[name].ids.tolist() if i % 4 != 1]
        assert part.ids.tolist() == kept == part.x.flatten().int().tolist()


def test_every_input_keeps_the_name_of_its_class(four):
    rest = without_classes(four, [0, "ship"])
    assert rest.classes == ("dog", "truck")
    assert [rest.classes[k] for k in rest.test.y] == [NAMES[i % 4] for i in rest.test.ids]
    assert without_classes(four, []).classes == NAMES


@pytest.mark.parametrize(
    ("wanted", "told"), [(["dogg"], "did you mean 'dog'"), (["cat", 1, "truck"], "must be left; 1 would")]
)
def test_classes_that_cannot_be_left_out(wanted, told, four):
    with pytest.raises(UserError, match=told):
        without_classes(four, wanted)


def test_values_are_no_classes():
    parts = {
        name: Split(torch.rand(4, 2), torch.rand(4), torch.arange(4) + 4 * k)
        for k, name in enumerate(("train", "val", "test"))
    }
    values = Dataset("values", **parts, classes=("size",), box=None, provenance="made here.")
    with pytest.raises(UserError, match="one class for each input; values has none"):
        without_classes(values, ["size"])


def test_a_run_remembers_the_classes_that_it_was_trained_without():
    first, facts = Source(data="digits", without_classes=["3", "8"], limit=40).load(seed=0)
    assert first.classes == ("0", "1", "2", "4", "5", "6", "7", "9")
    again, told = Source().load(seed=99, known={"source": json.loads(json.dumps(facts))})
    assert (again.classes, told) == (first.classes, facts)
    assert "without_classes" not in Source(data="digits").load(seed=0)[1]
    with pytest.raises(UserError, match="without_classes"):
        Source().load(seed=0, known={"source": {**facts, "without_classes": "38"}})
