import hashlib

import pytest
import torch

from buttress import data
from buttress.data.sets import fashion_mini
from buttress.errors import UserError

NOTE = (fashion_mini.FILE.parent / "PROVENANCE.md").read_text()


def test_sizes_and_balance():
    made = data.load("fashion-mini")
    assert [len(split) for split in made.splits.values()] == [8000, 1000, 1000]
    assert made.train.y.bincount().tolist() == [800] * 10
    assert made.val.y.bincount().tolist() == [100] * 10
    assert made.test.y.bincount().tolist() == [100] * 10
    assert (made.shape, made.box, made.augment) == ((1, 28, 28), (0, 1), None)
    assert made.classes[0] == "T-shirt/top"
    assert made.classes[9] == "Ankle boot"


def test_the_statistics_are_those_of_the_whole_set():
    # Published for the 60,000: 0.2860 and 0.3530. A tenth of them stays within the error of a sample.
    made = data.load("fashion-mini")
    assert made.mean[0] == pytest.approx(0.2860, abs=0.005)
    assert made.std[0] == pytest.approx(0.3530, abs=0.005)


def test_the_arrays_are_the_recorded_ones():
    made = data.load("fashion-mini")
    x, y = torch.empty(9000, 1, 28, 28, dtype=torch.uint8), torch.empty(9000, dtype=torch.uint8)
    for split in (made.train, made.val):
        x[split.ids], y[split.ids] = split.x, split.y.byte()
    for name, array in (("x_train", x), ("y_train", y), ("x_test", made.test.x), ("y_test", made.test.y.byte())):
        digest = hashlib.sha256(array.numpy().tobytes()).hexdigest()
        assert f"| {name} | `{digest}` |" in NOTE


def test_the_note_beside_it_has_the_checksum_and_the_licence():
    assert f"`{fashion_mini.SHA256}`" in NOTE
    assert "Copyright © 2017 Zalando SE" in NOTE
    assert "The above copyright notice and this permission notice shall be included" in NOTE


def test_it_stays_small():
    assert fashion_mini.FILE.stat().st_size < 4_500_000


def test_a_damaged_or_missing_file_is_told(tmp_path, monkeypatch):
    raw = bytearray(fashion_mini.FILE.read_bytes())
    raw[1_000_000] ^= 1
    damaged = tmp_path / "fashion-mini.npz"
    damaged.write_bytes(raw)
    monkeypatch.setattr(fashion_mini, "FILE", damaged)
    with pytest.raises(
        UserError, match=f"expected sha256 {fashion_mini.SHA256}, got {hashlib.sha256(raw).hexdigest()}"
    ):
        data.load("fashion-mini")
    damaged.unlink()
    with pytest.raises(UserError, match="the embedded data set cannot be read"):
        data.load("fashion-mini")
