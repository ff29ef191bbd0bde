"""What is told as missed, against whether the function is linear, which numbers say."""

import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.layers.zoo.network import Wave
from torch import nn

from buttress.errors import UserError
from buttress.layers import sustainability
from buttress.layers.paths import trace
from buttress.models import FromProbabilities

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
WIDTH = 6
WEIGHT = torch.linspace(-1, 1, WIDTH * WIDTH).view(WIDTH, WIDTH)
ONES = torch.ones(WIDTH)
CUBE = torch.linspace(-0.1, 0.1, WIDTH**3).view(WIDTH, WIDTH, WIDTH)
PLACES = torch.arange(WIDTH)
CORNERS = {"align_corners": False}


def written(h, where, what):
    h = h.clone()
    h[where(h)] = what
    return h


def largest(h):
    top = h.topk(3, 1)
    return torch.zeros_like(h).scatter(1, top.indices, top.values)


FUNCTIONS = {
    # linear, or affine
    "add": lambda h: h + h.flip(1),
    "sub": lambda h: 1 - h,
    "scaled": lambda h: h * ONES / 3,
    "scaled by a number": lambda h: torch._foreach_mul([torch.ops.aten.mul.Scalar(h, 3)], 0.5)[0] / 7,
    "matmul": lambda h: h @ WEIGHT,
    "linear": lambda h: F.linear(h, WEIGHT, ONES),
    "einsum of a weight": lambda h: torch.einsum("nd,de->ne", h, WEIGHT),
    "bmm": lambda h: torch.bmm(h[:, None], WEIGHT.expand(len(h), -1, -1))[:, 0],
    "bilinear with a constant": lambda h: F.bilinear(h, ONES.expand_as(h), CUBE),
    "weights of a bag": lambda h: F.embedding_bag(PLACES.expand(len(h), -1), WEIGHT, per_sample_weights=h, mode="sum"),
    "conv": lambda h: F.conv1d(h[:, None], WEIGHT[:1, None, :3], padding=1)[:, 0],
    "shapes": lambda h: h.view(-1, 2, 3).permute(0, 2, 1).flatten(1).roll(1, 1).T.contiguous().T,
    "parts": lambda h: torch.cat([part * 2 for part in h.chunk(2, 1)], 1),
    "stacked": lambda h: torch.stack([h, 2 * h]).mean(0) + h.sum(1, keepdim=True),
    "expanded": lambda h: h[:, :1].expand(-1, WIDTH).repeat(1, 2)[:, ::2],
    "padded": lambda h: F.pad(h[:, :-1], (0, 1)),
    "pooled": lambda h: F.avg_pool1d(h[:, None], 3, 1, 1)[:, 0],
    "pooled to a size": lambda h: F.adaptive_avg_pool1d(h[:, None], WIDTH)[:, 0],
    "upsampled": lambda h: F.interpolate(h[:, None], scale_factor=2, mode="linear")[:, 0, :WIDTH],
    "double": lambda h: h.double().float(),
    "cumsum": lambda h: h.cumsum(1),
    "fft": lambda h: torch.fft.fft(h).real,
    "sigmoid of complex numbers": lambda h: torch.fft.fft(h).sigmoid().real,
    "a module on complex numbers": lambda h: nn.Tanh()(torch.fft.fft(h)).real,
    "fixed mask": lambda h: h.masked_fill(ONES.cumsum(0) > 3, 0.0),
    "fixed where": lambda h: torch.where(ONES.cumsum(0) > 3, h, -h),
    "fixed rows": lambda h: written(h, lambda _: (slice(None), 1), 0.0),
    "of its shape": lambda h: h * torch.ones_like(h) + h.new_zeros(h.shape),
    "in its form": lambda h: h @ WEIGHT.to(h).view_as(h.T @ h) + ONES.type_as(h).expand_as(h) * h,
    "lerp of a number": lambda h: torch.lerp(h, 2 * h, 0.3),
    "written part by part": lambda h: torch.zeros_like(h).index_copy(1, torch.arange(WIDTH), h),
    "rows in order": lambda h: h[torch.arange(len(h)).flip(0)],
    # not
    "abs": torch.abs,
    "sorted by index": lambda h: h[torch.arange(len(h))[:, None], h.argsort(1)],
    "sorted by take": lambda h: torch.take(h, h.flatten().argsort()).view_as(h),
    "sorted by a flat index": lambda h: h.flatten()[h.flatten().argsort()].view_as(h),
    "sorted by index_select": lambda h: h.flatten().index_select(0, h.flatten().argsort()).view_as(h),
    "the largest by index": lambda h: h[torch.arange(len(h))[:, None], h.topk(3, 1).indices].repeat(1, 2),
    "written where it says": lambda h: written(h, lambda h: (torch.arange(len(h))[:, None], h.topk(3, 1).indices), 0.0),
    "numpy": lambda h: torch.from_numpy(np.tanh(h.detach().numpy())) + h,
    "numpy by its array": lambda h: torch.as_tensor(np.asarray(h.detach()) ** 2) + h,
    "atan": torch.atan,
    "arctan": lambda h: h.arctan(),
    "sinh": torch.sinh,
    "expm1": torch.expm1,
    "log": lambda h: (h.exp() + 1).log(),
    "logaddexp": lambda h: torch.logaddexp(h, torch.zeros_like(h)),
    "erfc": torch.erfc,
    "sinc": torch.sinc,
    "special": torch.special.i0,
    "frac": torch.frac,
    "copysign": lambda h: torch.copysign(h, ONES),
    "atan2": lambda h: torch.atan2(h, ONES),
    "softmax": lambda h: F.softmax(h, 1),
    "logsumexp": lambda h: h.logsumexp(1, keepdim=True) + h,
    "maxout": lambda h: torch.stack([h, -h]).amax(0),
    "max": lambda h: torch.stack([h, -h]).max(0)[0],
    "power": lambda h: h**2,
    "power in place": lambda h: h.clone().pow_(3),
    "reciprocal": lambda h: 1 / (3 + h),
    "divided": lambda h: h / (1 + h.norm(dim=1, keepdim=True)),
    "divided by a constant of itself": lambda h: h / (1 + h.detach().abs()),
    "product": lambda h: h * h.flip(1),
    "addcmul": lambda h: torch.addcmul(h, h, h),
    "einsum of itself": lambda h: torch.einsum("nd,nd->nd", h, h),
    "matmul of itself": lambda h: (h @ h.T) @ h,
    "matmul of itself, held": lambda h: h @ (h.T @ h).detach(),
    "mm": lambda h: torch.mm(h, h.T).sum(1, keepdim=True).expand_as(h),
    "mv": lambda h: h.mv(h[0])[:, None].expand_as(h),
    "dot": lambda h: torch.stack([torch.dot(row, row) for row in h])[:, None].expand_as(h),
    "vdot": lambda h: torch.stack([torch.vdot(row, row) for row in h])[:, None].expand_as(h),
    "inner": lambda h: torch.inner(h, h).sum(1, keepdim=True).expand_as(h),
    "tensordot": lambda h: torch.tensordot(h, h, dims=([1], [1])).sum(1, keepdim=True).expand_as(h),
    "outer": lambda h: torch.stack([torch.outer(row, row)[0] for row in h]),
    "addr": lambda h: torch.stack([torch.addr(WEIGHT, row, row)[0] for row in h]),
    "kron": lambda h: torch.stack([torch.kron(row, row)[:WIDTH] for row in h]),
    "cross": lambda h: torch.linalg.cross(h.view(-1, 2, 3), h.flip(1).view(-1, 2, 3)).flatten(1),
    "bmm of itself": lambda h: torch.bmm(h.view(-1, 2, 3), h.view(-1, 3, 2)).flatten(1).repeat(1, 2)[:, :WIDTH],
    "baddbmm": lambda h: torch.baddbmm(h[:, None], h[:, None], h[:, :, None] * ONES)[:, 0],
    "addmm": lambda h: torch.addmm(h, h, h.T @ h),
    "einsum of a Gram matrix": lambda h: torch.einsum("nd,md->nm", h, h).sum(1, keepdim=True).expand_as(h),
    "several factors": lambda h: torch.linalg.multi_dot([h, h.T, h]),
    "matrix power": lambda h: torch.linalg.matrix_power(h.T @ h, 2)[: len(h)],
    "sparse": lambda h: torch.sparse.mm((h.T @ h).to_sparse(), h.T).T,
    "linear of a weight of its own": lambda h: F.linear(h, h.mean(0)[:, None] * WEIGHT),
    "conv of a kernel of its own": lambda h: F.conv1d(h[:, None], h[:1, None, :3], padding=1)[:, 0],
    "transposed conv of its own": lambda h: F.conv_transpose1d(h[:, None], h[:1, None, :3], padding=1)[:, 0],
    "bilinear": lambda h: F.bilinear(h, h, CUBE),
    "distances": lambda h: torch.cdist(h, h).sum(1, keepdim=True).expand_as(h),
    "read where it says": lambda h: F.grid_sample(
        h[None, None], h[None, ..., None].expand(-1, -1, -1, 2), align_corners=False
    )[0, 0],
    "attention by hand": lambda h: (h @ h.T).softmax(1) @ h,
    "masked by itself": lambda h: h * (h > 0),
    "masked by itself, as numbers": lambda h: h * (h > 0).float(),
    "masked_fill": lambda h: h.masked_fill(h < 0, 0.0),
    "where": lambda h: torch.where(h > 0, h, 0.1 * h),
    "lerp": lambda h: torch.lerp(h, torch.zeros_like(h), (h < 0).float()),
    "gather": lambda h: torch.gather(torch.stack([0 * h, h]), 0, (h > 0).long()[None])[0],
    "written where negative": lambda h: written(h, lambda h: h < 0, 0.0),
    "largest": largest,
    "sorted": lambda h: h.sort(1)[0],
    "straight through": lambda h: h + (h.round() - h).detach(),
    "operator of torch.ops": lambda h: torch.ops.aten.clamp_min(h, 0),
}


