"""Changes of style, by known answers."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from buttress.attacks import Invert, Posterise, Sketch, Solarise, Texture
from buttress.attacks.corruptions.image_operations import blurred
from buttress.attacks.corruptions.stylised import ink
from buttress.errors import UserError

GRADED = (Posterise, Sketch, Solarise, Texture)
ALL = (Invert, *GRADED)
EXACT = {"rtol": 0, "atol": 1e-12}


def images(n, *shape, seed=0):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def styled(style, x, **settings):
    return style.craft(lambda x: torch.zeros(len(x), 3), x, torch.zeros(len(x), dtype=torch.long), **settings)


def test_a_negative_is_a_reflection_of_the_box():
    x = images(3, 3, 4, 5)
    torch.testing.assert_close(styled(Invert(), x), 1 - x, **EXACT)
    torch.testing.assert_close(styled(Invert(), styled(Invert(), x)), x, **EXACT)
    torch.testing.assert_close(styled(Invert(box=(-1.0, 3.0)), x), 2 - x, **EXACT)
    ends = x.flatten(1)
    middle = (ends.amin(1) + ends.amax(1))[:, None, None, None]
    torch.testing.assert_close(styled(Invert(box=None), x), middle - x, **EXACT)


@pytest.mark.parametrize(("severity", "tones"), [(1, 8), (2, 6), (3, 4), (4, 3), (5, 2)])
def test_posters_have_so_many_tones_and_no_value_moves_further_than_half_a_step(severity, tones):
    x = images(2, 3, 40, 40)
    out = styled(Posterise(severity=severity), x)
    torch.testing.assert_close(out.unique(), torch.linspace(0, 1, tones, dtype=torch.float64), **EXACT)
    assert (out - x).abs().max() <= 0.5 / (tones - 1) + 1e-12


def test_two_tones_are_a_threshold():
    x = images(2, 1, 9, 9)
    torch.testing.assert_close(styled(Posterise(severity=5), x), (x > 0.5).double(), **EXACT)


@pytest.mark.parametrize(("severity", "above"), [(2, 0.65), (3, 0.5), (4, 0.35)])
def test_solarising_is_what_a_library_does(severity, above):
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    edge = int(above * 255) + 1  # theirs inverts from this level on
    theirs = np.asarray(ImageOps.solarize(Image.fromarray(pixels[0, 0].numpy()), threshold=edge)) / 255
    torch.testing.assert_close(styled(Solarise(severity=severity), pixels / 255.0)[0, 0].double(), torch.tensor(theirs))


def test_a_step_is_drawn_as_a_line_two_pixels_wide():
    x = torch.zeros(2, 3, 8, 8, dtype=torch.float64)
    x[:, :, :, 4:] = 0.6
    x[1] = 0.6 - x[1]  # down instead of up: the same line
    out = styled(Sketch(severity=5), x)
    expected = torch.ones(2, 3, 8, 8, dtype=torch.float64)
    expected[..., 3:5] = 0
    torch.testing.assert_close(out, expected, **EXACT)
    torch.testing.assert_close(styled(Sketch(severity=2), x), 0.6 * x + 0.4 * expected, **EXACT)
    torch.testing.assert_close(styled(Sketch(severity=5), x.mT), expected.mT, **EXACT)


def test_slopes_of_a_sketch_are_sobels():
    x = images(1, 2, 6, 7)
    grey, side = x.mean(1)[0], ((-1, 1.0), (0, 2.0), (1, 1.0))

    def at(i, j):
        return float(grey[min(max(i, 0), 5), min(max(j, 0), 6)])

    found = torch.zeros(6, 7, dtype=torch.float64)
    for i, j in itertools.product(range(6), range(7)):
        right = sum(w * (at(i + k, j + 1) - at(i + k, j - 1)) for k, w in side)
        down = sum(w * (at(i + 1, j + k) - at(i - 1, j + k)) for k, w in side)
        found[i, j] = (right**2 + down**2) ** 0.5
    torch.testing.assert_close(ink(x)[0, 0], found / found.max(), rtol=1e-10, atol=1e-12)


def test_an_image_without_edges_is_paper():
    flat = torch.full((2, 3, 5, 5), 0.3)
    assert torch.equal(styled(Sketch(severity=5), flat), torch.ones_like(flat))


def test_a_texture_is_mixed_in_by_its_share_and_does_not_know_the_image():
    x, black, ids = images(4, 3, 20, 16), torch.zeros(4, 3, 20, 16, dtype=torch.float64), torch.arange(4)
    cloth = styled(Texture(severity=5), black, ids=ids) / 0.5
    assert 0 <= cloth.min() < 0.05
    assert 0.95 < cloth.max() <= 1
    for severity, share in zip((1, 2, 3, 4, 5), (0.1, 0.2, 0.3, 0.4, 0.5), strict=True):
        expected = (1 - share) * x + share * cloth
        torch.testing.assert_close(styled(Texture(severity=severity), x, ids=ids), expected, **EXACT)
    again = styled(Texture(severity=5), black[:2], ids=ids[[2, 0]]) / 0.5
    torch.testing.assert_close(again, cloth[[2, 0]], **EXACT)
    assert min(float((cloth[i] - cloth[j]).abs().mean()) for i, j in itertools.combinations(range(4), 2)) > 0.1
    assert (cloth[:, 0] - cloth[:, 1]).abs().mean((1, 2)).min() > 0.02, "a phase for each channel"


def test_a_texture_is_two_plane_waves():
    """Each plane wave w obeys w(p - d) + w(p + d) = 2 cos(d) w(p): a linear recursion of order 4 along a row."""
    cloth = styled(Texture(severity=5), torch.zeros(3, 1, 6, 64, dtype=torch.float64)) / 0.5 - 0.5
    for one in cloth[:, 0]:
        windows = one.unfold(1, 5, 1).reshape(-1, 5)
        _, sizes, kernel = torch.linalg.svd(windows, full_matrices=False)
        assert sizes[4] < 1e-8 * sizes[0]
        roots = np.roots(kernel[4].numpy())
        np.testing.assert_allclose(np.abs(roots), 1, atol=1e-5)


@pytest.mark.parametrize("style", ALL)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_box_holds_for_one_channel_and_for_three(style, channels):
    x = images(4, channels, 12, 10).float()
    x = (8 * x).round() / 8
    out = styled(style(), x)
    assert out.dtype == x.dtype
    assert out.shape == x.shape
    assert 0 <= out.min() <= out.max() <= 1
    assert (out - x).abs().mean() > 0.02
    wide = styled(style(box=(-2.0, 2.0)), 4 * x - 2)
    torch.testing.assert_close(wide, 4 * out - 2, rtol=0, atol=1e-5)
    assert styled(style(box=None), x).isfinite().all()
    with pytest.raises(UserError, match=f"{style.__name__} needs images"):
        styled(style(), images(2, 5))


@pytest.mark.parametrize("style", GRADED)
def test_a_higher_severity_changes_more(style):
    x = blurred(images(8, 1, 28, 28), 1.5)
    x = (x - x.amin()) / (x.amax() - x.amin())
    sizes = [(styled(style(severity=s), x) - x).abs().mean() for s in (1, 2, 3, 4, 5)]
    assert 0 < sizes[0] < sizes[2] < sizes[4]
    with pytest.raises(UserError, match="severity must be a whole number from 1 to 5"):
        style(severity=6)
