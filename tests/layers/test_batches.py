"""A user's data as a layer analysis reads them: batch sizes and ids."""

import pytest
import torch
from torch import nn

from buttress.errors import UserError
from buttress.layers.batches import batches


class WithIds(list):
    """Batches that carry something called ids."""

    def __init__(self, items, ids):
        super().__init__(items)
        self.ids = ids


X, Y = torch.rand(5, 2), torch.tensor([0, 1, 0, 1, 0])
NET = nn.Linear(2, 2)


def ids_of(data, size=2):
    return torch.cat([ids for _, _, ids in batches(NET, data, size)]).tolist()


def test_batches_are_divided_and_ids_follow():
    read = list(batches(NET, WithIds([(X[:3], Y[:3]), (X[3:], Y[3:], "more")], torch.arange(10, 15)), 2))
    assert [len(x) for x, _, _ in read] == [2, 1, 2]
    assert torch.equal(torch.cat([x for x, _, _ in read]), X)
    assert torch.cat([ids for _, _, ids in read]).tolist() == [10, 11, 12, 13, 14]


@pytest.mark.parametrize("ids", [None, ["a", "b"], lambda: 3, torch.rand(5)])
def test_ids_that_are_none_are_positions(ids):
    assert ids_of(WithIds([(X, Y)], ids)) == [0, 1, 2, 3, 4]


def test_too_few_ids_are_refused():
    with pytest.raises(UserError, match=r"^data\.ids names 3 inputs, and data gives more: give one id for each$"):
        ids_of(WithIds([(X, Y)], torch.arange(3)))
