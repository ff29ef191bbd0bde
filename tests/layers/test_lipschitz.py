"""Singular values of Jacobians against decompositions of the whole matrix, and the blocks of networks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from buttress import models
from buttress.errors import UserError
from buttress.layers.block_calls import block_calls
from buttress.layers.blocks import block_names, is_chain, residual_branches
from buttress.layers.capture import layer_names
from buttress.layers.lipschitz import Jacobian, exact_singular_value, largest_eigenvalue, stretch, upper_bound
from buttress.random import Random


def random(n=4):
    return Random(0, torch.arange(n))


def matrices(n, rows, columns, seed=0):
    return torch.randn(n, rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def points(n=4, *shape, seed=0):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("rows", "columns"), [(7, 7), (5, 12), (12, 5), (1, 6), (40, 40)])
def test_a_linear_map_has_the_norms_of_its_matrix(rows, columns):
    matrix = matrices(1, rows, columns)[0]
    found = stretch(lambda z: z @ matrix.T, points(4, columns).double(), random())
    _, values, right = torch.linalg.svd(matrix)
    torch.testing.assert_close(found.sigma, values[0].expand(4), rtol=1e-3, atol=0)
    assert ((found.direction @ right[0]).abs() > 0.99).all()
    assert (found.residual is None) == (found.log_norm is None) == (rows != columns)
    if found.residual is not None:
        shifted = torch.linalg.matrix_norm(matrix + torch.eye(rows), 2)
        torch.testing.assert_close(found.residual, shifted.expand(4), rtol=1e-3, atol=0)
        top = torch.linalg.eigvalsh((matrix + matrix.T) / 2)[-1]
        torch.testing.assert_close(found.log_norm, top.expand(4), rtol=1e-3, atol=0)
        assert (found.log_norm <= found.sigma * 1.001).all()


def test_a_symmetric_map():
    """J of a gradient is symmetric: where no eigenvalue is negative, both norms are the largest one."""
    factor = matrices(1, 9, 9)[0]
    positive, z = factor @ factor.T, points(4, 9).double()
    found = stretch(lambda z: z @ positive, z, random())
    torch.testing.assert_close(found.log_norm, found.sigma, rtol=2e-3, atol=0)
    torch.testing.assert_close(found.residual, 1 + found.sigma, rtol=2e-3, atol=0)
    negative = stretch(lambda z: -(z @ (positive + torch.eye(9))), z, random(), iterations=9)
    least = torch.linalg.eigvalsh(positive)[0] + 1
    torch.testing.assert_close(negative.log_norm, (-least).expand(4), rtol=1e-3, atol=0)


def test_each_row_has_an_operator_of_its_own():
    """Also where one's space is exhausted long before another's: a multiple of the identity, and a projection."""
    a = matrices(3, 6, 6)
    a = a + a.mT
    a[1], a[2] = -2 * torch.eye(6), torch.diag(torch.tensor([1.0, 1, 0, 0, 0, 0])) - 3 * torch.eye(6)
    found = largest_eigenvalue(
        lambda v: torch.einsum("nij,nj->ni", a, v), matrices(1, 3, 6, 1)[0], iterations=30, tolerance=1e-8
    )
    torch.testing.assert_close(found.value, torch.linalg.eigvalsh(a)[:, -1])
    assert found.converged.all()
    torch.testing.assert_close(torch.einsum("nij,nj->ni", a, found.vector), found.value[:, None] * found.vector)


@pytest.mark.parametrize("name", ["vit", "covit"])
def test_small_networks_against_the_full_decomposition(name):
    small = {"image_size": 8, "channels": 1, "width": 6, "depth": 1, "heads": 2}
    model = models.create(name, seed=0, **small).eval()
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for block, one in block_calls(model, x, block_names(model, x)).items():
        found = stretch(one.function, one.z, random(2), residual=False)
        matrix = Jacobian(one.function, one.z).matrix()
        theirs = torch.func.vmap(torch.func.jacrev(lambda z, f=one.function: f(z[None])[0]))(one.z)
        torch.testing.assert_close(matrix, theirs.reshape(matrix.shape), rtol=1e-4, atol=1e-5)
        exact = exact_singular_value(matrix)
        torch.testing.assert_close(found.sigma, exact, rtol=1e-3, atol=0, msg=block)
        assert (upper_bound(matrix) >= exact).all()


def test_the_upper_bound_by_hand():
    matrix = torch.tensor([[[1.0, -2.0], [3.0, 4.0]]])
    assert float(upper_bound(matrix)) == pytest.approx((6 * 7) ** 0.5)  # columns 4 and 6, rows 3 and 7


def test_maps_that_have_little_to_derive():
    z = points(4, 5)
    for flat in (torch.zeros_like, lambda z: z.detach() * 2, lambda z: z * 0):
        found = stretch(flat, z, random())
        assert found.sigma.tolist() == [0.0] * 4
        torch.testing.assert_close(found.residual, torch.ones(4, dtype=torch.float64))
    same = stretch(lambda z: z, z, random())
    torch.testing.assert_close(same.sigma, torch.ones(4, dtype=torch.float64))
    inplace = stretch(lambda z: z.relu_(), z.abs() + 1, random())
    torch.testing.assert_close(inplace.sigma, torch.ones(4, dtype=torch.float64))


def test_fused_attention_is_taken_apart():
    """torch's fused kernel on a CPU has no second derivative: written out, the same map has the same figures."""

    def fused(z):
        return nn.functional.scaled_dot_product_attention(z, z, z)

    def plain(z):
        return (z @ z.mT / 2).softmax(-1) @ z

    z = points(3, 6, 4)
    one, other = (stretch(function, z, random(3)) for function in (fused, plain))
    torch.testing.assert_close(one.sigma, other.sigma, rtol=1e-4, atol=0)


