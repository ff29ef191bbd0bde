import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from buttress.data.arrays import default_val_size, from_arrays
from buttress.data.checks import check_labels
from buttress.data.dataset import Dataset, Split
from buttress.errors import UserError


def images(n, seed=0, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (n, channels, 4, 5), dtype=np.uint8)


def split(n=10, first=0, classes=2):
    y = torch.arange(n) % classes
    return Split(torch.from_numpy(images(n)), y, torch.arange(first, first + n))


def make(**changes):
    parts = {"train": split(), "val": split(first=10), "test": split(first=20)}
    fields = {"name": "toy", **parts, "classes": ("a", "b"), "box": (0, 1), "provenance": "made here."}
    return Dataset(**{**fields, **changes})


def test_batches_of_256_in_order_as_float_in_unit_range():
    n = 600
    x = images(n)
    part = Split(torch.from_numpy(x), torch.arange(n) % 3, torch.arange(n))
    batches = list(part)
    assert [len(y) for _, y in batches] == [256, 256, 88]
    got = torch.cat([xb for xb, _ in batches])
    assert got.dtype == torch.float32
    assert np.array_equal(got.numpy(), x.astype(np.float32) / np.float32(255))
    assert torch.equal(torch.cat([y for _, y in batches]), part.y)
    assert len(part) == n


def test_take_gives_floats_labels_and_ids_of_the_rows():
    part = split(10, first=100)
    x, y, ids = part.take(torch.tensor([7, 2]))
    assert torch.equal(x, part.x[[7, 2]].float() / 255)
    assert y.tolist() == [1, 0]
    assert ids.tolist() == [107, 102]


def test_floats_stay_as_they_are():
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)) * 9
    part = Split(x, torch.zeros(5, dtype=torch.int64), torch.arange(5))
    assert torch.equal(next(iter(part))[0], x)
    assert torch.equal(part.take(torch.arange(5))[0], x)


def test_stratified_keeps_ids_and_returns_itself_when_nothing_is_left_out():
    part = split(40, first=7)
    assert part.stratified(40) is part
    assert part.stratified(99) is part
    some = part.stratified(10, seed=1)
    assert some.y.bincount().tolist() == [5, 5]
    assert torch.equal(some.x, part.x[some.ids - 7])
    assert (some.ids.diff() > 0).all()
    with pytest.raises(UserError, match="limit must be a whole number of 1 or more"):
        part.stratified(0)


@given(st.integers(2, 80), st.integers(1, 5), st.integers(0, 3), st.data())
def test_divide_is_a_partition_that_the_seed_fixes(n, classes, seed, data):
    whole = split(n, classes=classes)
    count = data.draw(st.integers(1, n - 1))
    rest, off = whole.divide(count, seed)
    assert len(off) == count
    assert sorted(rest.ids.tolist() + off.ids.tolist()) == list(range(n))
    assert torch.equal(off.ids, whole.divide(count, seed)[1].ids)
    assert torch.equal(off.y, whole.y[off.ids])
    assert torch.equal(rest.x, whole.x[rest.ids])


@pytest.mark.parametrize("count", [0, 10, -3])
def test_divide_refuses_an_empty_part(count):
    with pytest.raises(UserError, match=f"1 to 9 of 10 inputs, got {count}"):
        split(10).divide(count, 0)


