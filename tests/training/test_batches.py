"""Batches: every input once an epoch, shared out among processes, a function of (seed, epoch, index)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from buttress.data.augment import Augment
from buttress.data.dataset import Dataset, Split
from buttress.errors import UserError
from buttress.training.batches import Batches

CPU = torch.device("cpu")


def dataset(count, dtype=torch.float32, augment=None):
    first = torch.arange(count)
    x = (first.float()[:, None] / 1000).repeat(1, 2) if dtype == torch.float32 else first.byte().view(-1, 1, 1, 1)
    held_out = [Split(x[:1], torch.zeros(1, dtype=torch.int64), torch.tensor([9000 + k])) for k in range(2)]
    train = Split(x, first % 2, first + 50)
    return Dataset("numbers", train, *held_out, ("even", "odd"), None, "made here.", augment)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(2, 40),
    size=st.integers(1, 45),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 5),
    world=st.integers(1, 3),
)
def test_an_epoch_is_a_permutation_that_the_processes_partition(count, size, seed, epoch, world):
    data = dataset(count)
    alone = list(Batches(data, size, seed, CPU).epoch(epoch))
    shared = [list(Batches(data, size, seed, CPU, rank, world).epoch(epoch)) for rank in range(world)]
    for index, parts in enumerate(zip(*shared, strict=True)):
        together = torch.cat([part.ids for part in parts])
        assert sorted(together.tolist()) == sorted(alone[index].ids.tolist())
        assert max(len(p.ids) for p in parts) - min(len(p.ids) for p in parts) <= 1
    ids = torch.cat([batch.ids for batch in alone]).tolist()
    assert len(ids) == len(set(ids))
    left_out = count - len(ids)
    assert left_out in (0, 1), "only a lone input is left to the next epoch"
    assert left_out == (count % size == 1 and count > size > 1)
    for batch in alone:
        torch.testing.assert_close(batch.x[:, 0], (batch.ids - 50).float() / 1000, rtol=0, atol=0)
        assert torch.equal(batch.y, (batch.ids - 50) % 2)


def test_batches_depend_on_seed_epoch_and_index_only():
    batches = Batches(dataset(40), 8, 3, CPU)
    whole = list(batches.epoch(2))
    assert len(whole) == batches.per_epoch == 5
    for start in range(5):
        for late, early in zip(batches.epoch(2, start), whole[start:], strict=True):
            assert torch.equal(late.ids, early.ids)
    others = [next(iter(Batches(dataset(40), 8, seed, CPU).epoch(epoch))).ids for seed, epoch in ((3, 3), (4, 2))]
    assert all(not torch.equal(ids, whole[0].ids) for ids in others)


def test_bytes_are_read_as_shares_of_255():
    (batch,) = Batches(dataset(30, torch.uint8), 30, 0, CPU).epoch(0)
    torch.testing.assert_close(batch.x.flatten(), (batch.ids - 50).float() / 255, rtol=0, atol=0)


def test_inputs_come_in_the_dtype_of_the_model():
    (batch,) = Batches(dataset(30, torch.uint8), 30, 0, CPU, dtype=torch.float64).epoch(0)
    torch.testing.assert_close(batch.x.flatten(), (batch.ids - 50).double() / 255, rtol=0, atol=0)


def test_augmentation_draws_by_input_and_epoch_whatever_the_batch():
    data = dataset(30, torch.uint8)
    wide = Split(torch.randint(0, 256, (30, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator()), *rest(data))
    tiny = Split(wide.x[:1], *rest(data, 1, 9000))
    data = Dataset("n", wide, tiny, Split(wide.x[:1], *rest(data, 1, 9001)), ("a", "b"), None, "here.", Augment(pad=2))

    def augmented(size, epoch=0):
        batches = list(Batches(data, size, 1, CPU).epoch(epoch))
        ids, x = torch.cat([b.ids for b in batches]), torch.cat([b.x for b in batches])
        return x[ids.argsort()]

    torch.testing.assert_close(augmented(30), augmented(6), rtol=0, atol=0)
    assert not torch.equal(augmented(30), augmented(30, 1))
    assert not torch.equal(augmented(30), wide.x.float() / 255)


def rest(data, count=30, first=50):
    return data.train.y[:count], torch.arange(first, first + count)


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(UserError, match="batch_size must be a whole number of 1 or more; got 0"):
        Batches(dataset(30), 0, 0, CPU)
