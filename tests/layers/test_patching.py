"""Patching against networks in which what is put back, and what it restores, can be worked out by hand."""

import json
import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from buttress.attacks import PGD, Perturbation
from buttress.audits.base.subject import Stored
from buttress.errors import UserError
from buttress.layers import layer_names, patching, tolerance
from buttress.threat import Threat


@dataclass(frozen=True, kw_only=True)
class To(Perturbation):
    """Puts given inputs in the place of those that it gets, by their ids."""

    inputs: tuple

    def perturb(self, oracle, x, y, random):
        return torch.tensor(self.inputs, dtype=x.dtype)[: len(x)].view_as(x)


def scored(score):
    """Two logits of which the second is larger where the score is positive."""
    return torch.stack([-score, score], 1)


def patch(model, clean, attacked, layers, y=None, **settings):
    x = torch.tensor(clean)
    y = torch.ones(len(x), dtype=torch.int64) if y is None else torch.tensor(y)
    return patching(model, [(x, y)], To(inputs=tuple(map(tuple, attacked))), layers, **settings)


class Chain(nn.Module):
    """Affine all along."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(4)
            self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x):
        return self.c(self.b(self.a(x)))


def test_in_an_affine_chain_every_layer_needs_the_dose_at_which_the_score_is_0():
    """The score is affine in the dose, from that of the attacked input to that of the clean one."""
    model = Chain()
    random = torch.Generator().manual_seed(0)
    x, x_adv = torch.randn(60, 4, generator=random), torch.randn(60, 4, generator=random)
    with torch.no_grad():
        before, after = (model(part).diff(dim=1).squeeze(1) for part in (x, x_adv))
    y = (before > 0).long()
    before, after = before.abs(), after * (2 * y - 1)
    beaten = after < 0
    needed = (-after / (before - after))[beaten]
    found = patch(model, x.tolist(), x_adv.tolist(), ["a", "b"], y.tolist(), doses=10)
    assert found.beaten == int(beaten.sum()) > 5
    assert found.crossed == [True, True]
    for k, dose in enumerate(found.doses):
        assert torch.equal(found.right[:, k].bool(), (needed < dose).expand(2, -1))
    torch.testing.assert_close(found.recovery[0], torch.stack([needed < d for d in found.doses]).double().mean(0))
    assert found.restored.tolist() == [1.0, 1.0]
    below = max(d for d, share in zip([0.0, *found.doses], [0.0, *found.curve[0].tolist()], strict=True) if share < 0.5)
    assert below < float(found.half_dose[0]) <= below + 0.1


class Branches(nn.Module):
    """relu(x0) + 2 relu(x1) - 2."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.ReLU(), nn.ReLU()

    def forward(self, x):
        return scored(self.one(x[:, 0]) + 2 * self.two(x[:, 1]) - 2)