@pytest.mark.parametrize(
    ("x", "y", "ids", "text"),
    [
        (torch.zeros(2, 3), torch.zeros(2).int(), torch.arange(2), r"labels of type int64 .* \(2,\): use y.long\(\)$"),
        (torch.zeros(2, 3), torch.zeros(2).double(), torch.arange(2), r"got float64 \(2,\): use y.float\(\)$"),
        (torch.zeros(2, 3), torch.full((2, 1), 3), torch.arange(2), r"got int64 \(2, 1\): use y.squeeze\(1\)$"),
        (torch.zeros(2, 3), torch.full((2, 2), 3), torch.arange(2), r"labels .* got int64 \(2, 2\)$"),
        (
            torch.zeros(2, 3),
            torch.tensor([0.0, torch.inf]),
            torch.arange(2),
            "finite values y, got NaN or infinity",
        ),
        (torch.zeros(2, 3), torch.zeros(3).long(), torch.arange(2), r"labels .* got int64 \(3,\)"),
        (torch.zeros(2, 3), torch.zeros(2).long(), torch.arange(3), r"ids .* got int64 \(3,\)"),
        (torch.zeros(2, 3).double(), torch.zeros(2).long(), torch.arange(2), r"got float64 \(2, 3\)"),
        (torch.zeros(2, 3, 3).byte(), torch.zeros(2).long(), torch.arange(2), r"images \(N, C, H, W\).* got uint8"),
        (torch.tensor([[0.0], [torch.nan]]), torch.zeros(2).long(), torch.arange(2), "finite"),
    ],
)
def test_a_malformed_split_is_refused_in_one_line(x, y, ids, text):
    with pytest.raises(UserError, match=text) as caught:
        Split(x, y, ids)
    assert "\n" not in str(caught.value)


def test_a_data_set_knows_shape_channels_and_statistics():
    data = make()
    assert (data.shape, data.channels) == ((3, 4, 5), 3)
    x = data.train.x.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(data.mean, x.mean(axis=(0, 2, 3)), atol=1e-12)
    np.testing.assert_allclose(data.std, x.std(axis=(0, 2, 3)), atol=1e-12)


def test_statistics_of_features_and_of_a_constant_one():
    x = np.random.default_rng(0).normal(3, 2, (500, 3)).astype(np.float32)
    x[:, 1] = 7
    y = np.arange(500) % 2
    data = from_arrays("f", (x, y), (x, y), classes="ab", box=None, provenance="-", val=100)
    kept = data.train.x.numpy().astype(np.float64)
    np.testing.assert_allclose(data.mean, kept.mean(0), rtol=1e-12)
    np.testing.assert_allclose([data.std[0], data.std[2]], kept.std(0)[[0, 2]], rtol=1e-12)
    assert data.std[1] == 1.0


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"classes": ("a",)}, "'toy', train: expected labels from 0 to 0, got 1 at input 1"),
        ({"val": split()}, "ids to differ"),
        ({"test": split(0)}, "test: expected at least 1 input, got none"),
        ({"box": (0, 0.5)}, "train: expected values from 0 to 0.5, got 0 to 1"),
        (
            {"test": Split(torch.zeros(1, 1, 4, 5), torch.zeros(1).long(), torch.tensor([99]))},
            r"test: expected inputs of shape \(3, 4, 5\)",
        ),
        (
            {"test": Split(torch.full((1, 3, 4, 5), 1.5), torch.zeros(1).long(), torch.tensor([99]))},
            "test: expected values from 0 to 1, got 1.5 to 1.5",
        ),
    ],
)
def test_a_malformed_data_set_is_refused(changes, text):
    with pytest.raises(UserError, match=text):
        make(**changes)


def test_limited_bounds_each_split():
    data = make().limited(4)
    assert [len(part) for part in data.splits.values()] == [4, 4, 4]
    assert data.name == "toy"


def test_pooled_images_are_the_means_of_squares():
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 3, 4, 6), dtype=np.uint8))
    part = Split(x, torch.arange(8) % 2, torch.arange(8))
    whole = {"train": part, "val": split(4, first=20), "test": split(4, first=30)}
    whole = {name: Split(x[: len(s)], s.y, s.ids) for name, s in whole.items()}
    data = make(**whole, augment=lambda x, _: x)
    small = data.pooled(2)
    by_hand = x.numpy().astype(np.float64).reshape(8, 3, 2, 2, 3, 2).mean((3, 5)) / 255
    assert np.allclose(small.train.x.numpy(), by_hand, rtol=0, atol=1e-6)
    assert small.shape == (3, 2, 3)
    assert small.augment is None
    for name, one in small.splits.items():
        assert torch.equal(one.ids, data.splits[name].ids)
        assert torch.equal(one.y, data.splits[name].y)
    assert torch.allclose(data.pooled(1).train.x, x / 255)


