"""Names by the place in the code: the same whatever else runs, in both modes and over all inputs."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from buttress.layers import capture, layer_names
from buttress.layers.targets import Targets


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


class Operations:
    def act(self, x):
        return F.relu(x)

    def __call__(self, x):
        return F.relu(x)


def same(function):
    @functools.wraps(function)
    def wrapped(*args):
        return function(*args)

    return wrapped


@same
def decorated(x):
    return F.relu(x)


def chunk(x):
    return F.relu(x)


class Parts(Net):
    """A net that has its activation in many places."""

    kind = "relu"

    def __init__(self):
        super().__init__()
        self.named, self.listed = nn.ModuleDict({"r": self.relu}), nn.ModuleList([nn.Identity(), self.relu])
        self.kept, self.operations = {"r": nn.ReLU()}, Operations()
        del self.relu
        object.__setattr__(self, "hidden", nn.ReLU())

    @property
    def chosen(self):
        return F.relu

    def run(self, layer, act, x):
        return act(layer(x))

    def each(self, x):
        yield F.relu(x)

    @staticmethod
    def still(x):
        return F.relu(x)


def built(*lines):
    """A net with this code, in which ``act`` is a variable of the code around it and ``given`` a default argument."""
    code = "\n    ".join(("def forward(self, x, given=F.relu):", *lines))
    names = {}
    exec(f"def around(act):\n  {code.replace(chr(10), chr(10) + '  ')}\n  return forward", {**globals()}, names)
    return type("Built", (Parts,), {"forward": names["around"](F.relu)})()


@pytest.mark.parametrize(
    "call",
    [
        *('self.kept["r"](X)', "self.hidden(X)", 'self.named["r"](X)', "self.named.r(X)", "self.listed[1](X)"),
        *("self.listed[-1](X)", 'getattr(self, "hidden")(X)', "getattr(F, self.kind)(X)", "self.operations.act(X)"),
        *("self.operations(X)", "self.chosen(X)", "decorated(X)", "act(X)", "given(X)", 'dict(r=F.relu)["r"](X)'),
        *("functools.partial(F.relu)(X)", "self.run(nn.Identity(), F.relu, X)", "next(map(F.relu, [X]))"),
        *("functools.reduce(lambda v, f: f(v), [F.relu], X)", "sum(self.each(X))", "self.hidden.forward(X)"),
        *("[f for f in [F.relu]][0](X)", "(lambda v: act(v))(X)", "self.still(X)", "type(self).still(X)"),
    ],
)
def test_a_call_that_runs_in_training_alone_never_takes_the_name_of_another(call, inputs):
    """However the activation is reached, its second place keeps its name, and has the value computed by hand."""
    extra, usual = call.replace("X", "x"), call.replace("X", "h")
    net = built("h = self.fc(x)", f"if self.aux: self.seen = {extra}", f"return {usual}")
    (name,) = layer_names(net, inputs)
    net.aux = True
    with capture(net) as held:
        net(inputs)
    assert len(held) == 2
    torch.testing.assert_close(held[name], net.fc(inputs).relu())


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        (["for part in self.listed: x = part(x)", "return F.relu(x)"], ["named.r", "relu"]),
        (["for part in self.listed[:1]: x = part(x)", "for part in self.listed[1:]: x = part(x)"], ["named.r"]),
        (["first, *more = self.listed", "for part in more: x = part(x)", "x = first(x)"], ["named.r"]),
        (["for a, b in zip([self.fc], self.listed[1:]): y = a(x); x = b(y)"], ["named.r"]),
        (["for key, part in self.named.items(): x = part(x)"], ["named.r"]),
        (["x = self.fc(x).chunk(1)[0]", "x = F.relu(x)"], ["relu"]),  # no call of the function of that name
        (["for name in ('fc', 'listed.1'): x = self.get_submodule(name)(x)", "x = F.tanh(x)"], ["named.r", "tanh"]),
        (["x = sum(map(F.relu, [x]))"], ["relu"]),
        (["x = sum(self.each(x))"], ["relu"]),
    ],
)
def test_what_is_called_from_one_place_has_no_number(lines, names, inputs):
    assert layer_names(built(*lines, "return x"), inputs) == names


def test_several_functions_called_in_one_place_keep_their_names(inputs):
    class Chosen(Net):
        def extra(self, x):
            self.seen = F.relu(x)
            return x

        def usual(self, x):
            return F.relu(x)

        def forward(self, x):
            for part in ([self.extra] if self.aux else []) + [self.usual]:
                x = part(x)
            return x

    net = Chosen()
    assert layer_names(net, inputs) == ["relu#1"]
    net.aux = True
    assert layer_names(net, inputs) == ["relu", "relu#1"]


class BlockBefore(Net):
    """A block that training calls once more, first; it calls its own activation twice."""

    def __init__(self):
        super().__init__()
        self.block = HelperBefore()

    def forward(self, x):
        if self.aux:
            self.seen = self.block(x)
        return self.block(F.gelu(self.block(x)))


class TwoParents(Net):
    """One activation in two blocks, of which one does not always run."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.ModuleList([self.relu]), nn.Sequential(nn.Sequential(self.fc, self.relu))
        del self.relu

    def forward(self, x):
        if self.aux:
            self.seen = self.one[0](x)
        return self.two(x)


class ByNumber(Net):
    """Modules picked by computed names, one of them in training alone."""

    def __init__(self):
        super().__init__()
        self.layer0, self.layer1 = (nn.Sequential(nn.Linear(5, 5), nn.ReLU()) for _ in range(2))

    def forward(self, x):
        for k in range(not self.aux, 2):
            x = getattr(self, f"layer{k}")(x)
        return self._modules["layer1"](x)


@pytest.mark.parametrize(
    ("kind", "usual", "more"),
    [
        (
            BlockBefore,
            ["block.relu#1.1", "block.relu#2.1", "gelu", "block.relu#1.2", "block.relu#2.2"],
            ["block.relu#1", "block.relu#2"],
        ),
        (TwoParents, ["two.0.1"], ["one.0"]),
        (ByNumber, ["layer1.1#1", "layer1.1"], ["layer0.1"]),  # which the code does not tell comes last
    ],
)
def test_what_runs_inside_of_a_module_is_told_by_the_place_of_the_module(kind, usual, more, inputs):
    net = kind()
    assert layer_names(net, inputs) == usual
    with capture(net) as held:
        net(inputs)
        before = dict(held)
    net.aux = True
    with capture(net) as held:
        net(inputs)
    assert sorted(held) == sorted([*usual, *more])
    if kind is not ByNumber:  # whose layers get other values
        torch.testing.assert_close({name: held[name] for name in usual}, before)


def test_a_forward_written_out_flat_is_read_once(inputs, monkeypatch):
    read, of = [], Targets.of
    monkeypatch.setattr(Targets, "of", lambda self, call, scope: read.append(call) or of(self, call, scope))
    stack = nn.Sequential(*(part for _ in range(30) for part in (nn.Linear(5, 5), nn.ReLU())))
    assert layer_names(torch.fx.symbolic_trace(stack), inputs) == [f"{n}" for n in range(1, 60, 2)]
    assert len(read) <= 2 * 60  # it looks a module up, and calls it


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