def test_an_input_is_measured_alone_as_in_a_batch():
    z, layer = points(4, 6), nn.Sequential(nn.Linear(6, 6), nn.Tanh())
    whole = stretch(layer, z, random())
    alone = stretch(layer, z[2:3], Random(0, torch.tensor([2])))
    torch.testing.assert_close(whole.sigma[2:3], alone.sigma, rtol=1e-5, atol=0)


def test_the_blocks_of_networks():
    small = {"image_size": 8, "channels": 1, "width": 8, "depth": 2, "heads": 2}
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    vit = models.create("vit", seed=0, **small).eval()
    assert block_names(vit, x) == ["embedding", "blocks.0", "blocks.1", "head"]
    resnet = models.create("resnet18", seed=0, width=4, channels=1).eval()
    names = block_names(resnet, x)
    assert [name for name in names if "layer" in name] == [f"layer{k}.{i}" for k in (1, 2, 3, 4) for i in (0, 1)]
    assert (names[0], names[-1]) == ("conv1", "linear")
    assert is_chain(block_calls(resnet, x, names))
    assert not is_chain(block_calls(resnet, x, ["conv1", "layer1.1"]))
    assert block_names(nn.Linear(3, 2), torch.rand(2, 3)) == [""]
    snode = models.create("snode", seed=0, image_size=8, channels=1).eval()
    assert block_names(snode, x) == [""]  # its children, a pooling and an activation, hold none of its weights
    assert block_names(vit, x, "blocks.*.mlp") == ["blocks.0.mlp", "blocks.1.mlp"]


class Multistep(nn.Module):
    """z' = a z - b (what was before z), which may be handed on beside it."""

    def __init__(self, both):
        super().__init__()
        self.a, self.b, self.both = nn.Linear(3, 3), nn.Linear(3, 3), both

    def forward(self, z, before=None):
        new = self.a(z) if before is None else self.a(z) - self.b(before)
        return (new, z) if self.both else new


@pytest.mark.parametrize(
    ("states", "both", "times", "alone"),
    [(False, False, 1, True), (True, False, 1, False), (False, True, 1, False), (False, False, 2, True)],
)
def test_a_chain_has_nothing_beside_it(states, both, times, alone):
    """Another state that goes in, or comes out: the first argument is not all that counts. Second calls are links."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([Multistep(both), Multistep(both)])

        def forward(self, z):
            for block in list(self.blocks) * times:
                out = block(z, -z) if states else block(z)
                z = out[0] if both else out
            return z

    net, x = Net(), torch.rand(2, 3)
    names = block_names(net, x)
    assert names == [f"blocks.{k}{run}" for run in ("", "#1")[:times] for k in (0, 1)]
    assert is_chain(block_calls(net, x, names)) is alone


class Calls(nn.Module):
    """One block in a place that only training runs, in another one, and in a loop; beside it one without parts."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
        self.other = nn.Linear(3, 3)

    def forward(self, z):
        if self.training:
            self.said = self.block(-z)
        z = self.other(self.block(3 * z))
        for _ in range(2):
            z = self.block(z)
        return z


@pytest.mark.parametrize(
    ("blocks", "names"),
    [
        (None, ["block#1", "other", "block#2", "block#2.1"]),
        ("block", ["block#1", "block#2", "block#2.1"]),
        (["block#2*", "other"], ["other", "block#2", "block#2.1"]),
        ("block#2.1", ["block#2.1"]),
    ],
)
def test_every_call_of_a_block_has_the_name_of_its_layer(blocks, names):
    net, x = Calls().eval(), points(2, 3)
    found = block_names(net, x, blocks)
    assert found == names
    assert layer_names(net, x, found) == found
    with torch.no_grad():
        z = net.other(net.block(3 * x))
    for name, expected in {"block#1": 3 * x, "block#2": z, "block#2.1": net.block(z).detach()}.items():
        if name in found:
            torch.testing.assert_close(block_calls(net, x, found)[name].z, expected)


