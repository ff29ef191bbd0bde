import numpy as np
import pytest
import torch
from PIL import Image

from buttress import data
from buttress.data.lazy_inputs import LazyInputs
from buttress.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """40 RGB images 6x5 of two classes, in splits."""
    random = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 3), ("test", 5)):
        for name in ("cat", "dog"):
            place = tmp_path / part / name
            place.mkdir(parents=True)
            for k in range(count):
                Image.fromarray(random.integers(0, 256, (6, 5, 3), dtype=np.uint8)).save(place / f"{k}.png")
    return tmp_path


@pytest.fixture
def unfitting(monkeypatch):
    """Nothing fits into memory whole."""
    monkeypatch.setattr("buttress.data.images.image_inputs.fits", lambda size: False)


@pytest.fixture
def pair(folder, monkeypatch):
    """The folder's data in memory, and read as they are needed."""
    known = data.load(f"folder:{folder}", size=4)
    with monkeypatch.context() as patch:
        patch.setattr("buttress.data.images.image_inputs.fits", lambda size: False)
        return known, data.load(f"folder:{folder}", size=4)


def test_a_folder_that_does_not_fit_is_the_same_data(pair):
    known, lazy = pair
    assert lazy.mean == known.mean
    for part, split in known.splits.items():
        read = lazy.splits[part]
        assert isinstance(read.x, LazyInputs)
        assert all(a.equal(b) for a, b in zip(split.take(torch.arange(3)), read.take(torch.arange(3)), strict=True))
        assert read.ids.equal(split.ids)
        assert read.sample.x.equal(split.x)
    (note,) = set(lazy.notes) - set(known.notes)
    assert note.startswith("of 40 images all would take 0.0 GB, more than half of the memory that is free")


def test_validation_that_is_the_test_too_is_read_from_the_same_files(folder, unfitting):
    folder.joinpath("test").rename(folder.parent / "elsewhere")
    found = data.load(f"folder:{folder}")
    assert found.val.x.source is found.test.x.source
    assert len(found.test) == 6


def test_a_file_that_vanishes_is_named(folder, unfitting):
    found = data.load(f"folder:{folder}")
    gone = folder / "test" / "dog" / "2.png"
    gone.unlink()
    with pytest.raises(UserError, match=rf"^{gone}: there was an image, and it is gone: put it back$"):
        list(found.test)
