"""Blocks as functions of what goes in, held against Jacobians of the same mathematics, one input at a time."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import jacrev

from buttress.errors import UserError
from buttress.layers.block_calls import block_calls, recorded_calls
from buttress.layers.blocks import residual_branches
from buttress.layers.lipschitz import Jacobian, exact_singular_value, stretch
from buttress.random import Random

N, T, D = 3, 4, 6
X = torch.randn(N, T, D, generator=torch.Generator().manual_seed(0))


class Attention(nn.Module):
    """Attention of one head whose arguments come in many ways: ``key`` and ``value`` inside of a dict, for one."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(D, D) for _ in range(3))

    def forward(self, query=None, key=None, value=None, mask=None, both=None, packed=None):
        if both is not None:
            key, value = both["key"], both["value"]
        if packed is not None:
            (query, (key, value)) = packed
        return F.softmax(self.q(query) @ self.k(key).mT + (0 if mask is None else mask), -1) @ self.v(value)


class Net(nn.Module):
    """A layer, a block that is called in the way in question, and a mean."""

    def __init__(self, call):
        super().__init__()
        self.first, self.block, self.call = nn.Linear(D, D), Attention(), call

    def forward(self, x):
        return self.call(self.block, self.first(x)).mean(1)


def build(call):
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return Net(call).eval()


def by_hand(function, z):
    """(N, outputs, inputs) by reverse mode, one input at a time."""
    return torch.stack([jacrev(lambda row: function(row[None])[0])(row).flatten(-2).flatten(0, 1) for row in z])


MASK = torch.randn(T, T, generator=torch.Generator().manual_seed(1))
SAME = {
    "positional": lambda block, z: block(z, z, z),
    "keyword": lambda block, z: block(query=z, key=z, value=z),
    "keyword in another order": lambda block, z: block(value=z, query=z, key=z),
    "mixed": lambda block, z: block(z, value=z, key=z),
    "dict": lambda block, z: block(z, both={"key": z, "value": z}),
    "nested": lambda block, z: block(packed=(z, [z, z])),
    "view": lambda block, z: block(z, z.view(-1, T, D)[:], z.unsqueeze(0).squeeze(0)),
    "transposed": lambda block, z: block(z, z.mT.clone().mT, z),
    "copy": lambda block, z: block(z, z.clone(), z),
    "mask first": lambda block, z: block(None, z, z, mask=0 * MASK, packed=(z, (z, z))),
}


@pytest.mark.parametrize("way", SAME)
def test_every_argument_that_is_the_same_tensor_moves(way):
    """In the product of softmax and values all three count: with two of them held its norm is several times smaller."""
    net = build(SAME[way])
    call = block_calls(net, X, ["block"])["block"]
    assert call.held == 0
    assert call.alone
    expected = by_hand(lambda z: net.block(z, z, z), net.first(X).detach())
    torch.testing.assert_close(Jacobian(call.function, call.z).matrix(), expected)
    found = stretch(call.function, call.z, Random(0, torch.arange(N)), residual=False)
    torch.testing.assert_close(found.sigma, exact_singular_value(expected), rtol=2e-3, atol=0)
    held = by_hand(lambda z: net.block(z, z.detach(), z.detach()), net.first(X).detach())
    assert (exact_singular_value(expected) > 1.5 * exact_singular_value(held)).all()


def test_views_of_parts_move_with_the_whole():
    """The keys are the first tokens, read backwards through a stride, and a transpose of a square part."""
    net = build(lambda block, z: block(z, z[:, ::2], z[:, ::2]))
    call = block_calls(net, X, ["block"])["block"]
    expected = by_hand(lambda z: net.block(z, z[:, ::2], z[:, ::2]), net.first(X).detach())
    torch.testing.assert_close(Jacobian(call.function, call.z).matrix(), expected)
    assert call.alone

    class Square(nn.Module):
        def forward(self, a, b):
            return a * b

    square = nn.Module()
    square.block = Square()
    square.forward = lambda x: square.block(x[:, :, :T], x[:, :, :T].mT).mean(1)
    call = block_calls(square, X, ["block"])["block"]
    expected = by_hand(lambda z: z * z.mT, X[:, :, :T])
    torch.testing.assert_close(Jacobian(call.function, call.z).matrix(), expected)