def test_what_cannot_be_pooled():
    with pytest.raises(UserError, match=r"pool needs images whose sides are multiples of 2; toy has \(3, 4, 5\)"):
        make().pooled(2)
    with pytest.raises(UserError, match="pool must be"):
        make().pooled(0)
    rows = Split(torch.rand(4, 6), torch.arange(4) % 2, torch.arange(4))
    parts = {name: Split(rows.x, rows.y, rows.ids + k * 4) for k, name in enumerate(("train", "val", "test"))}
    with pytest.raises(UserError, match="pool needs images"):
        make(**parts).pooled(2)


def test_from_arrays_splits_val_off_train_by_seed_and_never_touches_test():
    y = np.arange(200) % 4
    pairs = (images(200), y), (images(40, seed=1), y[:40])
    kinds = {"classes": "abcd", "box": (0, 1), "provenance": "-"}
    one, same, other = (from_arrays("t", *pairs, seed=seed, **kinds) for seed in (0, 0, 1))
    assert (len(one.train), len(one.val), len(one.test)) == (180, 20, 40)
    assert one.val.y.bincount().tolist() == [5, 5, 5, 5]
    assert torch.equal(one.val.ids, same.val.ids)
    assert not torch.equal(one.val.ids, other.val.ids)
    assert torch.equal(one.test.x, other.test.x)
    assert torch.equal(one.test.ids, torch.arange(200, 240))
    assert np.array_equal(one.val.x.numpy(), pairs[0][0][one.val.ids.numpy()])


def test_the_default_val_size_is_a_tenth_within_bounds():
    assert [default_val_size(n) for n in (3, 100, 1500, 60_000)] == [1, 10, 150, 5000]


def test_check_labels_names_where_and_which():
    check_labels(np.array([0, 4]), 5, "here")
    with pytest.raises(UserError, match="there: expected labels from 0 to 4, got -2 at input 1"):
        check_labels(np.array([0, -2]), 5, "there")


def test_several_labels_and_values_are_held_sampled_and_divided():
    y = torch.tensor([[0, 0], [1, 1]]).repeat(20, 1)
    y[7] = torch.tensor([0, 1])
    x = torch.zeros(40, 3)
    part = Split(x, y, torch.arange(40))
    assert {tuple(row) for row in part.stratified(5).y.tolist()} == {(0, 0), (1, 1), (0, 1)}
    rest, off = part.divide(10, seed=1)
    assert sorted([*rest.ids.tolist(), *off.ids.tolist()]) == list(range(40))
    values = Split(x, torch.linspace(0, 1, 40), torch.arange(40))
    assert len(values.stratified(7).y) == 7
    assert values.stratified(7, seed=1).ids.tolist() != values.stratified(7, seed=2).ids.tolist()


def test_names_are_one_for_each_label_or_value():
    x = np.zeros((10, 3), dtype=np.float32)
    for y, names in ((np.ones((10, 2), dtype=bool), 2), (np.ones(10), 1), (np.ones((10, 3)), 3)):
        whole = {"box": None, "provenance": "made here.", "val": 2}
        made = from_arrays("toy", (x, y), (x, y), classes=[str(k) for k in range(names)], **whole)
        assert made.test.y.dtype == (torch.int64 if y.dtype == bool else torch.float32)
        with pytest.raises(UserError, match=f"as many names as labels or values per input, {names}, got {names + 1}"):
            from_arrays("toy", (x, y), (x, y), classes=[str(k) for k in range(names + 1)], **whole)
