import pytest
import torch
from tests.lazy import lazy_split

from buttress.data.dataset import Dataset, Split
from buttress.errors import UserError


def both(x):
    """The same inputs in memory and lazily."""
    split = Split(x, torch.arange(len(x)) % 3, torch.arange(len(x)) + 5)
    return split, lazy_split(split)


@pytest.fixture(params=["bytes", "floats"])
def splits(request):
    x = torch.rand(40, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return both((x * 255).byte() if request.param == "bytes" else x)


def same(split, lazy):
    assert split.ids.equal(lazy.ids)
    for known, read in zip(split.take(torch.arange(len(split))), lazy.take(torch.arange(len(lazy))), strict=True):
        assert known.equal(read)


def test_a_split_of_lazy_inputs_is_that_of_the_same_inputs_in_memory(splits):
    split, lazy = splits
    index = torch.tensor([7, 3, 30])
    same(split, lazy)
    same(split.subset(index), lazy.subset(index))
    same(split.stratified(9, 1), lazy.stratified(9, 1))
    for part, lazy_part in zip(split.divide(11, 4), lazy.divide(11, 4), strict=True):
        same(part, lazy_part)
    same(split.pooled(2), lazy.pooled(2))
    assert len(lazy) == 40
    assert lazy.shape == split.shape
    for (x, y), (lazy_x, lazy_y) in zip(split, lazy, strict=True):
        assert x.equal(lazy_x)
        assert y.equal(lazy_y)


def test_choosing_reads_nothing(splits):
    _, lazy = splits
    lazy.stratified(9).divide(3, 0)[0].pooled(2).subset(torch.arange(2))
    assert lazy.x.source.asked == 0


def dataset(split):
    """Three thirds of the inputs."""
    return Dataset("d", *(split.subset(rows) for rows in torch.arange(39).chunk(3)), ("a", "b", "c"), (0, 1), "made")


def test_statistics_of_channels_are_those_of_the_inputs_in_memory(splits):
    known, lazy = map(dataset, splits)
    assert known.mean == lazy.mean
    assert known.std == lazy.std


def test_large_splits_are_known_by_a_sample_wherever_they_are(splits, monkeypatch):
    split, lazy = splits
    monkeypatch.setattr("buttress.data.dataset._LARGE", 100)
    monkeypatch.setattr("buttress.data.dataset._SAMPLE", 4 * split.x[0].nbytes)
    assert split.sample.x.equal(split.x[[0, 13, 26, 39]])
    assert split.sample.x.equal(lazy.sample.x)
    assert lazy.x.source.asked == 4


def test_what_does_not_fit_is_refused_before_it_is_read(splits, monkeypatch):
    _, lazy = splits
    monkeypatch.setattr("buttress.data.memory.free_memory", lambda: 1000.0)
    with pytest.raises(UserError, match=r"40 inputs \(3, 4, 4\) at once would take .* half of the .*--limit N"):
        lazy.take(torch.arange(40))
    with pytest.raises(UserError, match=r"a method: all 40 inputs at once would take"):
        lazy.in_memory("a method")
    assert lazy.held() is lazy
    assert lazy.x.source.asked == 0
    assert len(lazy.take(torch.arange(2))[0]) == 2
    monkeypatch.undo()
    assert lazy.held().x.equal(lazy.x[:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:, :2], r"expected inputs float32 \(2, 3, 4, 4\) as at first, got float32 \(2, 2, 4, 4\)"),
        (lambda x: x.double(), r"got float64"),
        (lambda x: x / 0, r"finite inputs, got NaN or infinity"),
        (lambda x: x + 2, r"inputs: expected values from 0 to 1, got"),
    ],
)
def test_what_a_source_gives_later_is_checked(change, message):
    x = torch.rand(39, 3, 4, 4)
    data = dataset(both(x)[1])
    data.train.x.source.read = lambda rows: change(x[rows])
    with pytest.raises(UserError, match=message):
        data.train.take(torch.arange(2))
