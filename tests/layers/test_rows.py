"""Where the inputs are in a layer's value."""

import pytest
import torch
from torch import nn

from buttress.attacks import Gaussian
from buttress.layers import sustainability, tolerance
from buttress.layers.rows import Layout, Unaligned, layouts, one_at_a_time


class Net(nn.Module):
    """A network with one layer, whose value a function of (N, 4, 3) inputs gives."""

    def __init__(self, value):
        super().__init__()
        self.value, self.layer = value, nn.Identity()
        self.weight = nn.Parameter(torch.arange(6.0))

    def forward(self, x):
        self.layer(self.value(self, x))
        return x.flatten(1)


@pytest.fixture
def x():
    return torch.rand(6, 4, 3, generator=torch.Generator().manual_seed(0))


ALIGNED = {
    "first": (lambda net, x: x * 2, Layout(0, 3)),
    "sequence first": (lambda net, x: x.transpose(0, 1) * 2, Layout(1, 3)),
    "last": (lambda net, x: x.permute(1, 2, 0) * 2, Layout(2, 3)),
    "time in the batch": (lambda net, x: x.flatten(0, 1) * 2, Layout(0, 2, 1, 4)),
    "time before the batch": (lambda net, x: x.transpose(0, 1).flatten(0, 1) * 2, Layout(0, 2, 4)),
    "heads": (lambda net, x: x.transpose(0, 1).reshape(4, -1) * 2, Layout(1, 2, 1, 3)),
    "squeezed": (lambda net, x: x.sum((1, 2)).squeeze() * 2, Layout(0, 1)),
    "noise": (lambda net, x: x + torch.rand_like(x), Layout(0, 3)),
    "of the batch": (lambda net, x: x - x.mean(0), Layout(0, 3)),
}


@pytest.mark.parametrize("case", ALIGNED)
def test_the_axis_is_found_and_moved_to_the_front_and_back(case, x):
    value, expected = ALIGNED[case]
    net = Net(value)
    assert layouts(net, x, ["layer"]) == {"layer": expected}
    assert layouts(net, x[:1], ["layer"]) == {"layer": expected}  # a single one is repeated
    for n in (6, 3):
        whole = value(net, x[:n])
        assert expected.fits(whole, n)
        rows = expected.to_rows(whole, n)
        assert len(rows) == n
        torch.testing.assert_close(expected.from_rows(rows).reshape(whole.shape), whole, rtol=0, atol=0)
        if case not in ("noise", "of the batch"):
            parts = [expected.to_rows(value(net, one), 1) for one in x[:n].split(1)]
            torch.testing.assert_close(rows, torch.cat(parts))


UNALIGNED = {
    "a gate": (lambda net, x: net.weight.sigmoid(), "does not depend on the input", False),
    "products of inputs": (lambda net, x: x.flatten(1) @ x.flatten(1).T, "relates inputs to each other", False),
    "some of them": (lambda net, x: x[x[:, 0, 0] > 0.5], "for a part of the inputs", True),
    "none of them": (lambda net, x: x[:0], "for a part of the inputs", True),
    "sorted": (lambda net, x: x[x[:, 0, 0].argsort(descending=True)], "for a part of the inputs", True),
    "one more": (lambda net, x: torch.cat([x, x[:1]]), "for a part of the inputs", True),
}


@pytest.mark.parametrize("case", UNALIGNED)
def test_what_has_no_part_for_each_input_is_told(case, x):
    value, reason, alone = UNALIGNED[case]
    found = layouts(Net(value), x, ["layer"])["layer"]
    assert isinstance(found, Unaligned)
    assert reason in found.reason
    assert found.one_at_a_time == alone


def test_inputs_alone_have_the_value_that_they_reach(x):
    net = Net(lambda net, x: x[x[:, 0, 0] > 0.5])
    values = [*one_at_a_time(net, x, ["layer"])]
    for one, held in zip(x, values, strict=True):
        assert list(held) == (["layer"] if one[0, 0] > 0.5 else [])
        if held:
            torch.testing.assert_close(held["layer"], one[None])


def test_packed_sequences_are_followed(x):
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 4)

        def forward(self, x):
            packed = nn.utils.rnn.pack_padded_sequence(x, [4] * len(x), batch_first=True)
            return self.head(nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0][:, -1])

    net = Packed()
    assert layouts(net, x, ["rnn"]) == {"rnn": Layout(0, 2, 4)}
    with torch.no_grad():
        y, states = net(x).argmax(1), net.rnn(x)[0]
    x_adv = Gaussian(std=0.2).craft(net, x, y)
    profile = sustainability(net, [(x, y)], Gaussian(std=0.2), ["rnn"])
    moved = (net.rnn(x_adv)[0] - states).flatten(1).norm(dim=1) / states.flatten(1).norm(dim=1)
    torch.testing.assert_close(profile.values[0, 0], moved.detach())


def test_a_network_with_a_batch_size_of_its_own_is_told_and_left_as_it_was(x):
    net = Net(lambda net, x: x.reshape(6, 4, 3) * 2)
    found = layouts(net, x, ["layer"])["layer"]
    assert "batches of one size only" in found.reason
    data = [(x, torch.zeros(6, dtype=torch.int64))]
    for analysis in (sustainability, tolerance):
        result = analysis(net, data, Gaussian(std=0.1), ["layer"])
        assert result.layers == []
        assert "batches of one size only" in result.left_out["layer"]
    assert net.weight.requires_grad
    assert net.training
