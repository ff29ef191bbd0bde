import io
import sys
import tarfile

import numpy as np
import pytest
import torch
from scipy.io import savemat

from buttress import data
from buttress.data.sets import cifar, mnist, stl10, svhn
from buttress.errors import UserError

SEED = 0


def idx(shape):
    head = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
    return head + np.random.default_rng(SEED).integers(0, 10, shape, dtype=np.uint8).tobytes()


def cifar_archive(files, record):
    return archive({name: bytes(record * 10) for name in files})


def archive(contents):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, raw in contents.items():
            entry = tarfile.TarInfo(f"folder/{name}")
            entry.size = len(raw)
            tar.addfile(entry, io.BytesIO(raw))
    return out.getvalue()


def stl_archive():
    """Twenty images and labels from 1 to 10, for training and for the test."""
    contents = {}
    for part in ("train", "test"):
        contents |= {f"{part}_X.bin": bytes(20 * 3 * 96 * 96), f"{part}_y.bin": bytes(range(1, 11)) * 2}
    return archive(contents)


def mat():
    out = io.BytesIO()
    savemat(
        out,
        {
            "X": np.random.default_rng(SEED).integers(0, 256, (32, 32, 3, 20), dtype=np.uint8),
            "y": np.arange(1, 21)[:, None] % 10 + 1,
        },
    )
    return out.getvalue()


def published(url):
    """A small file in the format of the one at ``url``."""
    name = url.rsplit("/", 1)[-1]
    batches = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    return {
        "train-images-idx3-ubyte.gz": lambda: idx((30, 28, 28)),
        "train-labels-idx1-ubyte.gz": lambda: idx((30,)),
        "t10k-images-idx3-ubyte.gz": lambda: idx((20, 28, 28)),
        "t10k-labels-idx1-ubyte.gz": lambda: idx((20,)),
        "cifar-10-binary.tar.gz": lambda: cifar_archive(batches, 3073),
        "cifar-100-binary.tar.gz": lambda: cifar_archive(["train.bin", "test.bin"], 3074),
        "stl10_binary.tar.gz": stl_archive,
        "train_32x32.mat": mat,
        "test_32x32.mat": mat,
    }[name]()


@pytest.fixture
def fetched(tmp_path, monkeypatch):
    """Downloads answered from memory; yields the (url, md5, folder) asked for."""
    asked = []

    def fetch(url, md5, folder):
        asked.append((url, md5, folder))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / url.rsplit("/", 1)[-1]
        path.write_bytes(published(url))
        return path

    monkeypatch.setenv("BUTTRESS_DATA", str(tmp_path / "cache"))
    for module in (mnist, cifar, stl10, svhn):
        monkeypatch.setattr(module, "fetch", fetch)
    return asked


DOWNLOADED = {"mnist": 4, "fashion-mnist": 4, "cifar10": 1, "cifar100": 1, "stl10": 1, "svhn": 2}


@pytest.mark.parametrize("name", [name for name in data.names() if name not in ("folder", "webdataset")])
def test_every_registered_data_set_keeps_the_contract(name, fetched, tmp_path):
    made = data.load(name)
    assert made.name == name
    for split in made.splits.values():
        x, y = next(iter(split))
        assert x.dtype == torch.float32
        assert x.shape[1:] == made.shape
        if made.box is not None:
            assert split.x.dtype == torch.uint8
            assert made.box[0] <= x.min()
            assert x.max() <= made.box[1]
        assert y.dtype == torch.int64
    ids = torch.cat([split.ids for split in made.splits.values()])
    assert len(set(ids.tolist())) == len(ids)
    assert len(made.mean) == len(made.std) == made.channels
    assert made.provenance.endswith(".")
    again = data.load(name)
    assert torch.equal(again.val.ids, made.val.ids)
    assert len(fetched) == 2 * DOWNLOADED.get(name, 0)
    for url, md5, folder in fetched:
        assert url.startswith("http")
        assert len(bytes.fromhex(md5)) == 16
        assert folder == tmp_path / "cache" / name
    if name in DOWNLOADED:
        assert "md5 verified" in made.provenance