def is_linear(function):
    x = torch.randn(3, 4, WIDTH, generator=torch.Generator().manual_seed(0))
    zero = function(torch.zeros(4, WIDTH))
    return torch.allclose(function(x[0] + x[1]) + zero, function(x[0]) + function(x[1]), atol=1e-4)


class Net(nn.Module):
    """The function between two activations, or alone."""

    def __init__(self, function, seen=True):
        super().__init__()
        self.one, self.two = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)
        self.function, self.seen = function, seen

    def forward(self, x):
        h = self.one(x)
        if not self.seen:
            return self.two(self.function(h))
        return self.two(F.relu(self.function(torch.tanh(h))))


def missed(function):
    x = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(1))
    paths = trace(Net(function).eval(), x, "activations")
    # The second activation is a second relu where the function's code calls one, seen or not.
    assert [name.partition("#")[0] for name in paths.names] == ["tanh", "relu"]
    return paths.missed


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_not_linear_is_told(name):
    told = missed(FUNCTIONS[name])
    assert bool(told) != is_linear(FUNCTIONS[name])
    assert all(" after tanh" in line for line in told)


NO_ACTIVATIONS = {
    "layer norm": nn.LayerNorm(WIDTH),
    "batch norm": nn.BatchNorm1d(WIDTH).eval(),
    "group norm": nn.GroupNorm(2, WIDTH),
    "rms norm": nn.RMSNorm(WIDTH),
    "normalize": F.normalize,
    "max pooling": lambda h: F.max_pool1d(h[:, None], 3, 1, 1)[:, 0],
    "attention": lambda h: nn.MultiheadAttention(WIDTH, 2)(h, h, h)[0],
    "scaled attention": lambda h: F.scaled_dot_product_attention(h[None], h[None], h[None])[0],
    "LSTM": lambda h: nn.LSTM(WIDTH, WIDTH)(h)[0],
    "GRU": lambda h: nn.GRU(WIDTH, WIDTH)(h)[0],
    "RNN cell": lambda h: nn.RNNCell(WIDTH, WIDTH)(h),
    "dropout": nn.Dropout(),
    "rows in an order of theirs": lambda h: h[h.sum(1).argsort()],
    "rows by a number of theirs": lambda h: torch.zeros_like(h).index_add(0, h.sum(1).argsort(), h),
    "a row's expert": lambda h: torch.zeros_like(h).index_put((h[:, 0] > 0,), h[h[:, 0] > 0]),
}


