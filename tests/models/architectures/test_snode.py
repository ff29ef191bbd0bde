"""The standalone neural ODE: Euler steps by hand, its adjoint and sensitivity problems against autograd."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline
from torch.autograd.functional import jvp
from torch.func import functional_call, jacrev

from buttress import models
from buttress.errors import UserError
from buttress.models.architectures.snode import roughness, spline_matrix
from buttress.models.blocks.snode_problems import adjoint, direct, input_sensitivity, sobolev_matrix, weight_sensitivity


def make(dtype=torch.float64, **options):
    """A small one with weights that are large enough to bend its curves."""
    small = {"classes": 3, "image_size": 3, "time": 1.5, "resolution": 4, "activation": "tanh"}
    net = models.create("snode", seed=0, **{**small, **options}).to(dtype)
    with torch.no_grad():
        net.weight.mul_(4)
        net.bias.mul_(4)
    return net


def images(count=5, side=3, dtype=torch.float64):
    return torch.rand(count, 1, side, side, dtype=dtype, generator=torch.Generator().manual_seed(1))


def like(values, seed):
    return torch.randn(values.shape, dtype=values.dtype, generator=torch.Generator().manual_seed(seed))


def test_euler_steps_by_hand():
    net = make()
    x = images()
    state = -x.flatten(1).numpy()
    for k in range(6):
        state = state + 0.25 * np.tanh(state @ net.weight[k].detach().numpy().T + net.bias[k].detach().numpy())
    np.testing.assert_allclose(net(x).detach().numpy(), state[:, :3], rtol=0, atol=1e-13)


def test_the_published_size_and_parameter_counts():
    assert sum(p.numel() for p in models.create("snode", seed=0).parameters()) == 150 * 64 * 65 == 624_000
    net = models.create("snode", seed=0, image_size=28, pool=2)
    assert tuple(net.weight.shape) == (150, 196, 196)
    assert sum(p.numel() for p in net.parameters()) == 150 * 196 * 197 == 5_791_800
    assert net(images(2, side=28, dtype=torch.float32)).shape == (2, 10)


def test_encoding_and_pooling():
    image = torch.tensor([[[[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.5, 0.5], [0.0, 1.0, 0.5, 0.5]]]])
    options = {"image_size": 4, "pool": 2, "classes": 2, "resolution": 2}
    dark, bright = (models.create("snode", seed=0, background=value, **options) for value in (0, 1))
    assert dark.encode(image).tolist() == [[0.0, -1.0, -0.5, -0.5]]
    assert bright.encode(image).tolist() == [[-1.0, 0.0, -0.5, -0.5]]


def test_the_first_weights_are_a_spline_of_one_draw_per_whole_time():
    net = models.create("snode", seed=7, resolution=20)
    with torch.random.fork_rng([]):
        torch.manual_seed(7)
        drawn = torch.randn(4, 64, 64).numpy() / 64
        offsets = torch.randn(4, 64).numpy() / 64
    times = (np.arange(60) + 0.5) / 20
    for values, known in ((net.weight, drawn), (net.bias, offsets)):
        np.testing.assert_allclose(values.detach().numpy(), CubicSpline(np.arange(4), known)(times), rtol=0, atol=1e-6)
    many = models.create("snode", seed=7, time=40.0, resolution=1, image_size=8)
    assert float(many.weight[::1].detach().std()) == pytest.approx(1 / 64, rel=0.3)


@pytest.mark.parametrize(("time", "knots"), [(0.5, 2), (1.0, 2), (2.0, 3), (2.5, 4), (4.0, 5)])
def test_splines_reproduce_what_they_can(time, knots):
    matrix = spline_matrix(time, 10)
    assert matrix.shape == (round(time * 10), knots)
    at = torch.arange(knots, dtype=torch.float64)
    times = (torch.arange(len(matrix), dtype=torch.float64) + 0.5) / 10
    for power in range(min(knots, 4)):
        torch.testing.assert_close(matrix @ at**power, times**power, rtol=0, atol=1e-11)


def test_roughness_by_hand():
    values = torch.tensor([[1.0, 2.0], [3.0, 2.0], [3.0, -1.0]])
    assert roughness(values) == 4 + 9


@pytest.mark.parametrize("activation", ["tanh", "relu", "softplus"])
def test_the_adjoint_gradient_is_that_of_autograd(activation):
    net, x = make(activation=activation), images()
    terminal = like(net.encode(x), 3)
    start = net.encode(x).detach().requires_grad_()
    wanted = torch.autograd.grad((net.end(start) * terminal).sum(), [net.weight, net.bias, start])
    found = adjoint(net, direct(net, start), terminal)
    for mine, theirs in zip((net.h * found.weight, net.h * found.bias, found.start), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_weight_sensitivity_is_the_directional_derivative(activation):
    net, x = make(activation=activation), images()
    ways = like(net.weight, 4), like(net.bias, 5)

    class End(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net.end(self.net.encode(x))

    def end(weight, bias):
        return functional_call(End(), {"net.weight": weight, "net.bias": bias}, (x,))

    value, wanted = jvp(end, (net.weight.detach(), net.bias.detach()), ways)
    path = direct(net, net.encode(x))
    torch.testing.assert_close(path.end, value, rtol=0, atol=1e-13)
    torch.testing.assert_close(weight_sensitivity(net, path, *ways), wanted, rtol=0, atol=1e-10)


def test_the_input_sensitivity_is_the_jacobian():
    net, x = make(), images()
    starts = net.encode(x).detach()
    wanted = torch.stack([jacrev(lambda s: net.end(s[None])[0])(start) for start in starts])
    found = input_sensitivity(net, direct(net, starts))
    torch.testing.assert_close(found, wanted.detach(), rtol=0, atol=1e-12)


def test_the_sobolev_equation_and_its_identity():
    """u = cos(pi t / T) has v = u / (1 + (pi / T)^2); what is left shrinks as the square of the step."""
    errors = []
    for steps in (100, 200, 400):
        t = (torch.arange(steps, dtype=torch.float64) + 0.5) * 3 / steps
        u = torch.cos(math.pi * t / 3)
        v = sobolev_matrix(steps, 3.0) @ u
        errors.append(float((v - u / (1 + (math.pi / 3) ** 2)).abs().max()))
    assert errors[2] < 1e-5
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.1)


def test_the_sobolev_gradient_of_anything():
    steps, length = 2000, 3.0
    h = length / steps
    matrix = sobolev_matrix(steps, length)
    t = (torch.arange(steps, dtype=torch.float64) + 0.5) * h
    u = torch.exp(-t) * torch.sin(5 * t) + t**2 - 1
    v = matrix @ u
    slope, bend = v.diff() / h, (v[2:] - 2 * v[1:-1] + v[:-2]) / h**2
    assert float((v[1:-1] - bend - u[1:-1]).abs().max()) < 1e-4
    # From v' = 0 at an end it becomes h v'' one step further.
    assert float(slope[0]) == pytest.approx(float(h * (v[0] - u[0])), rel=0.02)
    assert float(slope[-1]) == pytest.approx(float(h * (u[-1] - v[-1])), rel=0.02)
    product = float(h * v @ u)
    assert product == pytest.approx(float(h * (v @ v + slope @ slope)), rel=1e-5)


@pytest.mark.parametrize(("steps", "length"), [(1, 1.0), (60, 3.0), (150, 3.0), (40, 20.0)])
def test_the_sobolev_matrix_keeps_constants_and_is_positive(steps, length):
    matrix = sobolev_matrix(steps, length)
    torch.testing.assert_close(matrix.sum(1), torch.ones(steps, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(matrix, matrix.T, rtol=0, atol=1e-13)
    assert float(torch.linalg.eigvalsh(matrix).min()) > 0


def test_the_finer_solver_is_this_network_with_half_the_step():
    net, x = make(), images()
    finer = net.attack_variants()["finer solver"]
    twice = make(resolution=8)
    with torch.no_grad():
        for mine, theirs in ((twice.weight, net.weight), (twice.bias, net.bias)):
            mine.copy_(theirs.repeat_interleave(2, dim=0))
    torch.testing.assert_close(finer(x), twice(x), rtol=0, atol=1e-13)
    assert not torch.equal(finer(x), net(x))
    assert list(net.state_dict()) == ["weight", "bias"]


def test_it_is_copied_pickled_and_run_in_bf16():
    net, x = make(torch.float32), images(dtype=torch.float32)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other(x), net(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = net(x)
    torch.testing.assert_close(rough.float(), net(x), rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"activation": "sine"}, "activation must be one of .*; got 'sine'"),
        ({"activation": ["tanh"]}, r"activation must be one of .*; got \['tanh'\]"),
        ({"background": 2}, "background must be a whole number from 0 to 1; got 2"),
        ({"time": 0.0}, "time must be a finite number above 0"),
        ({"time": 1.03}, "time 1.03 at resolution 50 makes 51.5 steps: give a whole number"),
        ({"pool": 3}, "pool must divide the image_size, 8; got 3"),
        ({"image_size": 2}, "10 classes need a state of as many numbers; images of this size give 4"),
        ({"resolution": 0}, "resolution must be a whole number of 1 or more"),
    ],
)
def test_options_that_make_no_network(options, line):
    with pytest.raises(UserError, match=line):
        models.create("snode", **options)
