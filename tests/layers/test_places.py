"""Names by the place in the code: the same whatever else runs, in both modes and over all inputs."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from buttress.layers import capture, layer_names


class Net(nn.Module):
    """A net with parts that a forward may call."""

    aux = False

    def __init__(self):
        super().__init__()
        self.fc, self.relu = nn.Linear(5, 5), nn.ReLU()
        self.act = F.gelu


class FunctionBefore(Net):
    def forward(self, x):
        if self.aux:
            self.seen = F.relu(x)
        return F.relu(self.fc(x)).relu_()


class ModuleBefore(Net):
    def forward(self, x):
        if self.aux:
            self.seen = self.relu(x)
        return self.relu(self.relu(self.fc(x)))


class HelperBefore(Net):
    def block(self, x):
        return F.relu(self.fc(x))

    def other(self, x):
        return self.fc(x)

    def forward(self, x):
        if self.aux:
            self.seen = self.block(x)
        x = self.other(x).float()  # neither calls an activation
        return F.relu(self.block(x))


class AliasBefore(Net):
    def forward(self, x):
        if self.aux:
            self.seen = self.act(x)
        return F.gelu(self.act(x))


class Loop(Net):
    def forward(self, x):
        if self.aux:
            self.seen = F.relu(x)
        for _ in range(2):
            x = F.relu(self.fc(x))
        return x


class Either(Net):
    def forward(self, x):
        x = F.relu(self.fc(x)) if self.aux else F.relu(self.fc(-x))
        return F.tanh(x)


class Single(Net):
    def forward(self, x):
        for _ in range(2 + self.aux):
            x = F.relu(x)
        return x


@pytest.mark.parametrize(
    ("kind", "usual", "more"),
    [
        (FunctionBefore, ["relu#1", "relu#2"], ["relu"]),
        (ModuleBefore, ["relu#1", "relu#2"], ["relu"]),
        (HelperBefore, ["relu#1", "relu#2"], ["relu"]),
        (AliasBefore, ["gelu#1", "gelu#2"], ["gelu"]),
        (Loop, ["relu#1", "relu#1.1"], ["relu"]),
        (Either, ["relu", "tanh"], []),
        (Single, ["relu", "relu#1"], ["relu#2"]),
    ],
)
def test_what_else_runs_does_not_shift_a_name(kind, usual, more, inputs):
    net = kind()
    assert layer_names(net, inputs) == usual
    net.aux = True
    assert sorted(layer_names(net, inputs)) == sorted([*usual, *more])
    with capture(net) as held:
        output = net(inputs)
    last = max(usual, key=list(held).index)
    torch.testing.assert_close(held[last], output)


def test_a_property_of_the_users_is_not_asked(inputs):
    class Touchy(Net):
        @property
        def relu_count(self):
            raise AssertionError("asked")

        def forward(self, x):
            return F.relu(x)

    assert layer_names(Touchy(), inputs) == ["relu"]


def test_what_a_checkpoint_computes_again_has_the_names_and_replacements_of_the_pass(inputs):
    """The gradient through a replaced layer is that of the same network without checkpointing."""

    class Act(nn.Module):
        def forward(self, x):
            return F.gelu(x)

    class Checkpointed(nn.Module):
        keep = False

        def __init__(self):
            super().__init__()
            self.block = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh())
            self.fc, self.act = nn.Linear(5, 5), Act()

        def part(self, x):
            return self.act(self.fc(self.act(self.fc(x))))

        def forward(self, x):
            if self.keep:
                return self.part(self.block(x))
            x = checkpoint(self.block, x, use_reentrant=False)
            return checkpoint(lambda h: self.part(h), x, use_reentrant=False)

    net = Checkpointed()
    for name in ("block.1", "block.2", "act.gelu", "act.gelu#1", "fc", "fc#1"):
        found = []
        for keep in (True, False):
            net.keep = keep
            change = torch.full((7, 5), 0.3, requires_grad=True)
            seen = []

            def put(layer, value, change=change, seen=seen):
                seen.append(layer)
                return change * 2

            with capture(net, [name], replace=put):
                output = net(inputs)
                found.append(torch.autograd.grad(output.square().sum(), change)[0])
            assert set(seen) == {name}
        torch.testing.assert_close(found[1], found[0])
        assert bool(found[0].any())
