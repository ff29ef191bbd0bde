import io
import pickle
import tarfile

import numpy as np
import pytest

from buttress import data
from buttress.data.sets.cifar import CIFAR10_CLASSES, CIFAR100_CLASSES, read_binary
from buttress.errors import UserError

RNG = np.random.default_rng(0)
BATCH = 10  # images a file
KINDS = {
    "cifar10": {
        "bin": ("cifar-10-batches-bin", "cifar-10-binary.tar.gz", [f"data_batch_{i}.bin" for i in range(1, 6)]),
        "py": ("cifar-10-batches-py", "cifar-10-python.tar.gz", [f"data_batch_{i}" for i in range(1, 6)]),
    },
    "cifar100": {
        "bin": ("cifar-100-binary", "cifar-100-binary.tar.gz", ["train.bin"]),
        "py": ("cifar-100-python", "cifar-100-python.tar.gz", ["train"]),
    },
}
TEST_FILE = {("cifar10", "bin"): "test_batch.bin", ("cifar10", "py"): "test_batch"}
TEST_FILE |= {("cifar100", "bin"): "test.bin", ("cifar100", "py"): "test"}


def batch(name):
    labels = RNG.integers(0, 10 if name == "cifar10" else 100, BATCH)
    return RNG.integers(0, 256, (BATCH, 3, 32, 32), dtype=np.uint8), labels


def encode(name, form, x, y):
    flat = x.reshape(len(x), -1)
    if form == "py":
        key = "labels" if name == "cifar10" else "fine_labels"
        content = {"data": flat, key: y.tolist(), "batch_label": "one", "coarse_labels": [0] * len(y)}
        return pickle.dumps(content, protocol=2)
    before = [y[:, None]] if name == "cifar10" else [np.full((len(y), 1), 99), y[:, None]]
    return np.concatenate([*before, flat], axis=1).astype(np.uint8).tobytes()


def files_of(name, form):
    _, _, train = KINDS[name][form]
    batches = {file: batch(name) for file in [*train, TEST_FILE[name, form]]}
    return batches, {file: encode(name, form, *pair) for file, pair in batches.items()}


def write_archive(path, folder, contents):
    with tarfile.open(path, "w:gz") as tar:
        for file, raw in contents.items():
            entry = tarfile.TarInfo(f"{folder}/{file}")
            entry.size = len(raw)
            tar.addfile(entry, io.BytesIO(raw))


def write(place, contents):
    place.mkdir(exist_ok=True)
    for file, raw in contents.items():
        (place / file).write_bytes(raw)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("form", ["bin", "py"])
@pytest.mark.parametrize("place", ["direct", "folder", "archive"])
def test_every_published_form_is_read(tmp_path, name, form, place):
    folder, archive, train = KINDS[name][form]
    batches, contents = files_of(name, form)
    if place == "archive":
        write_archive(tmp_path / archive, folder, contents)
    else:
        write(tmp_path if place == "direct" else tmp_path / folder, contents)
    made = data.load(name, data_dir=tmp_path, val=4, seed=3)
    x, y = (np.concatenate([batches[file][k] for file in train]) for k in (0, 1))
    assert len(made.train) == len(x) - 4
    for split in (made.train, made.val):
        assert np.array_equal(split.x.numpy(), x[split.ids.numpy()])
        assert np.array_equal(split.y.numpy(), y[split.ids.numpy()])
    assert np.array_equal(made.test.x.numpy(), batches[TEST_FILE[name, form]][0])
    assert np.array_equal(made.test.y.numpy(), batches[TEST_FILE[name, form]][1])
    assert made.augment == data.Augment(pad=4, flip=True)
    assert made.box == (0, 1)


def test_names_of_classes():
    assert (len(CIFAR10_CLASSES), len(set(CIFAR100_CLASSES))) == (10, 100)
    assert list(CIFAR100_CLASSES) == sorted(CIFAR100_CLASSES)  # as the published list is


@pytest.mark.parametrize("cut", [1, 3072])
def test_a_truncated_binary_file_is_named(tmp_path, cut):
    _, contents = files_of("cifar10", "bin")
    contents["data_batch_3.bin"] = contents["data_batch_3.bin"][:-cut]
    write(tmp_path, contents)
    expected = rf"data_batch_3.bin: expected records of 3073 bytes, got {30730 - cut} bytes"
    with pytest.raises(UserError, match=expected):
        data.load("cifar10", data_dir=tmp_path)


def test_an_empty_binary_file_is_damaged():
    with pytest.raises(UserError, match="f: expected records of 3074 bytes, got 0"):
        read_binary(b"", "f", 2)


def test_a_missing_batch_is_named(tmp_path):
    _, contents = files_of("cifar10", "bin")
    del contents["data_batch_4.bin"]
    write(tmp_path, contents)
    with pytest.raises(UserError, match=r"data_batch_4.bin: expected it beside data_batch_1.bin"):
        data.load("cifar10", data_dir=tmp_path)


def test_a_label_out_of_range_names_the_file(tmp_path):
    _, contents = files_of("cifar10", "bin")
    contents["test_batch.bin"] = b"\x0b" + contents["test_batch.bin"][1:]
    write(tmp_path, contents)
    with pytest.raises(UserError, match=r"test_batch.bin: expected labels from 0 to 9, got 11 at input 0"):
        data.load("cifar10", data_dir=tmp_path)


def test_pickled_arrays_of_another_shape_are_refused(tmp_path):
    _, contents = files_of("cifar10", "py")
    x, y = batch("cifar10")
    contents["data_batch_2"] = encode("cifar10", "py", x[:, :2], y)
    write(tmp_path, contents)
    with pytest.raises(UserError, match=r"data_batch_2: expected 'data' of shape \(N, 3072\) .* got \(10, 2048\)"):
        data.load("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"<html>not found</html>"])
def test_a_damaged_archive_is_named(tmp_path, damage):
    folder, archive, _ = KINDS["cifar10"]["bin"]
    write_archive(tmp_path / archive, folder, files_of("cifar10", "bin")[1])
    (tmp_path / archive).write_bytes(damage((tmp_path / archive).read_bytes()))
    with pytest.raises(UserError, match=r"cifar-10-binary.tar.gz: expected a .tar.gz archive") as caught:
        data.load("cifar10", data_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_an_archive_without_a_batch_is_named(tmp_path):
    folder, archive, _ = KINDS["cifar100"]["bin"]
    _, contents = files_of("cifar100", "bin")
    del contents["test.bin"]
    write_archive(tmp_path / archive, folder, contents)
    with pytest.raises(UserError, match=r"expected test.bin inside"):
        data.load("cifar100", data_dir=tmp_path)


def test_an_empty_folder_says_what_was_expected(tmp_path):
    with pytest.raises(UserError, match=r"expected the files of cifar10 \(cifar-10-batches-bin/, .*found none"):
        data.load("cifar10", data_dir=tmp_path)