@pytest.mark.parametrize("name", NO_ACTIVATIONS)
def test_what_torch_makes_of_several_values_is_no_activation(name):
    function = NO_ACTIVATIONS[name]
    assert missed(function.eval() if isinstance(function, nn.Module) else function) == []


class _Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


def as_script(h):
    return torch.relu(h)


def scripted(h):
    return torch.jit.script(as_script)(h)


def in_a_thread(h):
    result = []
    thread = threading.Thread(target=lambda: result.append(torch.sigmoid(h)))
    thread.start()
    thread.join()
    return result[0]


UNSEEN = {
    "relu": scripted,
    "sigmoid": in_a_thread,
    "sin": torch.vmap(torch.sin),
    "cos": torch.vmap(lambda h: F.relu(h.cos()).exp()),
    "custom function _Double": _Double.apply,
}


@pytest.mark.parametrize("name", UNSEEN)
def test_what_python_does_not_call_is_told_by_the_graph(name):
    assert f"{name} after tanh" in missed(UNSEEN[name])


def test_calls_are_counted_and_named_by_module():
    class Gate(nn.Module):
        def forward(self, x):
            return x.exp() + x.exp()

    assert missed(nn.Sequential(Gate(), nn.Flatten())) == ["function.0.exp after tanh (2 times)"]


class OwnReLU(nn.ReLU):
    def forward(self, x):
        return F.relu(x).sqrt()


def test_an_activation_module_with_a_forward_of_its_own_is_looked_into():
    paths = trace(Net(OwnReLU()), torch.ones(2, WIDTH), "activations")
    assert paths.names == ["tanh", "function.relu", "relu"]
    assert paths.missed == ["function.sqrt after function.relu"]


class Probabilities(Net):
    def forward(self, x):
        return super().forward(x).softmax(1)


def test_what_runs_behind_the_network_is_not_of_it():
    network = FromProbabilities(Probabilities(nn.Identity()))
    assert trace(network, torch.ones(2, WIDTH), "activations").missed == ["softmax after relu"]


@pytest.mark.parametrize(
    ("function", "told"), [(lambda h: h * (h > 0), "mul of the input"), (scripted, "relu of the input")]
)
def test_a_network_without_layers_is_told_what_was_missed(function, told):
    data = [(torch.ones(2, WIDTH), torch.zeros(2, dtype=torch.int64))]
    with pytest.raises(UserError, match=f"none of the network's layers; there are .*; not seen as layers: {told}"):
        sustainability(Net(function, seen=False), data, Wave())
