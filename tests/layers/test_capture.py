import warnings
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from buttress.attacks import PGD
from buttress.errors import UserError
from buttress.layers import capture, layer_names
from buttress.models import Normalized
from buttress.threat import Threat


def test_activations_of_every_kind_come_in_order_and_agree_with_numpy(mixed, inputs, mixed_layers, in_numpy):
    with capture(mixed) as held:
        mixed(inputs)
    assert list(held) == mixed_layers
    expected = in_numpy(mixed, inputs)
    for name, value in held.items():
        np.testing.assert_allclose(value.detach().numpy(), expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_second_pass_replaces_the_first_and_a_second_context_gives_the_same(mixed, inputs, mixed_layers):
    with capture(mixed) as held:
        mixed(inputs[:3])
        mixed(inputs)
        assert list(held) == mixed_layers
        assert {len(v) for v in held.values()} == {len(inputs)}
    assert layer_names(mixed, inputs) == layer_names(mixed, inputs) == mixed_layers


def test_a_pass_begins_with_nothing_held(inputs):
    class Repeats(nn.Module):
        times = 3

        def forward(self, x):
            for _ in range(self.times):
                x = F.gelu(x)
            return x

    net = Repeats()
    with capture(net) as held:
        net(inputs)
        assert list(held) == ["gelu", "gelu#1", "gelu#2"]
        net.times = 1
        net(inputs)
        assert list(held) == ["gelu"]


def test_no_hook_is_left_also_after_an_exception(mixed, inputs, count_hooks):
    with capture(mixed):
        assert count_hooks(mixed) > 0
    assert count_hooks(mixed) == 0
    with pytest.raises(ZeroDivisionError), capture(mixed):
        _ = 1 / 0
    with pytest.raises(RuntimeError), capture(mixed):
        mixed(inputs[:, :2])
    assert count_hooks(mixed) == 0
    with capture(mixed) as held:
        with pytest.raises(RuntimeError):
            mixed(inputs[:, :2])
        torch.relu(inputs)  # not of the network
        assert list(held) == []
        mixed(inputs)
        assert len(held) == 7


def test_a_failure_inside_that_the_network_survives_does_not_shift_names(inputs):
    class Survivor(nn.Module):
        def __init__(self):
            super().__init__()
            self.bad = nn.Linear(3, 3)
            self.good = nn.Linear(5, 5)

        def forward(self, x):
            try:
                self.bad(x)
            except RuntimeError:
                x = F.gelu(self.good(x))
            return x

    assert layer_names(Survivor(), inputs) == ["gelu"]


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (F.relu, "relu"),
        (lambda x: F.relu(x, inplace=True), "relu"),
        (torch.relu, "relu"),
        (lambda x: x.relu_(), "relu"),
        (F.elu, "elu"),
        (F.gelu, "gelu"),
        (F.silu, "silu"),
        (F.leaky_relu, "leaky_relu"),
        (lambda x: F.leaky_relu_(x), "leaky_relu"),
        (torch.tanh, "tanh"),
        (F.tanh, "tanh"),
        (lambda x: x.sigmoid_(), "sigmoid"),
        (F.softplus, "softplus"),
        (F.hardswish, "hardswish"),
        (F.mish, "mish"),
        (F.relu6, "relu6"),
        (F.hardtanh, "hardtanh"),
        (lambda x: F.threshold(x, 0.1, 0.0), "threshold"),
        (F.softsign, "softsign"),
        (F.tanhshrink, "tanhshrink"),
        (F.logsigmoid, "log_sigmoid"),
        (lambda x: F.prelu(x, x.new_tensor([0.1])), "prelu"),
    ],
)
def test_each_activation_function_is_seen_once(call, name, inputs):
    class Net(nn.Module):
        def forward(self, x):
            return call(x * 2 - 1).softmax(1)

    with capture(Net()) as held:
        output = Net()(inputs)
        assert held == {}
    net = Net()
    with capture(net) as held:
        net(inputs)
    assert list(held) == [name]
    torch.testing.assert_close(held[name].softmax(1), output)