def test_a_network_that_calls_itself_is_one_block():
    class Twice(nn.Linear):
        def forward(self, z, again=True):
            return super().forward(self(z.flip(1), False) if again else z)

    net, x = Twice(3, 3), points(2, 3)
    call = block_calls(net, x, block_names(net, x))[""]
    expected = net.weight @ net.weight.flip(1)
    torch.testing.assert_close(Jacobian(call.function, call.z).matrix(), expected.detach().expand(2, 3, 3))


@settings(max_examples=25, deadline=None)
@given(exponent=st.integers(-37, 36), rows=st.integers(2, 7), columns=st.integers(2, 7), seed=st.integers(0, 9))
def test_a_function_times_k_is_stretched_k_times_as_much(exponent, rows, columns, seed):
    """Whatever k that float32 holds, also where its square is no float32 number."""
    k, matrix = 10.0**exponent, matrices(1, rows, columns, seed)[0].float()
    norm = torch.linalg.matrix_norm(matrix.double(), 2)
    found = stretch(lambda z: (z @ matrix.T) * k, points(2, columns), random(2), residual=rows == columns)
    torch.testing.assert_close(found.sigma / k, norm.expand(2), rtol=2e-3, atol=0)
    if found.residual is not None:
        whole = matrix.double() * k
        shifted = torch.linalg.matrix_norm(whole + torch.eye(rows), 2)
        torch.testing.assert_close(found.residual, shifted.expand(2), rtol=2e-3, atol=0)
        top = torch.linalg.eigvalsh((matrix + matrix.T).double() / 2)[-1]
        torch.testing.assert_close(found.log_norm / k, top.expand(2), rtol=2e-3, atol=1e-6 * float(norm))
    exact = exact_singular_value(Jacobian(lambda z: (z @ matrix.T) * k, points(1, columns)).matrix())
    torch.testing.assert_close(exact / k, norm[None], rtol=1e-5, atol=0)


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e20])
def test_branches_add_up_whatever_their_size(scale):
    """What does not add up is not taken for rounding where all numbers are small."""

    class Scaled(nn.Module):
        def __init__(self, wrong):
            super().__init__()
            self.linear, self.wrong = nn.Linear(3, 3, bias=False), wrong

        def branches(self):
            return {"linear": self.linear}

        def forward(self, z):
            return z + self.linear(z) * self.wrong

    z = points(2, 3) * scale
    for wrong, names in ((1.0, ["linear"]), (1.5, [])):
        block = Scaled(wrong)
        assert list(residual_branches(block_calls(block, z, [""])[""])) == names


def test_blocks_of_several_steps_are_no_chain():
    model, x = models.create("zerosnet", seed=0, channels=1, width=4).eval(), torch.rand(2, 1, 8, 8)
    assert not is_chain(block_calls(model, x, ["blocks.1", "blocks.2"]))


def test_branches_add_up_to_their_block():
    small = {"image_size": 8, "channels": 1, "width": 8, "depth": 2, "heads": 2}
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    vit = models.create("vit", seed=0, **small).eval()
    passed = block_calls(vit, x, ["blocks.1"])["blocks.1"]
    found = residual_branches(passed)
    assert list(found) == ["mixer", "mlp"]
    with torch.no_grad():
        sums = passed.z
        for function, z in found.values():
            torch.testing.assert_close(z, sums)
            sums = sums + function(z)
    torch.testing.assert_close(sums, passed.out)

    class Timm(nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.norm1, self.attn, self.norm2, self.mlp = (nn.Linear(3, 3) for _ in range(4))
            self.scale = scale

        def forward(self, z):
            z = z + self.scale * self.attn(self.norm1(z))
            return z + self.mlp(self.norm2(z))

    for scale, names in ((1, ["attn", "mlp"]), (2, [])):  # one that does something else is not taken for the usual
        block, z = Timm(scale), torch.rand(2, 3)
        assert list(residual_branches(block_calls(block, z, [""])[""])) == names
    assert residual_branches(block_calls(vit, x, ["embedding"])["embedding"]) == {}


def test_wrong_names_are_told_in_one_line():
    model, x = models.create("cnn", seed=0).eval(), torch.rand(2, 1, 8, 8)
    for blocks, line in {
        ("conv3",): "no layer is called or matches 'conv3'; did you mean 'conv2' or 'conv1'?",
        ("relu*", "blocks.*"): "no layer is called or matches 'blocks.*'",
    }.items():
        with pytest.raises(UserError) as told:
            block_names(model, x, blocks)
        assert str(told.value).startswith(line)
        assert "\n" not in str(told.value)

    class Functional(nn.Module):
        def forward(self, x):
            return torch.relu(x)

    with pytest.raises(UserError, match="'relu' is a function, and a block must be a module"):
        block_names(Functional(), torch.rand(2, 3), "relu")
