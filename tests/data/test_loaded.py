"""Torch data sets, loaders, iterables and columns, as a user's function returns them."""

from functools import partial

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, Subset, TensorDataset

from buttress import tasks
from buttress.data import loaded
from buttress.data.checks import as_float
from buttress.data.examples import by_index
from buttress.data.from_function import dataset_from
from buttress.data.lazy_inputs import LazyInputs
from buttress.errors import UserError

BYTES = torch.randint(0, 256, (30, 3, 4, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
X, Y = BYTES.float().div(255), torch.arange(30) % 3
ARRAYS = BYTES.numpy()


class Pictures(Dataset):
    """Images of Pillow's with numbers, as torchvision's data sets without a transform."""

    classes = ("cat", "dog", "owl")

    def __len__(self):
        return len(Y)

    def __getitem__(self, k):
        return Image.fromarray(ARRAYS[k].transpose(1, 2, 0)), int(Y[k])


class Rows(Dataset):
    """Dicts, as many of Hugging Face's pipelines have them."""

    def __len__(self):
        return len(Y)

    def __getitem__(self, k):
        return {"id": f"row {k}", "image": X[k], "label": Y[k]}


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


class Label:
    names = ("cat", "dog", "owl")


class Columns:
    """The part of a Hugging Face data set that is used."""

    column_names = ("image", "label")

    def __init__(self):
        self.features = {"image": None, "label": Label()}

    def with_format(self, kind):
        raise AssertionError("buttress has no need of it")

    def __len__(self):
        return len(Y)

    def __getitem__(self, rows):
        pictures = [Image.fromarray(picture.transpose(1, 2, 0)) for picture in ARRAYS[rows]]
        return {"image": pictures, "label": Y[rows].tolist()}


FORMS = {
    "tensors": lambda: TensorDataset(X, Y),
    "pictures": Pictures,
    "dicts": Rows,
    "a part of a data set": lambda: Subset(Pictures(), range(30)),
    "a loader": lambda: DataLoader(TensorDataset(X, Y), batch_size=7),
    "a loader of a stream": lambda: DataLoader(Stream(), batch_size=4),
    "a list of batches": lambda: list(zip(X.split(8), Y.split(8), strict=True)),
    "a generator of batches": lambda: ((x.numpy(), y.numpy()) for x, y in zip(X.split(9), Y.split(9), strict=True)),
    "columns": Columns,
}


@pytest.mark.parametrize("form", FORMS)
def test_all_of_it_is_read_in_its_order_with_the_same_numbers(form):
    data = dataset_from("mine", lambda: (FORMS[form](), FORMS[form]()), 0, 6, {})
    assert data.test.x.dtype == torch.uint8  # in a quarter of the memory
    assert torch.equal(data.test.take(torch.arange(30))[0], X)
    assert torch.equal(data.test.y, Y)
    assert (len(data.train), len(data.val)) == (24, 6)
    named = form in ("pictures", "a part of a data set", "columns")
    assert data.classes == (("cat", "dog", "owl") if named else ("0", "1", "2"))
    assert (data.box, data.provenance) == ((0, 1), "made by mine.")


@pytest.mark.parametrize(
    "returned",
    [
        lambda one: (one, one, one),
        lambda one: {"train": one, "validation": one, "test": one},
        lambda one: {"Training": one, "dev": one, "TESTING": one},
    ],
)
def test_a_val_of_its_own_is_taken(returned):
    data = dataset_from("mine", lambda: returned(TensorDataset(X, Y)), 0, None, {})
    assert [len(split) for split in data.splits.values()] == [30, 30, 30]
    assert torch.equal(torch.cat([split.ids for split in data.splits.values()]), torch.arange(90))
    with pytest.raises(UserError, match="'mine' brings its own splits, so expected no val, got 5"):
        dataset_from("mine", lambda: returned(TensorDataset(X, Y)), 0, 5, {})


def test_numbers_that_are_no_bytes_stay_as_they_are():
    x = X.clone()
    x[17, 0, 0, 0] = 0.3
    data = dataset_from("mine", lambda: ([(x[:15], Y[:15]), (x[15:], Y[15:])], [(x, Y)]), 0, 6, {})
    assert data.test.x.dtype == torch.float32
    assert torch.equal(data.test.x, x)
    assert torch.equal(torch.cat([data.train.x, data.val.x]).sort(0).values, x.sort(0).values)


def test_rows_and_values():
    rows, values = X.flatten(1).double(), torch.linspace(0, 1, 30)
    data = dataset_from("mine", lambda: (TensorDataset(rows, values),) * 2, 0, 6, {}, tasks.Regression())
    assert data.box is None
    assert torch.equal(data.test.x, rows.float())
    assert torch.equal(data.test.y, values)
    data = dataset_from("mine", lambda: (TensorDataset(rows, Y),) * 2, 0, 6, {}, tasks.Regression())
    assert data.test.y.dtype == torch.float32


class Sizes(Pictures):
    def __getitem__(self, k):
        return Image.new("RGB", (4 + k % 2, 4)), 0


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (
            lambda: TensorDataset(X, Y),
            r"expected train and test, got one TensorDataset, which would do .*: return \(train, test\)",
        ),
        (lambda: {"train": TensorDataset(X, Y)}, "expected train and test, got only 'train'"),
        (lambda: {"a": TensorDataset(X, Y)}, "expected a dict of train, val and test, got 'a'"),
        (lambda: (Sizes(), Sizes()), r"expected inputs of one shape, got \(3, 4, 4\) and \(3, 4, 5\): resize them"),
        (lambda: ([(X[:3], Y[:3]), (X[:3, :1], Y[:3])], [(X, Y)]), "train: expected inputs of one shape"),
        (lambda: (TensorDataset(X[:0], Y[:0]), TensorDataset(X, Y)), "train: expected at least 1 input, got none"),
        (lambda: (DataLoader(TensorDataset(X)), DataLoader(TensorDataset(X))), "must give pairs"),
        (lambda: (TensorDataset(X * 2 - 1, Y), TensorDataset(X, Y)), "expected values from 0 to 1, got -1 to 1"),
        (lambda: 3, "got int"),
    ],
)
def test_what_is_no_data_is_told(returned, told):
    with pytest.raises(UserError, match=told):
        dataset_from("mine", returned, 0, None, {})


