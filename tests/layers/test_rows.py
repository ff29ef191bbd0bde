"""Where the inputs are in a layer's value."""

import pytest
import torch
from torch import nn

from buttress.attacks import Gaussian
from buttress.engine.preserved_model import preserved
from buttress.layers import sustainability, tolerance
from buttress.layers.capture import capture
from buttress.layers.rows import Layout, Unaligned, layouts, one_at_a_time


class Net(nn.Module):
    """A network with one layer, whose value a function of (N, 4, 3) inputs gives."""

    def __init__(self, value):
        super().__init__()
        self.value, self.layer = value, nn.Identity()
        self.weight = nn.Parameter(torch.arange(6.0))
        self.prototypes = nn.Parameter(torch.linspace(0, 1, 60).view(5, 4, 3))

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
    "windows of rows": (
        lambda net, x: x.view(-1, 2, 2, 3).transpose(0, 1).flatten(0, 2) * 2,
        Layout(0, 2, 2, 2),
    ),
    "noise on what is folded": (lambda net, x: (x + torch.rand_like(x)).flatten(0, 1), Layout(0, 2, 1, 4)),
    "folded, of the batch": (lambda net, x: (x - x.mean(0)).flatten(0, 1), Layout(0, 2, 1, 4)),
    "a place in the batch": (lambda net, x: x + torch.arange(len(x))[:, None, None], Layout(0, 3)),
    "heads": (lambda net, x: x.transpose(0, 1).reshape(4, -1) * 2, Layout(1, 2, 1, 3)),
    "prototypes behind": (lambda net, x: torch.cat([x, net.prototypes]) * 2, Layout(0, 3, behind=5)),
    "prototypes before": (lambda net, x: torch.cat([net.prototypes, x]) * 2, Layout(0, 3, before=5)),
    "prototypes behind what is folded": (
        lambda net, x: torch.cat([x, net.prototypes]).flatten(0, 1) * 2,
        Layout(0, 2, 1, 4, behind=20),
    ),
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
        torch.testing.assert_close(expected.in_place_of(whole, rows), whole, rtol=0, atol=0)
        if not any(word in case for word in ("noise", "of the batch", "place")):
            parts = [expected.to_rows(value(net, one), 1) for one in x[:n].split(1)]
            torch.testing.assert_close(rows, torch.cat(parts))


def shown(net, x, layers):
    """What a pass of all inputs shows."""
    with preserved(net, "eval", 0, x.device), torch.no_grad(), capture(net, layers) as values:
        net(x.clone())
    return dict(values)


def passes_of(net):
    """How many inputs each pass has, from now on."""
    sizes = []
    net.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    return sizes


# In these the parts are of the inputs alone: one pass of fewer of them, in the opposite order, tells.
CHEAP = [case for case in ALIGNED if not any(word in case for word in ("noise", "of the batch", "place in"))]


@pytest.mark.parametrize("case", ALIGNED)
@pytest.mark.parametrize("count", [6, 40])
def test_what_a_pass_has_shown_saves_passes_and_changes_no_answer(case, count):
    net, x = Net(ALIGNED[case][0]), torch.rand(count, 4, 3, generator=torch.Generator().manual_seed(0))
    values = shown(net, x, ["layer"])
    sizes = passes_of(net)
    assert layouts(net, x, ["layer"], values=values) == {"layer": ALIGNED[case][1]}
    cheap = sizes == [min(count - 1, 32)]
    assert cheap == (case in CHEAP)


def filled(x, one):
    """As many inputs as the next multiple of four."""
    return torch.cat([x, one.expand(-len(x) % 4, -1, -1)])


