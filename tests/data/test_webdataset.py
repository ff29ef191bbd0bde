import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from buttress import data
from buttress.data.lazy_inputs import LazyInputs
from buttress.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 5, 4, 3), dtype=np.uint8)
LABELS = [3 * (k % 2) for k in range(30)]


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_shard(path, rows, members):
    """As the webdataset package writes them: the members of an example beside each other, under its key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for row in rows:
            for suffix, content in members(row).items():
                info = tarfile.TarInfo(f"{row:06d}.{suffix}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def usual(row):
    return {"cls": str(LABELS[row]).encode(), "png": png(PIXELS[row]), "txt": b"a caption"}


@pytest.fixture
def shards(tmp_path):
    """Two shards for training, one each for validation and the test."""
    for name, start, end in (("train-0", 0, 10), ("train-1", 10, 20), ("val-0", 20, 24), ("test-0", 24, 30)):
        write_shard(tmp_path / f"{name}.tar", range(start, end), usual)
    return tmp_path


def test_shards_are_the_splits_that_they_are_called(shards):
    found = data.load("webdataset", data_dir=shards)
    assert [len(split) for split in found.splits.values()] == [20, 4, 6]
    x = torch.cat([split.x for split in found.splits.values()])
    assert np.array_equal(x.permute(0, 2, 3, 1).numpy(), PIXELS)
    assert torch.cat([split.y for split in found.splits.values()]).tolist() == LABELS
    assert found.classes == ("0", "1", "2", "3")  # numbers are the network's own labels
    assert found.ordered


def test_folders_of_shards_and_labels_by_name_in_json(tmp_path):
    def members(row):
        label = json.dumps({"label": ["cat", "dog"][row % 2], "id": row})
        return {"json": label.encode(), "input.png": png(PIXELS[row])}

    for part, rows in (("train", range(20)), ("valid", range(20, 24)), ("test", range(24, 30))):
        write_shard(tmp_path / part / "000000.tar", rows, members)
    found = data.load("webdataset", data_dir=tmp_path, label="json:label", size=3)
    assert found.classes == ("cat", "dog")
    assert found.test.y.tolist() == [0, 1] * 3
    assert found.shape == (3, 3, 3)


def test_what_does_not_fit_is_read_from_its_place_in_the_archive(shards, monkeypatch):
    known = data.load("webdataset", data_dir=shards)
    monkeypatch.setattr("buttress.data.images.image_inputs.fits", lambda size: False)
    read = data.load("webdataset", data_dir=shards)
    for part, split in known.splits.items():
        assert isinstance(read.splits[part].x, LazyInputs)
        rows = torch.arange(len(split)).flip(0)
        for one, other in zip(split.take(rows), read.splits[part].take(rows), strict=True):
            assert one.equal(other)
    (shards / "test-0.tar").write_bytes(b"")
    with pytest.raises(UserError, match=r"test-0.tar, 000024.png: expected an image, but .*: the archive ends"):
        list(read.test)


def test_without_splits_all_is_the_test_of_a_trained_network_and_else_divided(tmp_path):
    write_shard(tmp_path / "photos-0000.tar", range(30), usual)
    assert len(data.load("webdataset", data_dir=tmp_path, test_only=True).test) == 30
    divided = data.load("webdataset", data_dir=tmp_path / "photos-0000.tar", val=5, test=6)
    assert [len(split) for split in divided.splits.values()] == [19, 5, 6]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "train.tar",
            b"no archive, but long enough to be read as one" * 20,
            "expected a tar archive that is not",
        ),
        ("train.tar.gz", b"", r"expected archives such as train-000000.tar, got train.tar.gz, which is compressed"),
        ("notes.txt", b"", "expected archives such as train-000000.tar, got none"),
    ],
)
def test_what_is_no_archive_is_told(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        data.load("webdataset", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (lambda row: {"png": png(PIXELS[row])}, r"expected a label of 000000 in 000000.cls, got none; say where"),
        (lambda row: {**usual(row), "jpg": b""}, r"expected one image of 000000, got several"),
        (lambda row: {"cls": b"1"}, r"expected images and their labels, got none"),
        (lambda row: {**usual(row), "cls": b"\xff"}, r"000000.cls: expected text, got b'\\xff'"),
    ],
)
def test_examples_that_are_none_are_named(tmp_path, members, message):
    write_shard(tmp_path / "train.tar", range(2), members)
    with pytest.raises(UserError, match=message):
        data.load("webdataset", data_dir=tmp_path)


def test_what_is_not_there_or_half_of_it_splits_is_told(shards):
    with pytest.raises(UserError, match="webdataset: expected a folder of tar archives, got none"):
        data.load("webdataset")
    with pytest.raises(UserError, match="but there is none"):
        data.load("webdataset", data_dir=shards / "absent")
    write_shard(shards / "extra-0.tar", range(2), usual)
    with pytest.raises(UserError, match=r"expected all archives to be of a split, as .* is, got extra"):
        data.load("webdataset", data_dir=shards)
