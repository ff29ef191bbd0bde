import numpy as np
import pytest
from scipy.io import savemat

from buttress import data
from buttress.errors import UserError

RNG = np.random.default_rng(0)


def write(path, n, **changes):
    x = RNG.integers(0, 256, (32, 32, 3, n), dtype=np.uint8)
    y = (np.arange(n) % 10 + 1).astype(np.uint8)[:, None]
    path.parent.mkdir(exist_ok=True)
    savemat(path, {"X": x, "y": y, **changes}, do_compression=True)
    return x, y.ravel()


@pytest.mark.parametrize("place", [".", "svhn", "SVHN"])
def test_mat_files_are_read_and_ten_means_zero(tmp_path, place):
    x, y = write(tmp_path / place / "train_32x32.mat", 50)
    x_test, _ = write(tmp_path / place / "test_32x32.mat", 20)
    made = data.load("svhn", data_dir=tmp_path, val=10)
    assert (len(made.train), len(made.val), len(made.test), made.shape) == (40, 10, 20, (3, 32, 32))
    for row in range(40):
        source = int(made.train.ids[row])
        assert np.array_equal(made.train.x[row].numpy(), x[:, :, :, source].transpose(2, 0, 1))
        assert int(made.train.y[row]) == y[source] % 10
    assert np.array_equal(made.test.x[7, 1].numpy(), x_test[:, :, 1, 7])
    assert made.augment == data.Augment(pad=4, flip=False)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"y": np.full((5, 1), 12)}, "expected labels from 0 to 9, got 12 at input 0"),
        ({"y": np.ones((4, 1))}, r"uint8 X \(H, W, 3, N\) and N labels, got uint8 \(32, 32, 3, 5\) and 4"),
        ({"X": np.zeros((5, 32, 32, 3))}, "got float64"),
    ],
)
def test_other_content_is_refused(tmp_path, changes, text):
    write(tmp_path / "train_32x32.mat", 5, **changes)
    write(tmp_path / "test_32x32.mat", 5)
    with pytest.raises(UserError, match=text):
        data.load("svhn", data_dir=tmp_path)


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / "train_32x32.mat"
    write(path, 20)
    write(tmp_path / "test_32x32.mat", 5)
    whole = path.read_bytes()
    for raw in (whole[: len(whole) // 2], whole[:200], b"", b"<html>not found</html>" * 20):
        path.write_bytes(raw)
        with pytest.raises(UserError, match=r"train_32x32.mat: expected") as caught:
            data.load("svhn", data_dir=tmp_path)
        assert "\n" not in str(caught.value)
    savemat(path, {"other": np.zeros(3)})
    with pytest.raises(UserError, match="expected the variables X and y"):
        data.load("svhn", data_dir=tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"expected the files of svhn \(train_32x32.mat\), found none"):
        data.load("svhn", data_dir=tmp_path)
