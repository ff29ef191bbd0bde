"""Corruptions and the operations on images beneath them, by known answers."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from buttress.attacks import (
    JPEG,
    Brightness,
    Contrast,
    Elastic,
    GaussianBlur,
    Pixelate,
    Rotation,
    Translation,
)
from buttress.attacks.corruptions.blur_and_compression import _LUMINANCE, compressed, quantised, table, transform
from buttress.attacks.corruptions.image_operations import blurred, coloured, contrasted, displaced, turning
from buttress.errors import UserError

ALL = (JPEG, Brightness, Contrast, Elastic, GaussianBlur, Pixelate, Rotation, Translation)
EXACT = {"rtol": 0, "atol": 1e-12}


def images(n, *shape, seed=0):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def corrupted(corruption, x, **settings):
    return corruption.craft(lambda x: torch.zeros(len(x), 3), x, torch.zeros(len(x), dtype=torch.long), **settings)


def moved(x, down, right):
    """Shifted by whole pixels, the edge going on outside."""
    n = torch.arange
    rows = (n(x.shape[2]) - down).clamp(0, x.shape[2] - 1)
    columns = (n(x.shape[3]) - right).clamp(0, x.shape[3] - 1)
    return x[:, :, rows][:, :, :, columns]


@pytest.mark.parametrize("quarter", [1, 2, 3, -1])
@pytest.mark.parametrize("side", [4, 5])
def test_a_turn_by_right_angles_is_rot90(quarter, side):
    x = images(2, 3, side, side)
    field = turning(torch.full((2,), 90.0 * quarter, dtype=torch.float64), (side, side))
    torch.testing.assert_close(displaced(x, field), torch.rot90(x, quarter, (2, 3)), **EXACT)


def test_a_shift_by_whole_pixels_is_exact_and_by_half_the_mean_of_two():
    x = images(2, 2, 5, 7).float()
    field = torch.tensor([[2.0, -1.0], [-3.0, 0.0]])[:, :, None, None]
    out = displaced(x, field)
    assert torch.equal(out[:1], moved(x[:1], down=1, right=-2))
    assert torch.equal(out[1:], moved(x[1:], down=0, right=3))
    half = displaced(x, torch.tensor([[0.5, 0.0]]).expand(2, 2)[:, :, None, None])
    torch.testing.assert_close(half[..., :-1], (x[..., :-1] + x[..., 1:]) / 2)
    assert torch.equal(displaced(x, torch.zeros(2, 2, 5, 7)), x)


def test_the_slope_of_a_shift_is_that_of_the_image():
    """On a ramp along x of slope 3 a displacement's derivative is 3, and 0 along y."""
    ramp = (3 * torch.arange(6.0, dtype=torch.float64)).expand(1, 1, 6, 6)
    field = torch.full((1, 2, 1, 1), 0.25, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(displaced(ramp, field)[..., 2, 2].sum(), field)
    torch.testing.assert_close(grad.flatten(), torch.tensor([3.0, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("sigma", [0.01, 0.5, 2.0])
def test_blur_keeps_a_constant_and_spreads_a_point_as_a_gaussian(sigma):
    flat = torch.full((1, 2, 5, 9), 0.3, dtype=torch.float64)
    torch.testing.assert_close(blurred(flat, sigma), flat, **EXACT)
    point = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    point[..., 20, 20] = 1.0
    out = blurred(point, sigma)
    torch.testing.assert_close(out.sum(), torch.tensor(1.0, dtype=torch.float64))
    row = out[0, 0, 20]
    if sigma >= 0.5:
        torch.testing.assert_close(row[22] / row[20], torch.tensor(np.exp(-2 / sigma**2)))
    assert blurred(point, 0.0) is point


def test_contrast_keeps_the_mean_and_scales_the_deviation():
    x = images(3, 3, 4, 4)
    out = contrasted(x, torch.tensor([0.5, 1.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(out.mean((1, 2, 3)), x.mean((1, 2, 3)), **EXACT)
    torch.testing.assert_close(out.std((1, 2, 3))[0], 0.5 * x.std((1, 2, 3))[0])
    torch.testing.assert_close(corrupted(Contrast(severity=2), x), contrasted(x, 0.5), **EXACT)


def test_colours_turn_round_and_grey_stays():
    x, zero, one = images(2, 3, 4, 4), torch.zeros(2).double(), torch.ones(2).double()
    torch.testing.assert_close(coloured(x, zero, one), x, **EXACT)
    torch.testing.assert_close(coloured(x, one, one), x, **EXACT)
    twice = coloured(coloured(x, one / 3, one), one / 6, one)
    torch.testing.assert_close(twice, coloured(x, one / 2, one), **EXACT)
    luminance = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    for changed in (coloured(x, one / 5, 1.7 * one), coloured(x, zero, zero)):
        grey = torch.einsum("c,nchw->nhw", luminance, changed)
        torch.testing.assert_close(grey, torch.einsum("c,nchw->nhw", luminance, x), **EXACT)
    flat = images(2, 1, 4, 4).expand(-1, 3, -1, -1)
    torch.testing.assert_close(coloured(flat, one / 3, 2 * one), flat, **EXACT)
    torch.testing.assert_close(coloured(x, zero, zero).std(1), torch.zeros(2, 4, 4).double(), rtol=0, atol=1e-6)


def test_brightness_goes_up_or_down_by_the_input():
    x = torch.full((40, 1, 2, 2), 0.5)
    change = corrupted(Brightness(severity=3), x) - x
    torch.testing.assert_close(change.abs(), torch.full_like(x, 0.15))
    assert 5 < (change[:, 0, 0, 0] > 0).sum() < 35
    wide = corrupted(Brightness(severity=3, box=(-2.0, 2.0)), x) - x
    torch.testing.assert_close(wide.abs(), torch.full_like(x, 0.6))


def test_translation_is_a_shift_of_each_by_its_draw():
    x = images(60, 2, 28, 28).float()
    for severity, far in zip((1, 2, 3, 4, 5), (1, 2, 3, 4, 4), strict=True):
        out = corrupted(Translation(severity=severity), x)
        ways = [(a, b) for a in (-far, 0, far) for b in (-far, 0, far) if a or b]
        found = [[torch.equal(out[i : i + 1], moved(x[i : i + 1], *way)) for way in ways] for i in range(len(x))]
        assert all(sum(row) == 1 for row in found)
        assert len({row.index(True) for row in found}) == 8


def test_rotation_turns_to_either_side():
    x = images(30, 1, 9, 9)
    out = corrupted(Rotation(severity=2), x)
    both = [displaced(x, turning(torch.full((30,), angle, dtype=torch.float64), (9, 9))) for angle in (10.0, -10.0)]
    near = torch.stack([(out - one).abs().amax((1, 2, 3)) < 1e-12 for one in both])
    assert (near.sum(0) == 1).all()
    assert 3 < near[0].sum() < 27


def test_elastic_displacements_have_the_length_of_their_severity():
    """On a ramp the change is the displacement itself, away from the edge."""
    ramp = torch.arange(60.0, dtype=torch.float64).expand(4, 1, 60, 60) / 60
    change = 60 * (corrupted(Elastic(severity=2), ramp) - ramp)
    size = change[..., 6:-6].square().mean().sqrt()
    assert 0.7 * 1.2 < size < 1.3 * 1.2
    assert change.diff(dim=2).abs().amax() < 1.2  # smooth
    assert not torch.equal(change[0], change[1])


def test_pixelation_is_the_mean_of_blocks_where_they_fit():
    x = images(2, 3, 8, 8)
    from dataclasses import dataclass

    @dataclass(frozen=True, kw_only=True)
    class Half(Pixelate):
        levels = (0.5,) * 5

    mean = torch.nn.functional.avg_pool2d(x, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(corrupted(Half(), x), mean, **EXACT)
    assert len(corrupted(Pixelate(severity=5), images(1, 1, 28, 28)).unique()) == 18**2


def test_the_cosine_transform_is_orthonormal_and_comes_back():
    waves = transform()
    torch.testing.assert_close(waves @ waves.T, torch.eye(8, dtype=torch.float64), **EXACT)
    torch.testing.assert_close(waves[0], torch.full((8,), 8**-0.5, dtype=torch.float64), **EXACT)
    whole = 16 * torch.eye(8, dtype=torch.float64)[3][:, None] * torch.eye(8, dtype=torch.float64)[2]
    x = (waves.T @ whole @ waves + 128).view(1, 1, 8, 8)
    torch.testing.assert_close(quantised(x, torch.ones(8, 8).double()), x, rtol=0, atol=1e-9)
    assert (quantised(x, torch.full((8, 8), 33.0).double()) - 128).abs().max() < 1e-9  # 16 / 33 rounds to 0


def test_tables_of_the_independent_jpeg_group():
    assert table(_LUMINANCE, 50).tolist() == [list(row) for row in _LUMINANCE]
    assert (table(_LUMINANCE, 100) == 1).all()
    assert table(_LUMINANCE, 75)[0].tolist() == [8, 6, 5, 8, 12, 20, 26, 31]
    assert table(_LUMINANCE, 25)[0].tolist() == [32, 22, 20, 32, 48, 80, 102, 122]


@pytest.mark.parametrize(("channels", "quality"), [(1, 58), (1, 50), (1, 40), (3, 58), (3, 40), (1, 80), (3, 65)])
def test_jpeg_is_what_a_library_makes(channels, quality):
    """libjpeg computes in integers: a level or two differ, and where a coefficient is on the edge of a step a block."""
    random = np.random.default_rng(quality)
    smooth = random.normal(size=(channels, 7, 6)).repeat(4, 1).repeat(4, 2) * 60 + 128  # 28 x 24: a padded block, too
    pixels = (smooth + random.normal(size=smooth.shape) * 10).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    picture = Image.fromarray(pixels[0] if channels == 1 else pixels.transpose(1, 2, 0))
    picture.save(file, "JPEG", quality=quality, subsampling=0)
    theirs = np.asarray(Image.open(io.BytesIO(file.getvalue()))).astype(float)
    theirs = theirs[None] if channels == 1 else theirs.transpose(2, 0, 1)
    ours = compressed(torch.from_numpy(pixels.astype(float))[None], quality)[0].numpy()
    lost, differs = np.abs(ours - pixels).mean(), np.abs(ours - theirs)
    assert lost > 3, "the case says nothing"
    assert differs.mean() < 0.1 * lost
    assert (differs <= 2).mean() > 0.9
    if quality < 60:  # no coefficient of these images is on such an edge
        assert differs.max() <= 2


def test_jpeg_keeps_what_one_coefficient_can_say():
    flat = torch.full((1, 1, 16, 16), 128 / 255)
    torch.testing.assert_close(corrupted(JPEG(), flat), flat)
    x = images(2, 1, 16, 16).float()
    errors = [(corrupted(JPEG(severity=s), x) - x).square().mean() for s in (1, 2, 3, 4, 5)]
    assert errors == sorted(errors)


@pytest.mark.parametrize("corruption", ALL)
def test_the_box_holds_and_severities_are_five(corruption):
    x = images(4, 3, 12, 10).float().round()  # black and white
    for severity in (1, 5):
        out = corrupted(corruption(severity=severity), x)
        assert out.dtype == x.dtype
        assert 0 <= out.min() <= out.max() <= 1
        torch.testing.assert_close(
            corrupted(corruption(severity=severity, box=(-2.0, 2.0)), 4 * x - 2), 4 * out - 2, rtol=0, atol=1e-5
        )
    assert len(corruption.levels) == 5
    for wrong in (0, 6, 2.5, True):
        with pytest.raises(UserError, match="severity must be a whole number from 1 to 5"):
            corruption(severity=wrong)
    with pytest.raises(UserError, match=f"{corruption.__name__} needs images"):
        corrupted(corruption(), images(2, 5))


@pytest.mark.parametrize("corruption", ALL)
def test_a_higher_severity_changes_more(corruption):
    x = blurred(images(8, 1, 28, 28), 1.5)
    x = (x - x.amin()) / (x.amax() - x.amin())
    sizes = [(corrupted(corruption(severity=s), x) - x).abs().mean() for s in (1, 2, 3, 4, 5)]
    assert sizes[0] > 0
    assert sizes[0] < sizes[2] < sizes[4]
