import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from buttress.data.stratified import stratified_counts, stratified_index
from buttress.errors import UserError

labels = st.lists(st.integers(0, 6), min_size=1, max_size=120)


@given(labels, st.data())
def test_shares_are_exact_up_to_rounding_and_every_class_is_there_where_it_can_be(y, data):
    y = torch.tensor(y)
    total = data.draw(st.integers(0, len(y)))
    index = stratified_index(y, total, seed=0)
    assert len(index) == total
    assert (index.diff() > 0).all()  # in order, none twice
    sizes, counts = torch.bincount(y, minlength=7), torch.bincount(y[index], minlength=7)
    present = int((sizes > 0).sum())
    share = sizes.double() * total / len(y)
    if total >= present:
        assert (counts[sizes > 0] >= 1).all()
        assert (counts < share + 1).logical_or(counts == 1).all()
        forced = share < 1
        if not (forced & (sizes > 0)).any():
            assert ((counts - share).abs() < 1).all()
    else:
        assert ((counts - share).abs() < 1).all()


def test_largest_remainders_by_hand():
    assert stratified_counts(torch.tensor([50, 30, 20]), 10).tolist() == [5, 3, 2]
    assert stratified_counts(torch.tensor([47, 33, 20]), 10).tolist() == [5, 3, 2]  # 4.7, 3.3, 2.0
    assert stratified_counts(torch.tensor([97, 2, 1]), 3).tolist() == [1, 1, 1]
    assert stratified_counts(torch.tensor([97, 2, 0, 1]), 2).tolist() == [2, 0, 0, 0]
    assert stratified_counts(torch.tensor([50, 50, 1, 1]), 6).tolist() == [2, 2, 1, 1]


def test_same_seed_same_rows_another_seed_others():
    y = torch.arange(1000) % 10
    assert torch.equal(stratified_index(y, 100, seed=1), stratified_index(y, 100, seed=1))
    assert not torch.equal(stratified_index(y, 100, seed=1), stratified_index(y, 100, seed=2))


def test_every_row_is_equally_likely():
    y = torch.tensor([0] * 6 + [1] * 12)
    hits = sum(torch.bincount(stratified_index(y, 6, seed), minlength=18) for seed in range(600))
    assert ((hits - 200).abs() < 5 * (600 * (1 / 3) * (2 / 3)) ** 0.5).all()


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    stratified_index(torch.arange(50) % 5, 10, seed=3)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("total", [-1, 5])
def test_more_than_there_is_is_refused(total):
    with pytest.raises(UserError, match=f"expected a sample of 0 to 4 inputs, got {total}"):
        stratified_index(torch.zeros(4, dtype=torch.int64), total, seed=0)
