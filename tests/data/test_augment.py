import pytest
import torch
from torch.nn import functional

from buttress.data import Augment
from buttress.data.augment import draws
from buttress.data.dataset import Dataset, Split
from buttress.random import Random
from buttress.training.batches import Batches


class Given:
    """Draws that the test chose."""

    def __init__(self, draws):
        self.draws = torch.tensor(draws)

    def uniform(self, shape):
        assert shape == (3,)
        return self.draws


def one_by_one(x, draws, pad, flip):
    """Each image on its own, by slicing."""
    out = []
    for image, (down, right, mirror) in zip(x, draws.tolist(), strict=True):
        top, left = int(down * (2 * pad + 1)), int(right * (2 * pad + 1))
        padded = functional.pad(image, (pad,) * 4)
        crop = padded[:, top : top + image.shape[1], left : left + image.shape[2]]
        out.append(torch.flip(crop, [2]) if flip and mirror < 0.5 else crop)
    return torch.stack(out)


@pytest.mark.parametrize("pad", [0, 1, 4])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_equals_cropping_and_mirroring_image_by_image(pad, flip, dtype):
    x = torch.rand(64, 3, 9, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    random = Random(3, torch.arange(64))
    draws = Random(3, torch.arange(64)).uniform((3,))
    out = Augment(pad, flip)(x, random)
    assert out.dtype == dtype
    assert torch.equal(out, one_by_one(x, draws, pad, flip))


def test_corners_of_the_crop_and_the_mirror():
    x = torch.arange(1.0, 10.0).view(1, 1, 3, 3).expand(3, 1, 3, 3)
    out = Augment(pad=1)(x, Given([[0.0, 0.0, 0.9], [0.999, 0.999, 0.9], [0.5, 0.5, 0.1]]))
    assert out[0, 0].tolist() == [[0, 0, 0], [0, 1, 2], [0, 4, 5]]
    assert out[1, 0].tolist() == [[5, 6, 0], [8, 9, 0], [0, 0, 0]]
    assert out[2, 0].tolist() == [[3, 2, 1], [6, 5, 4], [9, 8, 7]]


def test_all_places_and_both_mirrors_occur_about_equally_often():
    x = torch.zeros(4000, 1, 5, 5)
    x[:, :, 2, 1] = 1  # off the middle, so that a mirror shows
    out = Augment(pad=1)(x, Random(0, torch.arange(4000)))
    place = out.flatten(1).argmax(1)
    counts = torch.bincount(place, minlength=25).view(5, 5)[1:4]
    # Column 1 comes from offsets of -1, 0, 1 to columns 0, 1, 2; mirrored, from 3 to 2, 3, 4: column 2 twice.
    expected = torch.tensor([1.0, 1.0, 2.0, 1.0, 1.0]).expand(3, 5) * 4000 / 18
    assert counts.sum() == 4000
    assert ((counts - expected).abs() < 5 * expected.sqrt()).all()


def test_draws_follow_the_input_and_not_the_batch():
    x = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    ids = torch.arange(20)
    whole = Augment()(x, Random(0, ids))
    order = torch.randperm(20, generator=torch.Generator().manual_seed(2))
    assert torch.equal(Augment()(x[order][:7], Random(0, ids[order][:7])), whole[order][:7])


def test_an_empty_batch_stays_empty():
    assert Augment()(torch.zeros(0, 3, 8, 8), Random(0, torch.arange(0))).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("pad", [0, 2])
def test_a_map_moves_with_its_image(pad):
    """What is cut by the geometry of the same draws is cut where the image was, and put back it is in its place."""
    x = torch.rand(32, 3, 6, 5, generator=torch.Generator().manual_seed(4))
    augment, ids = Augment(pad), torch.arange(40, 72)
    padded = functional.pad(x, (pad,) * 4)
    place = augment.geometry(draws(5, 2, ids))
    assert torch.equal(place.cut(padded, (6, 5)), augment(x, draws(5, 2, ids)))
    assert torch.equal(place.put(place.cut(padded, (6, 5)), padded), padded)
    part = torch.rand(32, 3, 6, 5, generator=torch.Generator().manual_seed(6)) + 2
    changed = place.put(part, padded)
    assert torch.equal(place.cut(changed, (6, 5)), part)
    assert ((changed >= 2).sum((1, 2, 3)) == 90).all()
    assert torch.equal(torch.where(changed >= 2, padded, changed), padded)  # nothing else is touched
    assert place.mirror.any()
    assert not place.mirror.all()


def test_the_draws_are_those_of_the_batches_of_an_epoch():
    x = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(7))
    split = Split(x, torch.arange(12) % 2, torch.arange(30, 42))
    others = [Split(x[:2], torch.arange(2), torch.arange(start, start + 2)) for start in (0, 10)]
    data = Dataset("noise", split, *others, ("a", "b"), (0.0, 1.0), "made in this test.", Augment(pad=1))
    for epoch in range(2):
        for batch in Batches(data, 5, 9, torch.device("cpu")).epoch(epoch):
            expected = data.augment(x[batch.ids - 30], draws(9, epoch, batch.ids))
            assert torch.equal(batch.x, expected)