def test_a_value_about_to_be_overwritten_is_kept(inputs):
    class Overwrites(nn.Module):
        def forward(self, x):
            a = x.relu()
            a += 1
            b = a.relu()
            b.view(-1)[0] = 9.0
            c = b.relu()
            torch.mul(c, 3, out=c)
            d = c.relu()
            return F.dropout(d.flatten(1), 0.5, True, True)

    net = Overwrites()
    with torch.no_grad(), capture(net) as held:
        net(inputs)
    a = inputs.relu()
    b = a + 1
    c = b.clone()
    c[0, 0] = 9
    for name, expected in zip(held, (a, b, c, 3 * c), strict=True):
        torch.testing.assert_close(held[name], expected)


def test_a_captured_module_output_survives_an_inplace_activation_with_its_gradient(mixed, inputs):
    with capture(mixed, "learnable") as held:
        mixed(inputs)
    torch.testing.assert_close(held["fc1"], F.linear(inputs, mixed.fc1.weight, mixed.fc1.bias))
    assert bool((held["fc1"] < 0).any())
    (got,) = torch.autograd.grad(held["fc1"].square().sum(), mixed.fc1.weight)
    expected = 2 * held["fc1"].detach().T @ inputs
    torch.testing.assert_close(got, expected)


def test_gradients_flow_through_captured_values_as_by_hand(mixed, inputs):
    with capture(mixed) as held:
        mixed(inputs)
    got = torch.autograd.grad(held["block.silu"].square().sum() + held["act"].sum(), list(mixed.fc1.parameters()))
    h = act = F.relu(mixed.fc1(inputs))
    h = F.relu(mixed.features[1][1](F.elu(mixed.features[0](h)))) * 1.5
    by_hand = F.silu(mixed.block.fc(h)).square().sum() + act.sum()
    expected = torch.autograd.grad(by_hand, list(mixed.fc1.parameters()))
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_capturing_changes_no_bit_of_the_output(mixed, inputs):
    plain = mixed(inputs)
    with capture(mixed, "*"):
        assert torch.equal(mixed(inputs), plain)


def test_learnable_globs_lists_and_callables(mixed, inputs):
    assert layer_names(mixed, inputs, "learnable") == ["fc1", "features.0", "features.1.1", "block.fc", "fc2"]
    # One value, one layer: the containers hand on what their last part gives.
    assert layer_names(mixed, inputs, "features*") == ["features.0", "features.1.0", "features.1.1"]
    assert layer_names(mixed, inputs, ["features.?", "features"]) == ["features.0", "features.1", "features"]
    assert layer_names(mixed, inputs, ["relu", "act*", "fc2"]) == ["act", "act#1", "relu", "fc2"]
    assert layer_names(mixed, inputs, lambda name, module: isinstance(module, nn.ELU)) == ["features.1.0"]
    functions = ["block.silu", "block.relu", "tanh", "relu"]
    assert layer_names(mixed, inputs, lambda name, module: module is None) == functions


def test_every_name_is_a_selection_of_just_that_layer(mixed, inputs):
    for name in layer_names(mixed, inputs, "*"):
        assert layer_names(mixed, inputs, name) == [name]
        assert layer_names(mixed, inputs, [name]) == [name]


def test_unmatched_selections_name_what_is_near(mixed, inputs):
    with pytest.raises(UserError, match=r"matches 'blok\.relu'; did you mean 'block\.relu'"):
        layer_names(mixed, inputs, ["act", "blok.relu"])
    with pytest.raises(UserError, match="conv"):
        layer_names(mixed, inputs, "conv*")
    with pytest.raises(UserError, match="selects none of the network's layers; there are fc1"):
        layer_names(mixed, inputs, lambda name, module: False)
    with pytest.raises(UserError, match="selects none"):
        layer_names(mixed, inputs, [])
    with pytest.raises(UserError, match="must be names or globs; got 3"):
        layer_names(mixed, inputs, [3])
    for empty in ("", " ", ["act", ""]):
        with pytest.raises(UserError, match="or activations or learnable; got an empty name"):
            layer_names(mixed, inputs, empty)


