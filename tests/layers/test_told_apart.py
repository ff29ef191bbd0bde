"""Names that count runs are compared between evaluation and training; all others stay with their layer."""

import pytest
import torch
from tests.layers.test_every_network import NETWORKS, every_network, made
from tests.layers.zoo import branches, modes
from tests.layers.zoo.network import inputs
from torch import nn

from buttress.errors import UserError
from buttress.layers import layer_names
from buttress.layers.places import Place
from buttress.layers.regularisable import not_regularisable
from buttress.layers.told_apart import Origins, another_meaning, check_names, look, look_in_training


def reasons(network, x):
    """Layer -> why its name may mean another in some training pass; and the layers that some do not run."""
    names = layer_names(network, x, check=False)
    usual = look(network, x, names, "eval")
    origins, found, skipped = Origins(usual), {}, set()
    for training in look_in_training(network, x, names):
        origins.note(training)
        for name in usual.places:
            reason = another_meaning(name, usual.places, training.places)
            if reason is not None:
                found.setdefault(name, reason)
            elif name not in training.places:
                skipped.add(name)
    return origins.reasons(network, x) | found, skipped


@pytest.mark.parametrize("name", modes.NETWORKS)
def test_what_can_be_told_and_what_not(name, nets):
    network, x = nets.seeded(modes.NETWORKS[name]), inputs(5)
    state = torch.random.get_rng_state()
    found, _ = reasons(network, x)
    assert torch.equal(torch.random.get_rng_state(), state)
    names = layer_names(network, x)
    assert set(names) >= {*network.told, *network.counted}
    assert {layer for layer in names if layer in found} == set(network.counted)
    assert not found.keys() & set(network.told)


@every_network
def test_no_layer_of_a_network_whose_modes_differ_by_place_alone_is_refused(name, nets):
    assert reasons(made(name, nets), inputs(5))[0] == {}


@pytest.mark.parametrize("name", branches.NETWORKS)
def test_branches_that_exclude_each_other(name, nets):
    """Held against the values of both modes; a layer that is refused has others in training, under that name."""
    network, x = nets.seeded(branches.NETWORKS[name]), inputs(5)
    state = nets.state(network)
    learnable = [parameter.requires_grad for parameter in network.parameters()]
    found, _ = reasons(network, x)
    nets.assert_state(network, state)
    assert [parameter.requires_grad for parameter in network.parameters()] == learnable
    assert found.keys() == network.refused.keys()
    assert all(told in found[layer] for layer, told in network.refused.items())
    assert not found.keys() & set(network.told)
    asked = [*network.told, *network.refused]
    usual, training = (look(network, x, asked, mode).values for mode in ("eval", "train"))
    for layer in asked if network.alike else ():
        assert torch.allclose(usual[layer], training[layer]) == (layer in network.told)
    check_names(network, x, network.told)
    assert not_regularisable(network, [x], network.told) == {}
    for layer in network.refused:
        assert layer in not_regularisable(network, [x], [layer])
        with pytest.raises(UserError, match=f"^layer '{layer}' cannot be used in training, for it is|another"):
            check_names(network, x, [layer])


@pytest.mark.parametrize("name", ["layers dropped", "two parents"])
def test_what_training_skips_keeps_its_name(name, nets):
    network, x = nets.seeded(modes.NETWORKS[name]), inputs(5)
    assert len(reasons(network, x)[1] & set(network.told)) > 1
    check_names(network, x, network.told, always=False)


class Sizes(nn.Module):
    """A loop that runs as often as it is told, in either mode."""

    def __init__(self, evaluation, training):
        super().__init__()
        self.fc, self.often = nn.Linear(24, 24), {False: evaluation, True: training}

    def forward(self, x):
        for _ in range(self.often[self.training]):
            x = torch.relu(self.fc(x))
        return x


@pytest.mark.parametrize(("evaluation", "training"), [(1, 2), (2, 1), (3, 2), (1, 3)])
def test_the_reason_says_how_often_each_mode_runs_it(evaluation, training):
    found, _ = reasons(Sizes(evaluation, training), inputs(3))
    counts = f"counts the runs of one place in the code, {evaluation} in evaluation and {training} in training"
    assert found.keys() >= {"relu", "fc"}
    assert all(counts in reason for reason in found.values())


def run(*names):
    """The places of a pass: ``name@place``, or the name alone, which is then its own place."""
    parts = (name.partition("@") for name in names)
    return {name: Place(place or name, ()) for name, _, place in parts}


@pytest.mark.parametrize(
    ("training", "told"),
    [
        (["stem", "a", "r@r", "b", "r#1@r", "c", "r#2@r"], True),
        (["stem", "a", "extra", "r@r", "b", "r#1@r", "c", "r#2@r", "d"], True),  # what is more, and nothing less
        (["stem", "a", "r@r", "r#1@r", "c", "r#2@r"], True),  # b skipped, the run behind it not
        (["other", "a", "r@r", "b", "r#1@r", "c", "r#2@r"], True),
        (["stem", "a", "r@r", "c", "r#1@r", "b", "r#2@r"], False),
        (["stem", "a", "r@r", "d", "r#1@r", "c", "r#2@r"], False),
        (["stem", "a", "r@r", "b", "r#1@r"], False),
        (["stem", "a", "r@r", "b", "r#1@r", "c", "r#2@r", "d", "r#3@r"], False),
        (["stem", "a", "r@s", "b", "r#1@s"], False),
        (["stem", "a", "b", "c"], True),  # not run at all
    ],
)
def test_runs_of_one_place_are_compared_by_what_comes_between(training, told):
    usual = run("stem", "a", "r@r", "b", "r#1@r", "c", "r#2@r")
    assert (another_meaning("r#1", usual, run(*training)) is None) == told


def test_every_kind_of_network_is_there():
    assert any(network.counted for network in modes.NETWORKS.values())
    assert not NETWORKS.keys() & modes.NETWORKS.keys()