def test_other_tensors_stay_as_they_are_and_are_counted():
    """Those that do not depend on the input, or not by a gradient."""
    memory = torch.randn(N, T, D, generator=torch.Generator().manual_seed(2))
    padded = torch.zeros(N, 1, T).masked_fill(torch.arange(T) > 1 + torch.arange(N)[:, None, None], -torch.inf)
    net = build(lambda block, z: block(z, memory[: len(z)], (z + 1).detach(), mask=padded[: len(z)]))
    call = block_calls(net, X, ["block"])["block"]
    assert (call.joint, call.held) == (1, 3)
    assert not call.alone
    z = net.first(X).detach()

    def of_input(k):
        return by_hand(
            lambda q: net.block(q, memory[k : k + 1], z[k : k + 1] + 1, mask=padded[k : k + 1]), z[k : k + 1]
        )

    for rows in ([0, 1, 2], [1]):  # what is beside an input goes with it
        found = Jacobian(call.function, call.z[rows], [tensor[rows] for tensor in call.beside]).matrix()
        torch.testing.assert_close(found, torch.cat([of_input(k) for k in rows]))


# As in DETR: queries and keys are one new tensor; and arguments that all differ, in orders of their own.
JOINT = {
    "query and key": (lambda block, z: block(z + 1, z + 1, z), 2, lambda a, b: (a, a, b)),
    "one tensor twice": (lambda block, z: block(*[z + 1] * 2, z), 2, lambda a, b: (a, a, b)),
    "key and value": (lambda block, z: block(z + 1, z, z), 2, lambda a, b: (a, b, b)),
    "by keyword": (lambda block, z: block(value=z, query=z + 1, key=z + 1), 2, lambda b, a: (a, a, b)),
    "all": (lambda block, z: block(z + 1, 2 * z, z), 3, lambda a, b, c: (a, b, c)),
    "a part of another": (lambda block, z: block(z[:, :2], z, z), 1, lambda a: (a[:, :2], a, a)),
}


@pytest.mark.parametrize("way", JOINT)
def test_tensors_that_depend_on_the_input_move_jointly(way):
    """The Jacobian by all of them side by side, each with the norm of its numbers."""
    call_block, joint, arguments = JOINT[way]
    net = build(call_block)
    call = block_calls(net, X, ["block"])["block"]
    assert (call.joint, call.held, call.alone) == (joint, 0, joint == 1)
    z = call.z.reshape(N, joint * T, D)
    expected = by_hand(lambda z: net.block(*arguments(*z.unflatten(1, (joint, T)).unbind(1))), z)
    torch.testing.assert_close(Jacobian(call.function, call.z).matrix(), expected)
    assert residual_branches(call) == {}


