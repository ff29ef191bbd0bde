import itertools

import pytest

from buttress.data.images.split_names import split_of, splits_of
from buttress.errors import UserError

NAMES = {
    "train": ("train", "training", "train_set", "training-set", "trainset", "train2017", "train_images"),
    "val": ("val", "valid", "validation", "dev", "val_set", "val2017"),
    "test": ("test", "testing", "test_set", "testset", "test1", "tests", "tst", "holdout"),
}
PAIRS = [(role, name) for role, names in NAMES.items() for name in names]


@pytest.mark.parametrize("change", [str, str.upper, str.title])
@pytest.mark.parametrize(("role", "name"), PAIRS)
def test_a_name_of_a_split_is_known_in_any_case(role, name, change):
    assert split_of(change(name)) == role


@pytest.mark.parametrize("name", ["cat", "trained", "testament", "0", "train_station", "set", "", "contest", "value"])
def test_any_other_name_is_none(name):
    assert split_of(name) is None


def test_eval_is_the_test_unless_there_is_one():
    assert splits_of(["train", "eval"], "x") == {"train": "train", "eval": "test"}
    assert splits_of(["val", "Eval"], "x") == {"val": "val", "Eval": "test"}
    assert splits_of(["test", "eval"], "x") == {"test": "test", "eval": "val"}


@pytest.mark.parametrize("names", list(itertools.combinations(NAMES["val"], 2)))
def test_two_folders_for_one_split_are_refused(names):
    with pytest.raises(UserError, match="which both stand for val; rename one"):
        splits_of(names, "here")


@pytest.mark.parametrize(
    ("train", "test"), [("seg_train", "seg_test"), ("train.v2", "test.v2"), ("birds-train", "birds-test")]
)
def test_words_that_all_names_have_do_not_count(train, test):
    assert splits_of([test, train], "x") == {train: "train", test: "test"}
    assert splits_of([train, "cat"], "x") == {}