@pytest.mark.parametrize(
    ("layers", "meant"),
    [
        ("Activations", "activations"),
        (["activation"], "activations"),
        (["fc1", "ACTIVATION"], "activations"),
        ("learnables", "learnable"),
        ("FC1", "fc1"),
        (["activations", "Block.ReLU"], "block.relu"),
    ],
)
def test_groups_and_names_that_are_nearly_spelled_so_are_told_in_any_case_of_letters(mixed, inputs, layers, meant):
    with pytest.raises(UserError, match=rf"; did you mean '{meant}'"):
        layer_names(mixed, inputs, layers)


def test_where_nothing_is_near_the_groups_are_told_too(mixed, inputs):
    with pytest.raises(UserError, match=r"there are fc1, .*; or a group: activations or learnable$"):
        layer_names(mixed, inputs, "zzz")


def test_a_list_may_hold_groups_beside_names(mixed, inputs, mixed_layers):
    order, learnable = layer_names(mixed, inputs, "*"), layer_names(mixed, inputs, "learnable")
    assert layer_names(mixed, inputs, ["activations"]) == mixed_layers
    for layers, wanted in (
        (["activations", "fc2"], [*mixed_layers, "fc2"]),
        (["fc?", "learnable"], [*learnable, *layer_names(mixed, inputs, "fc?")]),
        (["learnable", "activations"], [*mixed_layers, *learnable]),
    ):
        assert layer_names(mixed, inputs, layers) == [name for name in order if name in wanted]


def test_in_a_list_a_part_that_is_called_as_a_group_is_meant(inputs):
    net = nn.Sequential(OrderedDict(fc=nn.Linear(5, 5), activations=nn.ReLU(), last=nn.Tanh()))
    assert layer_names(net, inputs, ["activations"]) == ["activations"]
    assert layer_names(net, inputs, "activations") == ["activations", "last"]

    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.activations = nn.ModuleList([nn.ReLU(), nn.Tanh()])

        def forward(self, x):
            return self.activations[1](self.activations[0](x))

    assert layer_names(Listed(), inputs, ["activations"]) == ["activations.0", "activations.1"]


def test_wrappers_are_looked_through(mixed, inputs, mixed_layers):
    wrapped = Normalized(Normalized(mixed, [0.5] * 5, [0.2] * 5), 0.0, 1.0)
    assert layer_names(wrapped, inputs) == mixed_layers
    with capture(wrapped) as held:
        wrapped(inputs)
    with capture(mixed) as direct:
        mixed((inputs - 0.5) / 0.2)
    torch.testing.assert_close(held["relu"], direct["relu"])


