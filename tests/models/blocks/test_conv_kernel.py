"""The convolutional tangent kernel against slow loops, wide networks and finite differences."""

import math

import pytest
import torch
import torch.nn.functional as F

from buttress.errors import UserError
from buttress.models.blocks import conv_kernel
from buttress.models.blocks.conv_kernel import conv_ntk
from buttress.models.blocks.kernel_regression import ntk


def pictures(count, *shape, seed=0):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.3


def pair(a, b, depth, weight, bias):
    """The kernel of two images by numbers alone, with every pair of pixels kept, as in the paper's recursion."""
    channels, height, width = len(a), len(a[0]), len(a[0][0])
    places = [(i, j) for i in range(height) for j in range(width)]
    steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]

    def inner(u, v):
        return {
            (p, q): sum(u[c][p[0]][p[1]] * v[c][q[0]][q[1]] for c in range(channels)) for p in places for q in places
        }

    def patches(values):
        found = {}
        for p, q in values:
            pairs = [((p[0] + i, p[1] + j), (q[0] + i, q[1] + j)) for i, j in steps]
            found[p, q] = sum(values.get(places, 0.0) for places in pairs) / 9
        return found

    def convolved(values):
        return {key: weight * value + bias for key, value in patches(values).items()}

    known = {"ab": (a, b), "aa": (a, a), "bb": (b, b)}
    covariances = {name: {k: v / channels for k, v in inner(*images).items()} for name, images in known.items()}
    tangent = None
    for _ in range(depth):
        before = {name: convolved(values) for name, values in covariances.items()}
        added = {key: 0.0 for key in before["ab"]} if tangent is None else patches(tangent)
        tangent = {key: before["ab"][key] + weight * added[key] for key in added}
        covariances = {name: {} for name in known}
        for name, (first, second) in {"ab": ("aa", "bb"), "aa": ("aa", "aa"), "bb": ("bb", "bb")}.items():
            for (p, q), value in before[name].items():
                size = math.sqrt(before[first][p, p] * before[second][q, q])
                angle = math.acos(max(-1.0, min(1.0, value / size)))
                # expectations of relu(u) relu(v), and of both being positive
                covariances[name][p, q] = size * (math.sin(angle) + (math.pi - angle) * math.cos(angle)) / (2 * math.pi)
                if name == "ab":
                    tangent[p, q] *= (math.pi - angle) / (2 * math.pi)
    covariance = sum(covariances["ab"][p, p] for p in places) / len(places)
    below = 0.0 if tangent is None else sum(tangent[p, p] for p in places) / len(places)
    return weight * (covariance + below) + bias


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
@pytest.mark.parametrize(("weight", "bias"), [(2.0, 0.01), (1.5, 0.3), (2.0, 0.0)])
def test_the_kernel_equals_its_recursion(depth, weight, bias):
    a, b = pictures(2, 2, 3, 4), pictures(3, 2, 3, 4, seed=1)
    expected = [[pair(p, q, depth, weight, bias) for q in b.tolist()] for p in a.tolist()]
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(conv_ntk(a, b, depth, weight, bias), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize(("depth", "width"), [(1, 2048), (2, 512)])
def test_the_kernel_is_that_of_wide_networks(depth, width):
    """Inner products of the gradients of one output, averaged over 8 networks.

    One network's deviate by about 1 / sqrt(width) for each layer: the mean of 8 by 0.8 % or 3.1 % at most here.
    """
    random, networks = torch.Generator().manual_seed(5), 8
    x, weight, bias = pictures(3, 2, 4, 4).float(), 2.0, 0.1
    found = torch.zeros(3, 3)
    for _ in range(networks):
        sizes = [2, *[width] * depth]
        filters = [torch.randn(sizes[k + 1], sizes[k], 3, 3, generator=random).requires_grad_() for k in range(depth)]
        offsets = [torch.randn(width, generator=random).requires_grad_() for _ in range(depth)]
        last = [torch.randn(width * 16, generator=random).requires_grad_(), torch.randn(1, generator=random)]
        last[1].requires_grad_()
        rows = []
        for image in x:
            h = image[None]
            for w, b in zip(filters, offsets, strict=True):
                h = F.relu(F.conv2d(h, w * math.sqrt(weight / (9 * h.shape[1])), b * math.sqrt(bias), padding=1))
            output = (h.flatten() * last[0]).sum() * math.sqrt(weight / h.numel()) + last[1] * math.sqrt(bias)
            slopes = torch.autograd.grad(output, [*filters, *offsets, *last])
            rows.append(torch.cat([slope.flatten() for slope in slopes]))
        rows = torch.stack(rows)
        found += rows @ rows.T / networks
    expected = conv_ntk(x, x, depth, weight, bias).float()
    tolerance = depth / math.sqrt(width * networks)
    assert float((found - expected).abs().max() / expected.max()) < tolerance
    other = conv_ntk(x, x, depth, weight, 0.0).float()
    assert float((found - other).abs().max() / other.max()) > 2 * tolerance, "the tolerance tells kernels apart"


def test_an_image_of_one_pixel_is_a_fully_connected_layer_with_a_ninth_of_the_weight():
    """Eight of nine weights of each filter see the zeros around it; the readout has all its weight."""
    a, b = pictures(3, 5, 1, 1), pictures(4, 5, 1, 1, seed=1)
    torch.testing.assert_close(conv_ntk(a, b, 0, 2.0, 0.1), ntk(a, b, 0, 2.0, 0.1), rtol=1e-12, atol=0)
    s, u, v = (2 / 9 * torch.einsum("nc,mc->nm", x.flatten(1), y.flatten(1)) / 5 for x, y in ((a, b), (a, a), (b, b)))
    size = torch.outer(u.diagonal(), v.diagonal()).sqrt()
    angle = (s / size).acos()
    order0, order1 = (math.pi - angle) / math.pi, (angle.sin() + (math.pi - angle) * angle.cos()) / math.pi
    torch.testing.assert_close(conv_ntk(a, b, 1, 2.0, 0.0), size * order1 + s * order0, rtol=1e-10, atol=0)


@pytest.mark.parametrize("at_once", [1, 1 << 17])
def test_gradients_are_those_of_finite_differences(at_once, monkeypatch):
    monkeypatch.setattr(conv_kernel, "_AT_ONCE", at_once)
    a, b = pictures(2, 2, 3, 3).requires_grad_(), pictures(3, 2, 3, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: conv_ntk(x, y, 2), (a, b))


def test_the_slope_of_the_diagonal_is_that_of_its_own_recursion():
    """For equal images without biases the kernel is (depth + 1) times what the last layer holds."""
    a = pictures(2, 1, 4, 4).requires_grad_()
    (slope,) = torch.autograd.grad(conv_ntk(a, a, 2, 2.0, 0.0).diagonal().sum(), a)
    patches = torch.full((1, 1, 3, 3), 1 / 9, dtype=torch.float64)
    power = a.square()
    for _ in range(2):
        power = F.conv2d(power, patches, padding=1)
    (expected,) = torch.autograd.grad(3 * 2 * power.mean((1, 2, 3)).sum(), a)
    torch.testing.assert_close(slope, expected, rtol=1e-6, atol=1e-8)


def test_groups_of_rows_give_the_same(monkeypatch):
    a, b = pictures(7, 3, 6, 6), pictures(5, 3, 6, 6, seed=1)
    whole = conv_ntk(a, b)
    monkeypatch.setattr(conv_kernel, "_AT_ONCE", 2 * 5 * 36)
    torch.testing.assert_close(conv_ntk(a, b), whole, rtol=0, atol=0)
    x = a.clone().requires_grad_()
    torch.testing.assert_close(conv_ntk(x, b), whole, rtol=0, atol=0)
    assert conv_ntk(a[:0], b).shape == (0, 5)


def test_it_is_symmetric_and_positive():
    x = torch.cat([pictures(8, 2, 5, 5), torch.zeros(1, 2, 5, 5), -pictures(1, 2, 5, 5)])
    for depth in (0, 1, 3):
        gram = conv_ntk(x, x, depth)
        torch.testing.assert_close(gram, gram.T, rtol=1e-12, atol=1e-14)
        assert torch.linalg.eigvalsh(gram).min() > -1e-12
    assert torch.linalg.eigvalsh(conv_ntk(x, x, 2))[0] > 1e-5, "distinct images are independent for it"


def test_where_patches_are_black_all_is_finite():
    x = torch.zeros(2, 1, 6, 6)
    x[0, 0, 0, 0] = 1.0
    x.requires_grad_()
    found = conv_ntk(x, x, 2, 2.0, 0.0)
    (slope,) = torch.autograd.grad(found.sum(), x)
    assert found.dtype == torch.float64
    assert found.isfinite().all()
    assert slope.isfinite().all()


def test_what_are_no_images_of_one_shape_is_refused():
    with pytest.raises(UserError, match=r"got \(2, 9\) and \(3, 9\)"):
        conv_ntk(torch.rand(2, 9), torch.rand(3, 9))
    with pytest.raises(UserError, match="of one shape"):
        conv_ntk(torch.rand(2, 1, 3, 3), torch.rand(3, 1, 3, 4))