class Sum(nn.Module):
    """A a + B b."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(D, D, bias=False), nn.Linear(2 * D, D, bias=False)

    def forward(self, a, b):
        return self.a(a) + self.b(b)


def test_a_block_that_is_linear_in_two_arguments_has_the_singular_value_of_both():
    """Of [A B]: with b held it would be that of A alone."""
    net = nn.Module()
    net.block = Sum()
    net.forward = lambda x: net.block(x[:, 0], x.flatten(1)[:, D : 3 * D].tanh())
    call = block_calls(net, X, ["block"])["block"]
    found = stretch(call.function, call.z, Random(0, torch.arange(N)), residual=False, iterations=60)
    both = torch.linalg.matrix_norm(torch.cat([net.block.a.weight, net.block.b.weight], 1).detach(), 2)
    torch.testing.assert_close(found.sigma, both.double().expand(N), rtol=1e-3, atol=0)
    assert both > 1.05 * torch.linalg.matrix_norm(net.block.a.weight.detach(), 2)


def test_a_constant_mask_is_no_other_input():
    net = build(lambda block, z: block(mask=MASK, query=z, key=z, value=z))
    call = block_calls(net, X, ["block"])["block"]
    assert call.alone
    expected = by_hand(lambda z: net.block(z, z, z, mask=MASK), net.first(X).detach())
    torch.testing.assert_close(Jacobian(call.function, call.z).matrix(), expected)


def test_a_first_argument_that_is_no_tensor_and_outputs_that_are_dicts():
    class Scaled(nn.Module):
        def forward(self, factor, indices, z):
            return {"indices": indices, "out": factor * z**2, "more": (z,)}

    net = nn.Module()
    net.block = Scaled()
    net.forward = lambda x: net.block(3.0, torch.arange(len(x)), x)["out"].mean(1)
    call = block_calls(net, X, ["block"])["block"]
    torch.testing.assert_close(call.out, 3 * X**2)
    assert (call.held, call.alone) == (0, False)
    torch.testing.assert_close(Jacobian(call.function, call.z, call.beside).matrix(), by_hand(lambda z: 3 * z**2, X))


def test_torch_attention_by_its_own_module():
    class MultiHead(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = nn.MultiheadAttention(D, 2, batch_first=True)

        def forward(self, x):
            return self.attn(x, x, x, need_weights=False)[0].mean(1)

    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        net = MultiHead().eval()
    call = block_calls(net, X, ["attn"])["attn"]
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = by_hand(lambda z: net.attn(z, z, z, need_weights=False)[0], X)
    found = stretch(call.function, call.z, Random(0, torch.arange(N)), residual=False)
    torch.testing.assert_close(found.sigma, exact_singular_value(expected), rtol=2e-3, atol=0)


def test_blocks_that_are_no_functions_of_rows_are_told_by_name():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.total, self.counter, self.idle = (nn.Identity() for _ in range(4))

        def forward(self, x):
            rows = self.table(torch.ones(9, D)).sum()
            self.counter(torch.arange(len(x)))
            return x.mean(1) + rows + self.total(x.sum())

    net = Odd()
    calls, reasons = recorded_calls(net, X, ["table", "total", "counter", "idle"])
    assert not calls
    assert reasons == {
        "table": "is given what does not depend on the input",
        "total": "is given what is of one size for any number of inputs, as a mean over all of them is",
        "counter": "is not given numbers",
        "idle": "is not called",
    }
    with pytest.raises(UserError, match=r"^the block 'idle' is not called: name another$"):
        block_calls(net, X, ["idle"])


class SequenceFirst(nn.Module):
    """(T, N, D) inside, as torch's layers are unless told otherwise."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        out = self.block(x.transpose(0, 1))
        return (out[0] if isinstance(out, tuple) else out).mean(0)


class Windows(nn.Module):
    """Windows of two tokens as inputs of their own, ``apart`` with the inputs in between."""

    def __init__(self, apart):
        super().__init__()
        self.block, self.apart = Attend(), apart

    def forward(self, x):
        windows = x.unflatten(1, (-1, 2))
        windows = (windows.transpose(0, 1) if self.apart else windows).flatten(0, 1)
        return (
            self.block(windows)
            .mean(1)
            .unflatten(0, (-1, len(x)) if self.apart else (len(x), -1))
            .mean(0 if self.apart else 1)
        )


class Attend(Attention):
    def forward(self, z):
        return super().forward(z, z, z)


def seeded(build):
    with torch.random.fork_rng([]):
        torch.manual_seed(2)
        return build().eval()