UNALIGNED = {
    "a gate": (lambda net, x: net.weight.sigmoid(), "does not depend on the input", False),
    "products of inputs": (lambda net, x: x.flatten(1) @ x.flatten(1).T, "relates inputs to each other", False),
    "some of them": (lambda net, x: x[x[:, 0, 0] > 0.5], "for a part of the inputs", True),
    "none of them": (lambda net, x: x[:0], "for a part of the inputs", True),
    "sorted": (lambda net, x: x[x[:, 0, 0].argsort(descending=True)], "not follow the order of the inputs", True),
    "a small gate of the batch": (lambda net, x: (x.mean((0, 1)) / 1000).sigmoid(), "of one size", False),
    "a step of the batch": (lambda net, x: (x.sum((0, 2)) > 7).float(), "of one size", False),
    "no features": (lambda net, x: x[:, :0], "holds no numbers", False),
    "a constant for each": (lambda net, x: net.weight.expand(len(x), -1) * 2, "does not depend on the input", False),
    "a token for each": (lambda net, x: net.prototypes.repeat(len(x), 1, 1), "does not depend on the input", False),
    "places in the batch": (lambda net, x: torch.arange(len(x)) * net.weight[1], "does not depend", False),
    "noise alone": (lambda net, x: torch.rand(len(x), 4), "does not depend on the input", False),
    "turned round": (lambda net, x: x.flip(0) * 2, "not follow the order of the inputs", True),
    "steps turned round": (lambda net, x: x.flatten(0, 1).flip(0) * 2, "not follow the order of the inputs", True),
    "moved on": (lambda net, x: x.roll(1, 0) * 2, "not follow the order of the inputs", True),
    "with the one opposite": (lambda net, x: torch.cat([x, x.flip(0)]), "not follow the order of the inputs", True),
    "shuffled": (lambda net, x: x[torch.randperm(len(x))] * 2, "not follow the order of the inputs", True),
    "half of them": (lambda net, x: x[: max(1, len(x) // 2)], "for a part of the inputs", True),
    "one more": (lambda net, x: torch.cat([x, x[:1]]), "for a part of the inputs", True),
    "filled up with what is nothing": (lambda net, x: filled(x, torch.zeros(4, 3)) + 0.5, "fills up", False),
    "filled up with the last": (lambda net, x: filled(x, x[-1]), "fills up", False),
    "fours, filled up": (lambda net, x: filled(x, torch.ones(4, 3)).view(-1, 4, 4, 3) * 2, "fills up", False),
    "filled up with zeros": (lambda net, x: filled(x, torch.zeros(4, 3)) * 2, "for a part of the inputs", True),
}


@pytest.mark.parametrize("case", UNALIGNED)
def test_what_has_no_part_for_each_input_is_told(case, x):
    value, reason, alone = UNALIGNED[case]
    net = Net(value)
    found = layouts(net, x, ["layer"])["layer"]
    assert isinstance(found, Unaligned)
    assert reason in found.reason
    assert found.one_at_a_time == alone
    assert layouts(net, x, ["layer"], values=shown(net, x, ["layer"])) == {"layer": found}


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_an_order_that_is_drawn_is_told_in_small_batches_too(x, count, seed):
    net = Net(UNALIGNED["shuffled"][0])
    assert layouts(net, x[:count], ["layer"], seed=seed)["layer"].one_at_a_time


@pytest.mark.parametrize("detached", [False, True], ids=["with a graph", "without"])
def test_what_is_zero_for_every_input_depends_on_them_where_a_graph_says_so(x, detached):
    net = Net(lambda net, x: (x.detach() if detached else x).clamp(max=0))
    found = layouts(net, x, ["layer"])["layer"]
    assert isinstance(found, Unaligned) == detached
    assert layouts(net, x, ["layer"], values=shown(net, x, ["layer"])) == {"layer": found}


@pytest.mark.parametrize("each", [True, False], ids=["for each", "once"])
def test_what_hangs_on_parameters_of_no_module_does_not_depend_on_the_input(x, each):
    hidden = torch.rand(4, requires_grad=True)
    net = Net(lambda net, x: (hidden.expand(len(x), -1) if each else hidden) * 2)
    found = layouts(net, x, ["layer"])["layer"]
    assert found.reason == "does not depend on the input"
    assert layouts(net, x, ["layer"], values=shown(net, x, ["layer"])) == {"layer": found}


def test_equal_inputs_do_not_tell_a_constant(x):
    net, alike = Net(lambda net, x: x.detach() * 2), x[:1].expand(6, -1, -1) * 0
    assert layouts(net, alike, ["layer"]) == {"layer": Layout(0, 3)}


def test_what_belongs_to_no_input_stays_as_it_is(x):
    layout, value = Layout(1, 2, 2, 1, before=1, behind=2), torch.arange(14.0).view(2, 7)
    rows = layout.to_rows(value, 2)
    assert rows.shape == (2, 2, 2)
    changed = layout.in_place_of(value, rows + 100)
    assert torch.equal(changed - value, torch.tensor([0.0, 100, 100, 100, 100, 0, 0]).expand(2, 7))


def test_inputs_alone_have_the_value_that_they_reach(x):
    net = Net(lambda net, x: x[x[:, 0, 0] > 0.5])
    values = [*one_at_a_time(net, x, ["layer"])]
    for one, held in zip(x, values, strict=True):
        assert list(held) == (["layer"] if one[0, 0] > 0.5 else [])
        if held:
            torch.testing.assert_close(held["layer"].value, one[None])


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


def slots(x, values):
    """Two buffers, each filled by the inputs that are routed there, in their order."""
    chosen = (x[:, 0, 0] > 0.5).long()
    slot = torch.where(chosen == 1, chosen.cumsum(0), (1 - chosen).cumsum(0)) - 1
    return torch.zeros(2, *values.shape).index_put((chosen, slot), values)


def packed(x):
    return torch.cat([one[: 2 + int(3 * one[0, 0])] for one in x])


IN_ORDER = torch.tensor([0.9, 0.8, 0.7, 0.1, 0.65, 0.2, 0.6, 0.3])  # the first three are, and are alike
DISORDER = {
    "sorted": lambda net, x: x[x[:, 0, 0].argsort(descending=True)],
    "slots": lambda net, x: slots(x, x + 0.5),
    "packed": lambda net, x: packed(x),
    "some of them": lambda net, x: x[x[:, 0, 0] > 0.5],
}


@pytest.mark.parametrize("case", DISORDER)
def test_what_is_in_disorder_behind_the_first_three_inputs_is_measured_alone(case):
    x = torch.rand(8, 4, 3, generator=torch.Generator().manual_seed(1))
    x[:, 0, 0] = IN_ORDER
    net, noise = Net(DISORDER[case]), Gaussian(std=1e-4)
    found = layouts(net, x, ["layer"])["layer"]
    assert isinstance(found, Unaligned)
    assert found.one_at_a_time
    assert layouts(net, x, ["layer"], values=shown(net, x, ["layer"])) == {"layer": found}
    profile = sustainability(net, [(x, torch.zeros(8, dtype=torch.int64))], noise, ["layer"])
    x_adv = noise.craft(net, x, torch.zeros(8, dtype=torch.int64))
    for value, one, other in zip(profile.values[0, 0], x.split(1), x_adv.split(1), strict=True):
        clean, moved = net.value(net, one), net.value(net, other)
        if len(clean):
            torch.testing.assert_close(value, (clean - moved).norm() / clean.norm())
        else:
            assert value.isnan()


def test_folds_that_agree_on_the_first_inputs_are_told_apart_by_others(x):
    x[:3] = 0
    net = Net(ALIGNED["time before the batch"][0])
    assert layouts(net, x, ["layer"]) == {"layer": Layout(0, 2, 4)}
    found = layouts(net, x * 0, ["layer"])["layer"]  # nothing tells
    assert layouts(net, x * 0, ["layer"], values=shown(net, x * 0, ["layer"])) == {"layer": found}
    assert isinstance(found, Unaligned)
    assert found.one_at_a_time


@pytest.mark.parametrize("multiple", [4, 8])
def test_networks_that_take_multiples_of_a_number(x, multiple):
    def value(net, x):
        return {0: x * 2}[len(x) % multiple]

    net, x = Net(value), torch.cat([x, x / 2])[:8]
    assert layouts(net, x, ["layer"]) == {"layer": Layout(0, 3)}
    data = [(x, torch.zeros(8, dtype=torch.int64))]
    for analysis in (sustainability, tolerance):
        assert analysis(net, data, Gaussian(std=0.1), ["layer"]).layers == ["layer"]


# What users' networks raise for a batch that they do not take; the last is torch's own for what an operator lacks.
@pytest.mark.parametrize("error", [KeyError, TypeError, NotImplementedError])
def test_a_network_says_itself_which_batches_it_refuses(x, error):
    def value(net, x):
        if len(x) != 6:
            raise error("six of them")
        return x

    reason = layouts(Net(value), x, ["layer"])["layer"].reason
    assert f"{error.__name__}: " in reason
    assert "six of them" in reason
    with pytest.raises(error, match="six of them"):
        layouts(Net(value), x[:5], ["layer"])


def test_no_centre_for_values_of_several_shapes_is_told():
    x = torch.rand(8, 4, 3, generator=torch.Generator().manual_seed(1))
    x[:, 0, 0] = IN_ORDER
    data = [(x, torch.zeros(8, dtype=torch.int64))]
    profile = sustainability(Net(DISORDER["packed"]), data, Gaussian(std=1e-4), ["layer"], "centred")
    assert profile.layers == []
    assert "no centre" in profile.left_out["layer"]