def test_more_than_fits_is_told_before_the_memory_is_full(monkeypatch):
    monkeypatch.setattr("buttress.data.memory.free_memory", lambda: 4400.0)
    seen = []

    def batches():
        for k in range(100):
            seen.append(k)
            yield X[:10], Y[:10]

    with pytest.raises(UserError, match="which do not fit into memory: give fewer of them, smaller ones, or a torch"):
        loaded.load_all("mine, train", batches())
    assert len(seen) == 4  # of 600 bytes and 80 of labels each


class Counted(Pictures):
    """Counts what is read of it in this process."""

    def __init__(self):
        self.read = []

    def __getitem__(self, k):
        self.read.append(k)
        return super().__getitem__(k)


class WithTargets(Counted):
    def __init__(self, targets):
        super().__init__()
        self.targets = targets


LAZY = {
    **{form: FORMS[form] for form in ("tensors", "pictures", "dicts", "a part of a data set", "a loader", "columns")},
    "targets": lambda: WithTargets(Y.tolist()),
    "a loader that shuffles": lambda: DataLoader(TensorDataset(X, Y), batch_size=7, shuffle=True),
}


@pytest.fixture
def scarce(monkeypatch):
    """Room for a few inputs at once, not for all of them."""
    monkeypatch.setattr(loaded.memory, "room", lambda: 1000.0)