SQUARE = torch.randn(4, 4, D, generator=torch.Generator().manual_seed(3))  # as many tokens as inputs
LAYERS = {
    "encoder layer": lambda: nn.TransformerEncoderLayer(D, 2, 8, dropout=0),
    "lstm": lambda: nn.LSTM(D, 5),
    "gru of two layers": lambda: nn.GRU(D, D, 2),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_blocks_with_the_sequence_first_are_measured_input_by_input(kind):
    """Also where there are as many tokens as inputs, so that no length tells which axis is which."""
    net = seeded(lambda: SequenceFirst(LAYERS[kind]()))
    call = block_calls(net, SQUARE, ["block"])["block"]
    assert torch.equal(call.z, SQUARE)

    def block(z):
        out = net.block(z.transpose(0, 1))
        return (out[0] if isinstance(out, tuple) else out).transpose(0, 1)

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = by_hand_plain(block, SQUARE)
    torch.testing.assert_close(Jacobian(call.function, call.z).matrix(), expected, atol=1e-5, rtol=1e-4)
    found = stretch(call.function, call.z, Random(0, torch.arange(4)), residual=False)
    torch.testing.assert_close(found.sigma, exact_singular_value(expected), rtol=2e-3, atol=0)
    torch.testing.assert_close(call.out, block(SQUARE).detach())


def by_hand_plain(function, z):
    """As `by_hand`, by plain autograd, which also knows recurrent layers."""
    rows = []
    for row in z:
        whole = torch.autograd.functional.jacobian(lambda row: function(row[None])[0].flatten(), row)
        rows.append(whole.flatten(1))
    return torch.stack(rows)


@pytest.mark.parametrize("apart", [False, True])
def test_windows_folded_into_the_inputs_are_unfolded(apart):
    net = seeded(lambda: Windows(apart))
    call = block_calls(net, X, ["block"])["block"]
    assert call.z.shape == (N, 2, 2, D)
    expected = by_hand(lambda z: net.block(z.unflatten(1, (2, 2)).flatten(0, 1)).flatten(0, 1)[None], X)
    torch.testing.assert_close(Jacobian(call.function, call.z).matrix(), expected)


def test_arguments_that_are_turned_over_follow():
    """The keys come with the sequence first, the queries with the inputs first; both are one tensor."""

    class Turning(Attention):
        def forward(self, query, key):
            return super().forward(query, key.transpose(0, 1), key.transpose(0, 1))

    net = build(lambda block, z: block(z, z.transpose(0, 1)))
    net.block.__class__ = Turning
    call = block_calls(net, SQUARE, ["block"])["block"]
    assert call.alone
    expected = by_hand(lambda z: net.block(z, z.transpose(0, 1)), net.first(SQUARE).detach())
    torch.testing.assert_close(Jacobian(call.function, call.z).matrix(), expected)


def test_branches_of_a_block_with_the_sequence_first():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.recurrent, self.linear = nn.GRU(D, D), nn.Linear(D, D)

        def branches(self):
            return {"recurrent": lambda z: self.recurrent(z)[0], "linear": lambda z: self.linear(z)}

        def forward(self, z):
            z = z + self.recurrent(z)[0]
            return z + self.linear(z)

    net = seeded(lambda: SequenceFirst(Residual()))
    found = residual_branches(block_calls(net, SQUARE, ["block"])["block"])
    function, z = found["recurrent"]
    expected = by_hand_plain(lambda z: net.block.recurrent(z.transpose(0, 1))[0].transpose(0, 1), SQUARE)
    assert torch.equal(z, SQUARE)
    torch.testing.assert_close(Jacobian(function, z).matrix(), expected, atol=1e-5, rtol=1e-4)


def test_blocks_that_are_given_what_inputs_make_together_are_left_out():
    class Together(nn.Module):
        def __init__(self):
            super().__init__()
            self.centred, self.paired, self.plain = Subtract(), Subtract(), Subtract()

        def forward(self, x):
            h = x.flatten(1)
            likeness = h @ h.T
            return self.plain(self.paired(self.centred(h, h.mean(0)), likeness.mean()), torch.ones(1))

    calls, reasons = recorded_calls(Together(), X, ["centred", "paired", "plain"])
    assert list(calls) == ["plain"]
    assert set(reasons) == {"centred", "paired"}
    torch.testing.assert_close(
        Jacobian(calls["plain"].function, calls["plain"].z).matrix(), torch.eye(T * D).repeat(N, 1, 1)
    )


class Subtract(nn.Module):
    def forward(self, a, b):
        return a - b


def test_a_network_of_one_batch_size_is_told():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.Linear(D, D)

        def forward(self, x):
            return self.block(x.view(N, T, D)).mean(1)

    with pytest.raises(
        UserError, match=r"^the block 'block' cannot be measured, for it is in a network that takes batches of one"
    ):
        block_calls(Fixed(), X, ["block"])