def test_what_has_no_visible_layers_is_refused(inputs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scripting is deprecated
        traced = torch.jit.trace(nn.Linear(5, 2), inputs)
    for thing in (lambda x: x, traced):
        with pytest.raises(UserError, match=r"torch\.nn\.Module|traced"), capture(thing):
            pass


def test_a_compiled_network_runs_as_it_was_written(mixed, inputs, mixed_layers):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.compile imports what torch itself has deprecated
        compiled = torch.compile(mixed, backend="eager")
    with capture(compiled) as held:
        compiled(inputs)
    with capture(mixed) as plain:
        mixed(inputs)
    assert list(held) == mixed_layers
    assert all(torch.equal(held[name], plain[name]) for name in plain)


def test_nested_contexts_on_one_network_do_not_disturb_each_other(mixed, inputs, mixed_layers, count_hooks):
    with capture(mixed) as outer:
        with capture(mixed, "fc1", replace=lambda name, value: value + 1) as inner:
            mixed(inputs)
        changed = outer["act"]
        torch.testing.assert_close(inner["fc1"], mixed.fc1(inputs) + 1)
        assert list(outer) == list(mixed_layers)
        mixed(inputs)
        torch.testing.assert_close(changed, (mixed.fc1(inputs) + 1).relu())
        torch.testing.assert_close(outer["act"], mixed.fc1(inputs).relu())
        assert list(inner) == ["fc1"]
    assert count_hooks(mixed) == 0


def test_an_attack_inside_gives_the_same_bits_and_leaves_names_alone(mixed, inputs, mixed_layers):
    y = torch.zeros(len(inputs), dtype=torch.int64)
    attack = PGD(threat=Threat(eps=0.1), steps=3)
    x_adv = attack(mixed, inputs, y).x_adv
    with capture(mixed) as held:
        assert torch.equal(attack(mixed, inputs, y).x_adv, x_adv)
        mixed(inputs)
        again = dict(held)
    with capture(mixed) as alone:
        mixed(inputs)
    assert list(again) == mixed_layers
    assert all(torch.equal(again[name], alone[name]) for name in alone)
    assert mixed.training


@pytest.mark.parametrize(
    "name", ["act", "features.1.0", "act#1", "block.silu", "block.relu", "tanh", "features.1", "fc2"]
)
def test_replace_puts_a_value_in_one_layers_place(mixed, inputs, name):
    def zero(layer, value):
        return torch.zeros_like(value) if layer == name else value

    with capture(mixed, ["*", name], replace=zero) as held:
        output = mixed(inputs)
    assert not held[name].any()
    assert not torch.equal(output, mixed(inputs))
    if name == "fc2":
        assert not output.any()
    with capture(mixed, "*", replace=lambda layer, value: value.clone()):
        assert torch.equal(mixed(inputs), mixed(inputs))


def test_gradients_flow_to_a_replacement(mixed, inputs):
    with torch.no_grad(), capture(mixed) as held:
        mixed(inputs)
    value = held["tanh"].clone().requires_grad_()
    with capture(mixed, ["tanh"], replace=lambda name, _: value):
        output = mixed(inputs)
    (got,) = torch.autograd.grad(output.sum(), value)
    torch.testing.assert_close(got, (value > 0) * mixed.fc2.weight.sum(0))


def test_autocast_and_no_grad(mixed, inputs):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), capture(mixed) as held:
        mixed(inputs)
    assert held["act"].dtype == torch.bfloat16
    assert not held["act"].requires_grad

    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(5, 5), nn.Linear(5, 5)

        def forward(self, x):
            with torch.no_grad():
                h = self.fc1(x).relu()
            return self.fc2(h).relu()

    net = Frozen()
    with capture(net) as held:
        net(inputs)
    assert [v.requires_grad for v in held.values()] == [False, True]


def test_shared_modules_tuples_and_reparametrised_weights(inputs):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            shared = nn.Linear(5, 5)
            self.one, self.two = shared, shared
            self.normed = weight_norm(nn.Linear(5, 5))
            self.attend = nn.MultiheadAttention(5, 1, batch_first=True)
            self.final = nn.Softmax(1)

        def forward(self, x):
            h = self.normed(self.two(self.one(x)))
            h, _ = self.attend(h[:, None], h[:, None], h[:, None])
            return self.final(h[:, 0])

    net = Odd()
    assert layer_names(net, inputs, "learnable") == ["one", "one#1", "normed", "attend"]
    assert layer_names(net, inputs, "*") == ["one", "one#1", "normed", "attend", "final"]
    with capture(net, "attend", replace=lambda name, value: value * 0) as held:
        torch.testing.assert_close(net(inputs), torch.full((7, 5), 0.2))
    assert held["attend"].shape == (7, 1, 5)


def test_a_single_layer_is_a_network_too(inputs):
    assert layer_names(nn.Linear(5, 2), inputs, "learnable") == ["linear"]
    assert layer_names(nn.ReLU(), inputs) == ["relu"]


def test_parts_called_outside_a_pass_are_not_seen(mixed, inputs):
    with capture(mixed, "*") as held:
        mixed.features(mixed.fc1(inputs))
    assert held == {}


def test_layer_names_leaves_the_network_as_it_was(inputs):
    net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.ReLU())
    net[2].eval()
    state = torch.random.get_rng_state()
    assert layer_names(net, inputs) == ["3"]
    assert [m.training for m in net] == [True, True, False, True]
    assert int(net[1].num_batches_tracked) == 0
    assert torch.equal(torch.random.get_rng_state(), state)
