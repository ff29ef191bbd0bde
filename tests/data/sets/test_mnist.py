import gzip

import numpy as np
import pytest

from buttress import data
from buttress.errors import UserError

NAMES = ("{}-images-idx3-ubyte", "{}-labels-idx1-ubyte")


def idx(array):
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        part: (rng.integers(0, 256, (n, 28, 28), dtype=np.uint8), (np.arange(n) % 10).astype(np.uint8))
        for part, n in (("train", 100), ("t10k", 20))
    }


def write(folder, arrays, spelling=lambda name: name, pack=lambda raw: raw):
    folder.mkdir(parents=True, exist_ok=True)
    for part, pair in arrays.items():
        for name, array in zip(NAMES, pair, strict=True):
            (folder / spelling(name.format(part))).write_bytes(pack(idx(array)))


@pytest.mark.parametrize(
    ("name", "place"),
    [
        *(("mnist", place) for place in (".", "mnist", "MNIST/raw")),
        *(("fashion-mnist", place) for place in (".", "fashion-mnist", "FashionMNIST/raw")),
    ],
)
@pytest.mark.parametrize(
    ("spelling", "pack"),
    [
        (lambda name: name, bytes),
        (lambda name: f"{name}.gz", gzip.compress),
        (lambda name: name.replace("-idx", ".idx"), bytes),
    ],
)
def test_files_of_a_folder_are_taken_as_they_are(tmp_path, arrays, name, place, spelling, pack):
    write(tmp_path / place, arrays, spelling, pack)
    made = data.load(name, data_dir=tmp_path, val=30)
    assert (len(made.train), len(made.val), len(made.test), made.shape) == (70, 30, 20, (1, 28, 28))
    for split in (made.train, made.val):
        assert np.array_equal(split.x[:, 0].numpy(), arrays["train"][0][split.ids.numpy()])
        assert np.array_equal(split.y.numpy(), arrays["train"][1][split.ids.numpy()])
    assert np.array_equal(made.test.x[:, 0].numpy(), arrays["t10k"][0])
    assert made.box == (0, 1)
    assert made.augment is None
    assert len(made.classes) == 10
    assert "no checksum" in made.provenance


def test_the_folder_of_its_own_goes_first(tmp_path, arrays):
    write(tmp_path, arrays)
    other = {part: (255 - x, y) for part, (x, y) in arrays.items()}
    write(tmp_path / "fashion-mnist", other)
    assert np.array_equal(data.load("mnist", data_dir=tmp_path).test.x[:, 0].numpy(), arrays["t10k"][0])
    assert np.array_equal(data.load("fashion-mnist", data_dir=tmp_path).test.x[:, 0].numpy(), other["t10k"][0])


def test_nothing_is_downloaded_when_a_folder_is_given(tmp_path):
    with pytest.raises(UserError, match=r"expected the files of mnist \(train-images-idx3-ubyte or .*found none"):
        data.load("mnist", data_dir=tmp_path)
    with pytest.raises(UserError, match="expected a folder as data_dir"):
        data.load("mnist", data_dir=tmp_path / "absent")


def test_images_and_labels_must_agree(tmp_path, arrays):
    write(tmp_path, {**arrays, "train": (arrays["train"][0], arrays["train"][1][:-1])})
    with pytest.raises(UserError, match=r"train-labels-idx1-ubyte: expected 100 labels, .* got 99"):
        data.load("mnist", data_dir=tmp_path)


def test_a_label_out_of_range_names_the_file(tmp_path, arrays):
    arrays["t10k"][1][3] = 10
    write(tmp_path, arrays)
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte: expected labels from 0 to 9, got 10 at input 3"):
        data.load("mnist", data_dir=tmp_path)
