import numpy as np
import pytest
from sklearn.datasets import load_digits

from buttress import data
from buttress.errors import UserError


def test_all_of_scikit_learns_digits_are_there_with_their_levels():
    made = data.load("digits")
    assert [len(split) for split in made.splits.values()] == [1350, 150, 297]
    levels, y = load_digits(return_X_y=True)
    ours = {}
    for split in made.splits.values():
        for x, label in zip(split.x, split.y.tolist(), strict=True):
            key = tuple(np.rint(x.numpy().ravel() / 255 * 16).astype(int))
            ours[key] = label
    assert ours == {tuple(row.astype(int)): int(label) for row, label in zip(levels, y, strict=True)}
    assert made.shape == (1, 8, 8)
    assert made.train.x.max() == 255


def test_the_seed_changes_val_and_not_the_test():
    one, two = data.load("digits", seed=1), data.load("digits", seed=2)
    assert one.test.x.equal(two.test.x)
    assert not one.val.ids.equal(two.val.ids)
    share = one.test.y.bincount() / len(one.test)
    assert ((share - 0.1).abs() < 0.01).all()


@pytest.mark.parametrize("test", [0, 1797])
def test_a_test_of_another_size_than_there_is_is_refused(test):
    with pytest.raises(UserError, match="expected 10 to 1796 inputs for the test"):
        data.load("digits", test=test)