def test_of_two_branches_each_restores_what_its_clean_value_is_worth():
    """Clean scores 1; attacked -1, -2, -1.5 and, not beaten, 0.5. The last input is wrong from the first."""
    clean = [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]
    attacked = [[1.0, 0.0], [0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 0.0]]
    found = patch(Branches(), clean, attacked, "activations", doses=4)
    assert (found.layers, found.beaten, found.inputs) == (["one", "two"], 3, 5)
    # one: 1 + 0 - 2 is wrong for all; two: 1 + 2 - 2, 0 + 2 - 2 (the first logit wins at 0), 0.5 + 2 - 2.
    assert found.right[:, -1].tolist() == [[0, 0, 0], [1, 0, 1]]
    # two at a dose t adds 2 t to -1, -2 and -1.5.
    assert found.right[1].T.tolist() == [[0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert found.recovery.tolist() == [[0, 0, 0], [0.5, 0, 0.25]]
    # The curve of the second is 0, 0, 1/3, 2/3.
    assert found.half_dose.tolist() == [math.inf, pytest.approx(0.875)]
    assert found.to_dict()["half_dose"] == [None, pytest.approx(0.875)]
    assert [(p.sender, p.receiver, p.share) for p in found.paths] == [
        ("one", None, 0.0),
        ("two", None, pytest.approx(2 / 3)),
    ]


class Shortcut(nn.Module):
    """a = relu(x), b = relu(2 a - 1), score a + b - 1.2."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.ReLU(), nn.ReLU()

    def forward(self, x):
        a = self.a(x[:, 0])
        return scored(a + self.b(2 * a - 1) - 1.2)


def test_paths_are_patched_one_at_a_time():
    """Clean: a = 1 and b = 1. Attacked, the first: a = 0.4, b = 0; the second: a = 0.1, b = 0."""
    found = patch(Shortcut(), [[1.0], [1.0]], [[0.4], [0.1]], "activations")
    shares = {(p.sender, p.receiver): p.share for p in found.paths}
    assert shares == {
        ("a", "b"): 0.5,  # 0.4 + 1 - 1.2 and 0.1 + 1 - 1.2
        ("a", None): 0.0,  # 1 + 0 - 1.2
        ("b", None): 0.5,  # as a to b, which sees nothing else
    }
    assert found.restored.tolist() == [1.0, 0.5]
    assert found.crossed == [True, False]


def test_in_a_chain_only_neighbours_have_a_path():
    found = patch(Chain(), [[1.0] * 4], [[-1.0] * 4], ["a", "b", "c"], y=[int(Chain()(torch.ones(1, 4)).argmax())])
    assert [(p.sender, p.receiver) for p in found.paths] == [("a", "b"), ("b", "c"), ("c", None)]


def test_the_paths_that_carry_most_are_patched_first():
    clean, attacked = [[1.0], [1.0]], [[0.4], [0.1]]
    found = patch(Shortcut(), clean, attacked, "activations", paths=2)
    # a takes b all the way (1 of its displacement), b takes the output part of it, as a does by itself: 0.6 of 1.6.
    assert [(p.sender, p.receiver) for p in found.paths] == [("a", "b"), ("b", None)]
    assert found.paths_left_out == 1
    assert patch(Shortcut(), clean, attacked, "activations", paths=0).paths == []


class Wide(nn.Module):
    """Twenty units, of which a weighted sum decides."""

    def __init__(self):
        super().__init__()
        self.units = nn.ReLU()
        self.weights = torch.cat([torch.tensor([5.0, 1.0]), torch.full((18,), 0.1)])

    def forward(self, x):
        return scored(self.units(x) @ self.weights - 6)


def test_few_are_the_most_displaced_units():
    """Two of twenty: the first two where these are displaced most, and two that decide nothing where they are not."""
    clean = [[1.0] * 20] * 2
    attacked = [[0.0, 0.1] + [0.5] * 18, [0.6, 0.6] + [0.0, 0.0] + [0.8] * 16]
    found = patch(Wide(), clean, attacked, "activations")
    # With few back: 5 + 1 + 0.9 - 6 in the first, 3 + 0.6 + 0.2 + 1.28 - 6 in the second.
    assert found.few.tolist() == [[1.0, 0.0]]
    assert found.restored.tolist() == [1.0]


class Overflowing(nn.Module):
    """One layer, infinite for large inputs; score 1 less it, 5 at the most."""

    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, x):
        return scored(1 - self.relu(x[:, 0] * 1e30).clamp(max=5))


def test_the_whole_clean_value_takes_the_place_of_an_infinite_one():
    found = patch(Overflowing(), [[0.0]], [[1e20]], "activations", doses=2)
    assert found.right.tolist() == [[[0.0], [1.0]]]


def test_without_a_beaten_input_nothing_is_told():
    found = patch(Branches(), [[1.0, 1.0]], [[1.0, 0.9]], "activations")
    data = found.to_dict()
    assert (data["beaten"], data["inputs"]) == (0, 1)
    assert data["restored"] == data["recovery"] == data["half_dose"] == data["few"] == [None, None]
    assert all(math.isnan(path.share) for path in found.paths)
    json.dumps(data, allow_nan=False)


class Series(nn.Module):
    """Layers whose inputs are the second axis, or are folded together with the time steps, and a constant one."""

    def __init__(self, x, plain=False):
        super().__init__()
        self.plain, self.middle = plain, 0.0
        with torch.random.fork_rng():
            torch.manual_seed(2)
            self.first, self.second = nn.Linear(3, 6), nn.Linear(6, 5)
            self.weights, self.gate = torch.randn(5), torch.randn(5)
        with torch.no_grad():
            self.middle = float(self(x)[:, 1].median()) - 1e-3

    def forward(self, x):  # (N, T, 3)
        if self.plain:
            h = self.first(x).relu()
            h = self.second(h).tanh()
        else:
            h = self.first(x.transpose(0, 1)).relu().transpose(0, 1)
            h = self.second(h.flatten(0, 1)).tanh().unflatten(0, x.shape[:2])
        return scored((h.mean(1) * self.gate.sigmoid()) @ self.weights - self.middle)


def series(n, plain):
    """As many inputs as time steps, so that no length tells the two apart."""
    x = torch.randn(n, n, 3, generator=torch.Generator().manual_seed(5))
    model = Series(x, plain)
    with torch.no_grad():
        return model, [(x, model(x).argmax(1))], PGD(threat=Threat(eps=0.5, box=None), steps=5)


def test_the_inputs_may_be_anywhere_in_a_layer():
    one, other = (patching(*series(9, plain), "activations") for plain in (False, True))
    assert one.beaten > 3
    assert [name.partition("#")[0] for name in one.layers] == ["relu", "tanh"]
    assert torch.equal(one.right, other.right)
    assert torch.equal(one.few, other.few)
    assert list(one.left_out.values()) == ["does not depend on the input"]
    assert one.restored.tolist() == [1.0, 1.0]
    assert {path.sender for path in one.paths} == set(one.layers)


def test_batches_change_nothing_and_the_model_comes_back(mixed, inputs, mixed_layers, count_hooks):
    with torch.no_grad():
        y = mixed.eval()(inputs.clone()).argmax(1)
    mixed.train()
    attack = PGD(threat=Threat(eps=3, box=None), steps=5)
    before = {name: value.clone() for name, value in mixed.state_dict().items()}
    whole, parts = (patching(mixed, [(inputs, y)], attack, batch_size=size) for size in (7, 3))
    assert whole.beaten > 2
    assert whole.layers == mixed_layers
    assert torch.equal(whole.right, parts.right)
    assert [(p.sender, p.receiver, p.share) for p in whole.paths] == [
        (p.sender, p.receiver, p.share) for p in parts.paths
    ]
    assert all(torch.equal(before[name], value) for name, value in mixed.state_dict().items())
    assert mixed.training
    assert count_hooks(mixed) == 0


def test_by_input_the_margin_is_no_larger_than_what_the_dose_leaves():
    """What is left of the displacement at the largest dose at which an input is wrong is one that beats the layer."""
    model, data, attack = series(20, plain=True)
    layers = layer_names(model, data[0][0])[:2]
    found, searched = patching(model, data, attack, layers, doses=8), tolerance(model, data, attack, layers)
    assert found.beaten > 5
    left = 1 - torch.tensor(found.doses)
    wrong_with = torch.where(found.right == 0, left[None, :, None], torch.inf).amin(1).clamp(max=1)
    beaten = searched.success & ~searched.wrong
    assert bool((searched.margin[:, beaten] <= wrong_with * 1.05).all())


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"doses": 0}, "doses must be"), ({"paths": -1}, "paths must be"), ({"batch_size": 0}, "batch_size must be")],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        patch(Branches(), [[1.0, 1.0]], [[0.0, 0.0]], "activations", **settings)


def test_no_data_are_refused():
    with pytest.raises(UserError, match="a layer analysis needs data; it holds no inputs"):
        patching(Branches(), [], To(inputs=()))


class Masked(nn.Module):
    """b = max(a0, a1) with a = relu(x), score b - 1: an input's smaller unit is hidden."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.ReLU(), nn.ReLU()

    def forward(self, x):
        return scored(self.b(self.a(x).amax(1)) - 1)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_an_input_that_hides_a_layer_does_not_take_it_from_the_others(size):
    """The third input's clean value of a changes nothing behind the maximum."""
    clean, attacked = [[2.0, 0.0]] * 2 + [[2.0, 0.2], [2.0, 0.0]], [[0.0, 0.0], [0.2, 0.0], [2.0, 0.7], [0.5, 0.0]]
    x = torch.tensor(clean)
    stored = Stored(torch.arange(4), torch.tensor(attacked))
    data = [(x, torch.ones(4, dtype=torch.int64))]
    found = patching(Masked(), data, stored, batch_size=size, doses=4)
    assert (found.layers, found.left_out, found.beaten) == (["a", "b"], {}, 3)
    # From 0, 0.2 and 0.5 at a dose t to 2 t, 0.2 + 1.8 t and 0.5 + 1.5 t; the score is above 0 from 1 on, exclusively.
    right = [[0, 0, 0], [0, 1, 1], [1, 1, 1], [1, 1, 1]]
    assert found.right.tolist() == [right, right]
    searched = tolerance(Masked(), data, stored, steps=2, bisections=1, batch_size=size)
    assert (searched.layers, searched.left_out) == (["a", "b"], {})
    torch.testing.assert_close(searched.rho[1], torch.full((4,), 0.5), rtol=0.04, atol=0)


class Routes(nn.Module):
    """a = relu(x); behind it c, a threshold at 1, for batches with a large x1, else b = relu(a); score that - 0.5."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.ReLU(), nn.ReLU(), nn.Threshold(1.0, 0.0)

    def forward(self, x):
        a = self.a(x[:, 0])
        return scored((self.c(a) if bool((x[:, 1] > 0.5).any()) else self.b(a)) - 0.5)


def test_a_path_that_only_later_batches_have_is_patched_and_told_with_its_number_of_inputs():
    x = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 1.0], [2.0, 1.0]])
    x_adv = torch.tensor([[0.1, 0.0], [0.2, 0.0], [0.9, 1.0], [1.1, 1.0]])  # the last is not beaten
    y = torch.ones(4, dtype=torch.int64)
    found = patching(Routes(), [(x[:2], y[:2]), (x[2:], y[2:])], Stored(torch.arange(4), x_adv))
    shares = {(path.sender, path.receiver): (path.share, path.inputs) for path in found.paths}
    assert shares == {
        ("a", "b"): (1.0, 2),
        ("b", None): (1.0, 2),
        ("a", "c"): (1.0, 1),
        ("c", None): (1.0, 1),
    }
    assert found.paths_left_out == 0
    assert [path["inputs"] for path in found.to_dict()["paths"]] == [path.inputs for path in found.paths]
    assert dict(zip(found.layers, found.to_dict()["called"], strict=True)) == {"a": 3, "b": 2, "c": 1}


class Cancelling(nn.Module):
    """a = relu(x0), b = relu(x1), c = relu(a + b), score c - 2 b."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.ReLU(), nn.ReLU(), nn.ReLU()

    def forward(self, x):
        a, b = self.a(x[:, 0]), self.b(x[:, 1])
        return scored(self.c(a + b) - 2 * b)


def test_a_path_to_a_receiver_that_the_attack_leaves_as_it_is_comes_last():
    """c is 3 in both passes, while a and b alone each move it; the score is 1 and -1."""
    clean, attacked = [[2.0, 1.0]], [[1.0, 2.0]]
    every = patch(Cancelling(), clean, attacked, "activations").paths
    assert [(p.sender, p.receiver) for p in every] == [("a", "c"), ("b", "c"), ("b", None)]
    found = patch(Cancelling(), clean, attacked, "activations", paths=1)
    assert [(p.sender, p.receiver) for p in found.paths] == [("b", None)]
    assert found.paths_left_out == 2
