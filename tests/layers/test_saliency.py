"""Occlusion, gradients and their agreement, each by hand on networks that can be worked out."""

import pytest
import torch
import torch.nn.functional as F

from buttress.errors import UserError
from buttress.layers import saliency

CLOSE = {"rtol": 1e-9, "atol": 1e-12}


@pytest.fixture
def line(nets):
    """(model, weight): a linear network on 2x5x4 images in float64, three classes."""
    weight = torch.randn(3, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return nets.linear(weight), weight.view(3, 2, 5, 4)


@pytest.fixture
def inputs():
    x = torch.rand(6, 2, 5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x, torch.arange(6) % 3


def covered(image, top, left, side, fill):
    """One image with the pixels around (top, left) replaced, pixel by pixel."""
    out, (_, height, width) = image.clone(), image.shape
    for i in range(height):
        for j in range(width):
            if abs(i - top) <= side // 2 and abs(j - left) <= side // 2:
                near = image[:, max(0, i - side) : i + side + 1, max(0, j - side) : j + side + 1]
                out[:, i, j] = 0 if fill == "zero" else near.mean((1, 2))
    return out


@pytest.mark.parametrize("fill", ["blur", "zero"])
@pytest.mark.parametrize("side", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_occlusion_of_a_linear_network_by_hand(fill, side, batch_size, line, inputs):
    (model, weight), (x, y) = line, inputs
    found = saliency.occlusion(model, x, y, side, fill=fill, batch_size=batch_size)
    for image, label, own in zip(x, y, found, strict=True):
        before = (weight * image).sum((1, 2, 3)).softmax(0)[label]
        falls = torch.tensor(
            [
                [
                    float(before - (weight * covered(image, i, j, side, fill)).sum((1, 2, 3)).softmax(0)[label])
                    for j in range(4)
                ]
                for i in range(5)
            ],
            dtype=torch.float64,
        ).clamp(min=0)
        expected = falls / falls.max() if falls.max() > 0 else falls
        torch.testing.assert_close(own, expected, rtol=1e-6, atol=1e-9)
    assert found.amax((1, 2)).sum() >= 4


def test_windows_further_apart_speak_for_their_neighbours(line, inputs):
    (model, _), (x, y) = line, inputs
    fine = saliency.occlusion(model, x, y, 1, fill="zero")
    coarse = saliency.occlusion(model, x, y, 1, stride=3, fill="zero")
    centres = fine[:, [1, 4]][:, :, [1, 3]]
    centres = (centres / centres.amax((1, 2), keepdim=True)).nan_to_num()
    torch.testing.assert_close(coarse, centres[:, [0, 0, 0, 1, 1]][:, :, [0, 0, 0, 1]], **CLOSE)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_as_many_passes_as_windows_and_the_network_as_it_was(stride, nets):
    model = nets.awkward(36)
    x, y = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(4)), torch.arange(3)
    before, passed = nets.state(model), []
    handle = model.register_forward_hook(lambda module, args, output: passed.append((len(output), module.training)))
    saliency.occlusion(model, x, y, stride=stride, batch_size=7)
    assert sum(count for count, _ in passed) == 3 * (saliency.windows(6, 6, stride) + 1)
    assert not any(training for _, training in passed)
    passed.clear()
    saliency.deletion(model, x, y, x[:, 0], steps=4)
    assert sum(count for count, _ in passed) == 3 * 5
    handle.remove()
    nets.assert_state(model, before)


def test_where_covering_never_hurts_nothing_is_salient(nets):
    model = nets.linear(torch.tensor([[-1.0] * 9, [1.0] * 9]))
    x = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(2))
    assert saliency.occlusion(model, x, torch.zeros(2).long(), 3, fill="zero").eq(0).all()


def test_gradients_of_a_linear_network_by_hand(line, inputs):
    """d log p_y / dx = w_y - sum_c p_c w_c."""
    (model, weight), (x, y) = line, inputs
    p = torch.einsum("kcij,ncij->nk", weight, x).softmax(1)
    expected = weight[y] - torch.einsum("nk,kcij->ncij", p, weight)
    for batch_size in (2, 100):
        found = saliency.input_gradients(model, x, y, batch_size=batch_size)
        torch.testing.assert_close(found, expected, **CLOSE)
    torch.testing.assert_close(saliency.gradient_map(found), expected.abs()[:, 0] + expected.abs()[:, 1], **CLOSE)


def test_energy_inside_the_salient_part():
    sizes = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
    maps = torch.tensor([[[0.1, 0.0], [1.0, 0.09]], [[1.0, 0.0], [0.0, 0.0]]])
    found = saliency.energy_inside(sizes, maps, 0.1)
    assert found[0] == pytest.approx(4 / 10)
    assert found[1].isnan()


def test_the_deletion_curve_by_hand(nets):
    """Two pixels in two steps: p goes from sigmoid(1) over what the first one leaves to one half."""
    model = nets.linear(torch.tensor([[0.0, 0.0], [0.25, 0.75]], dtype=torch.float64))
    x, y = torch.ones(1, 1, 1, 2, dtype=torch.float64), torch.ones(1).long()
    sigmoid = torch.tensor([1.0, 0.25, 0.75, 0.0], dtype=torch.float64).sigmoid()
    for ranking, left in (([[0.0, 1.0]], 1), ([[1.0, 0.0]], 2), ([[1.0, 1.0]], 2)):
        found = saliency.deletion(model, x, y, torch.tensor([ranking]), steps=2, fill="zero")
        expected = (sigmoid[0] + 2 * sigmoid[left] + sigmoid[3]) / 4
        torch.testing.assert_close(found, expected[None], **CLOSE)


def test_what_has_no_places_is_refused(nets):
    model, x, y = nets.linear(torch.ones(2, 9)), torch.ones(1, 1, 3, 3), torch.zeros(1).long()
    with pytest.raises(UserError, match="saliency is of images"):
        saliency.occlusion(model, x.flatten(1), y)
    with pytest.raises(UserError, match="window must be an odd number of pixels; got 2"):
        saliency.occlusion(model, x, y, 2)
    with pytest.raises(UserError, match="stride must be a whole number of 1 or more; got 0"):
        saliency.occlusion(model, x, y, stride=0)
    with pytest.raises(UserError, match="fill must be one of blur, zero"):
        saliency.deletion(model, x, y, x[:, 0], fill="noise")
    with pytest.raises(UserError, match="1 step or more"):
        saliency.deletion(model, x, y, x[:, 0], steps=0)


def test_default_windows():
    assert [saliency.default_window(side, side) for side in (6, 8, 28, 32)] == [3, 3, 5, 5]


def test_the_blur_keeps_what_is_flat():
    x = torch.full((1, 1, 6, 6), 0.3)
    torch.testing.assert_close(saliency.filler(x, 3), x)
    assert F.avg_pool2d(x, 7, 1, 3).min() < 0.3  # what counting the padding would do