@pytest.mark.parametrize("form", LAZY)
def test_what_does_not_fit_is_read_as_it_is_needed(form, monkeypatch):
    known = dataset_from("mine", lambda: (Pictures(), Pictures()), 0, 6, {})
    with monkeypatch.context() as patch:
        patch.setattr(loaded.memory, "room", lambda: 1000.0)
        patch.setattr("buttress.data.examples.usual_workers", lambda: 0)
        patch.setattr("buttress.data.lazy_inputs.require_memory", lambda size, what: None)
        read = dataset_from("mine", lambda: (LAZY[form](), LAZY[form]()), 0, 6, {})
    assert isinstance(read.train.x, LazyInputs)
    assert "inputs of train, test would take more than half of the memory" in read.notes[0]
    for part, split in known.splits.items():
        for one, other in zip(split.take(torch.arange(6)), read.splits[part].take(torch.arange(6)), strict=True):
            assert torch.equal(one, other)


def test_a_loader_that_shuffles_is_read_in_the_order_of_its_data_set():
    part = loaded.load_all("mine, test", LAZY["a loader that shuffles"]())
    assert torch.equal(torch.from_numpy(part.y), Y)
    assert torch.equal(as_float(torch.from_numpy(part.x)), X)


@pytest.mark.parametrize("count", [10, 50])
def test_a_loader_that_gives_another_number_of_examples_is_what_it_gives(count):
    data = TensorDataset(X, Y)
    drawn = DataLoader(data, batch_size=7, sampler=RandomSampler(data, num_samples=count))
    assert by_index(drawn) is None


def test_labels_that_a_data_set_tells_spare_a_pass_and_are_held_against_its_examples(scarce, monkeypatch):
    monkeypatch.setattr("buttress.data.lazy_inputs.require_memory", lambda size, what: None)
    told = WithTargets(Y.tolist())
    part = loaded.load_all("mine, test", told)
    assert torch.equal(torch.from_numpy(part.y), Y)
    assert len(told.read) < 2 * len(Y)  # the first batch, by which its size is known, and one example
    wrong = WithTargets((Y.roll(1)).tolist())
    part = loaded.load_all("mine, test", wrong)
    with pytest.raises(UserError, match="mine, test: expected the same label for an example each time, got another"):
        part.x[torch.arange(3)]


def test_a_data_set_that_fails_later_is_named(scarce, monkeypatch):
    monkeypatch.setattr("buttress.data.lazy_inputs.require_memory", lambda size, what: None)
    fragile = WithTargets(Y.tolist())
    part = loaded.load_all("mine, test", fragile)
    monkeypatch.setattr(Pictures, "__getitem__", lambda self, k: ARRAYS[k + 1000])
    with pytest.raises(UserError, match="mine, test: an example among 0, 1, 2 cannot be read: IndexError: index 1000"):
        part.x[torch.arange(3)]


@pytest.mark.parametrize("form", FORMS)
def test_one_thing_alone_is_the_test_of_a_network_that_is_trained(form):
    data = dataset_from("mine", FORMS[form], 0, None, {}, test_only=True)
    assert [len(split) for split in data.splits.values()] == [0, 0, 30]
    assert torch.equal(data.test.take(torch.arange(30))[0], X)
    assert data.shape == (3, 4, 5)


def test_a_pair_of_arrays_is_the_test_too():
    for x, y in ((X, Y), (X.numpy(), Y.numpy())):
        data = dataset_from("mine", partial(tuple, (x, y)), 0, None, {}, test_only=True)
        assert torch.equal(data.test.y, Y)
        assert len(data.train) == 0
    data = dataset_from("mine", lambda: {"test": TensorDataset(X, Y)}, 0, None, {}, test_only=True)
    assert len(data.test) == 30
    with pytest.raises(UserError, match="expected test, got only 'train'"):
        dataset_from("mine", lambda: {"train": TensorDataset(X, Y)}, 0, None, {}, test_only=True)
