import io
import tarfile

import numpy as np
import pytest

from buttress import data
from buttress.errors import UserError

RNG = np.random.default_rng(0)


def write(folder, part, n):
    """Images (n, 96 rows, 96 columns, 3) in the published layout: channel by channel, each column by column."""
    x = RNG.integers(0, 256, (n, 96, 96, 3), dtype=np.uint8)
    y = (np.arange(n) % 10 + 1).astype(np.uint8)
    folder.mkdir(exist_ok=True)
    x.transpose(0, 3, 2, 1).tofile(folder / f"{part}_X.bin")
    y.tofile(folder / f"{part}_y.bin")
    return x, y


def both(folder):
    return write(folder, "train", 20), write(folder, "test", 10)


def check(made, train, test):
    assert (len(made.train), len(made.val), len(made.test), made.shape) == (10, 10, 10, (3, 96, 96))
    assert made.classes[7] == "monkey"
    for row in range(10):
        source = int(made.train.ids[row])
        assert np.array_equal(made.train.x[row].numpy(), train[0][source].transpose(2, 0, 1))
        assert int(made.train.y[row]) == train[1][source] - 1
    assert np.array_equal(made.test.x[3, 1].numpy(), test[0][3, :, :, 1])


@pytest.mark.parametrize("place", [".", "stl10_binary"])
def test_unpacked_files_are_read(tmp_path, place):
    train, test = both(tmp_path / place)
    check(data.load("stl10", data_dir=tmp_path, val=10), train, test)


def test_the_archive_is_read_as_it_is(tmp_path):
    train, test = both(tmp_path / "made")
    with tarfile.open(tmp_path / "stl10_binary.tar.gz", "w:gz", compresslevel=1) as tar:
        for file in sorted((tmp_path / "made").iterdir()):
            entry = tarfile.TarInfo(f"stl10_binary/{file.name}")
            entry.size = file.stat().st_size
            tar.addfile(entry, io.BytesIO(file.read_bytes()))
    check(data.load("stl10", data_dir=tmp_path, val=10), train, test)


def test_damaged_files_are_named(tmp_path):
    both(tmp_path)
    images = (tmp_path / "test_X.bin").read_bytes()
    (tmp_path / "test_X.bin").write_bytes(images[:-1])
    with pytest.raises(UserError, match="test: expected 27648 bytes for each of 10 labels, got 276479"):
        data.load("stl10", data_dir=tmp_path)
    (tmp_path / "test_X.bin").write_bytes(images)
    (tmp_path / "test_y.bin").write_bytes(bytes(range(10)))
    with pytest.raises(UserError, match="expected labels from 0 to 9, got -1 at input 0"):
        data.load("stl10", data_dir=tmp_path)
    (tmp_path / "test_y.bin").unlink()
    with pytest.raises(UserError, match=r"expected it beside train_X\.bin"):
        data.load("stl10", data_dir=tmp_path)


def test_a_folder_without_the_files(tmp_path):
    with pytest.raises(UserError, match=r"files of stl10 \(stl10_binary/, stl10_binary.tar.gz\), found none"):
        data.load("stl10", data_dir=tmp_path)