def test_names_are_the_registered_ones():
    assert {"moons", "digits", "fashion-mini", "folder", *DOWNLOADED} <= set(data.names())


def test_limit_holds_for_each_split_and_keeps_proportions():
    made = data.load("fashion-mini", limit=50)
    assert [split.y.bincount().tolist() for split in made.splits.values()] == [[5] * 10] * 3
    with pytest.raises(UserError, match="limit must be a whole number of 1 or more; got 0"):
        data.load("fashion-mini", limit=0)


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("fashion-mnits", {}, "no dataset 'fashion-mnits'; did you mean 'fashion-mnist'"),
        ("moons", {"nois": 1}, "data set 'moons' takes no 'nois'; did you mean 'noise'"),
        ("moons", {"data_dir": "."}, "data set 'moons' takes no 'data_dir'"),
        ("digits", {"val": 1500}, "expected to split off 1 to 1499 of 1500 inputs, got 1500"),
    ],
)
def test_names_and_options_that_are_not_known_are_refused(name, options, text):
    with pytest.raises(UserError, match=text):
        data.load(name, **options)


FILE = """
import numpy as np
from buttress import data

def arrays(n=40, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, 3)), np.arange(n) % 4), (rng.normal(size=(8, 3)), np.arange(8) % 4)

def images():
    x = np.zeros((20, 3, 4, 4), dtype=np.uint8)
    return (x, np.arange(20) % 2), (x[:6], np.arange(6) % 2)

def bright():
    x = np.full((20, 3, 4, 4), 2.0)
    return (x, np.arange(20) % 2), (x[:6], np.arange(6) % 2)

def whole():
    return data.load("moons", samples=10, val=4, test=6)

def wrong():
    return 3

def cubes():
    x = np.zeros((20, 3))
    return (x, np.zeros((20, 2, 1))), (x, np.zeros((20, 2, 1)))

def empty():
    return (np.zeros((9, 2)), np.arange(9)), (np.zeros((0, 2)), np.arange(0))

NUMBER = 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    before = set(sys.modules)
    yield path
    for module in set(sys.modules) - before:
        if module.startswith("buttress_user_"):
            del sys.modules[module]


def test_a_function_of_the_users_gives_arrays(file):
    made = data.load(f"{file}:arrays", n=60, seed=5, val=12)
    x = np.random.default_rng(5).normal(size=(60, 3)).astype(np.float32)
    assert (len(made.train), len(made.val), len(made.test)) == (48, 12, 8)
    assert np.array_equal(made.train.x.numpy(), x[made.train.ids.numpy()])
    assert made.classes == ("0", "1", "2", "3")
    assert made.box is None
    assert data.load(f"{file}:images").box == (0, 1)


def test_a_function_of_the_users_gives_a_data_set(file):
    assert [len(split) for split in data.load(f"{file}:whole").splits.values()] == [10, 4, 6]
    with pytest.raises(UserError, match="brings its own val split, so expected no val, got 3"):
        data.load(f"{file}:whole", val=3)


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("wrong", "expected a Dataset, .* arrays, got int"),
        ("cubes", r"one integer label for each input, .* got x \(20, 3\) and y float64 \(20, 2, 1\) for train"),
        ("empty", "got none for test"),
        ("bright", "expected values from 0 to 1, got 2 to 2"),
        ("NUMBER", "expected a function that returns a Dataset, got int"),
        ("image", "has no 'image'; did you mean 'images'"),
    ],
)
def test_what_a_function_of_the_users_gets_wrong_is_told(file, what, text):
    with pytest.raises(UserError, match=text) as caught:
        data.load(f"{file}:{what}")
    assert "\n" not in str(caught.value)
