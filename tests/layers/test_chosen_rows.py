"""Which rows a network has chosen of an input, and that other rows are not compared."""

import pytest
import torch
import torch.nn.functional as F
from tests.layers.zoo.network import CLASSES, STEPS, WIDTH, Wave, inputs, tokens
from torch import nn

from buttress.layers import patching, sustainability, tolerance
from buttress.layers.chosen_rows import chosen_rows, same_choice
from buttress.layers.rows import UNPAIRED

SOME, OTHERS = torch.tensor([1, 3]), torch.tensor([1, 4])
CHOOSES = {
    "numbers": lambda h, rows: h[rows],
    "numbers of the second axis": lambda h, rows: h.T[:, rows],
    "a mask": lambda h, rows: h[torch.zeros(6, dtype=torch.bool).index_fill(0, rows, True)],
    "index_select": lambda h, rows: h.index_select(0, rows),
    "gather": lambda h, rows: h.gather(0, rows[:, None].expand(-1, 4)),
    "masked_select": lambda h, rows: h.masked_select(torch.zeros(6, 1, dtype=torch.bool).index_fill(0, rows, True)),
    "take": lambda h, rows: h.take(rows),
    "a row at a time": lambda h, rows: torch.stack([h[int(row)] for row in rows]),
    "rows of a list": lambda h, rows: torch.stack([h.unbind()[int(row)] for row in rows]),
    "a run of rows": lambda h, rows: h[int(rows[1]) : int(rows[1]) + 2],
}


@pytest.mark.parametrize("case", CHOOSES)
def test_the_same_rows_are_told_from_others_and_by_what_follows(case):
    h = torch.rand(6, 4, requires_grad=True)

    def value(rows):
        return torch.relu(CHOOSES[case](h * 2, rows) + 1).exp()[:, None]

    assert same_choice(chosen_rows(value(SOME)), chosen_rows(value(SOME)))
    assert not same_choice(chosen_rows(value(SOME)), chosen_rows(value(OTHERS)))
    assert chosen_rows(value(SOME).detach()) == ()


def test_what_was_chosen_before_the_last_choice_does_not_count():
    h = torch.rand(6, 4, requires_grad=True)

    def later(rows):
        return (h.index_add(0, rows, h[rows].exp()) * 2)[SOME]

    assert same_choice(chosen_rows(later(SOME)), chosen_rows(later(OTHERS)))


class TokenExperts(nn.Module):
    """Two experts for steps, to one of which each goes by its first feature."""

    def __init__(self):
        super().__init__()
        self.low, self.high = (nn.Sequential(nn.Linear(WIDTH, 5), nn.GELU()) for _ in range(2))
        self.head = nn.Linear(5, CLASSES)

    def forward(self, x):
        h = tokens(x).flatten(0, 1)
        out = h.new_zeros(len(h), 5)
        for expert, rows in zip((self.low, self.high), self.chosen(h), strict=True):
            out = out.index_add(0, rows, expert(h[rows]))
        return self.head(out.unflatten(0, (len(x), STEPS)).mean(1))

    def chosen(self, h):
        high = h[:, 0] > 0.5
        return (~high).nonzero().squeeze(1), high.nonzero().squeeze(1)


@pytest.fixture
def experts(nets):
    return nets.seeded(TokenExperts).eval()


def by_hand(network, x):
    """Layer -> the steps that an expert sees of one input (24,), and their values."""
    h = tokens(x)
    rows = dict(zip(("low.1", "high.1"), network.chosen(h), strict=True))
    return {name: (rows[name], F.gelu(network.get_submodule(name[:-2])[0](h[rows[name]]))) for name in rows}


@pytest.mark.parametrize("size", [4, 1])
def test_steps_are_compared_with_themselves_alone(experts, size):
    x, found = inputs(4), {"alike": 0, "others": 0}
    with torch.no_grad():
        data, x_adv = [(x, experts(x).argmax(1))], x + 0.2 * torch.sin(40 * x)
        profile = sustainability(experts, data, Wave(), batch_size=size)
        searched = tolerance(experts, data, Wave(), steps=1, bisections=1, batch_size=size)
        for k, (one, other) in enumerate(zip(x, x_adv, strict=True)):
            for name, (rows, clean) in by_hand(experts, one).items():
                others, moved = by_hand(experts, other)[name]
                alike = torch.equal(rows, others)
                found["alike" if alike else "others"] += len(rows) == len(others)
                truth = (clean - moved).norm() / clean.norm() if alike else torch.tensor(torch.nan)
                for values in (profile.values[0], searched.displacement):
                    at = profile.layers.index(name)
                    torch.testing.assert_close(values[at, k], truth, equal_nan=True, rtol=1e-4, atol=1e-6)
    assert min(found.values()) > 0
    assert profile.unpaired == {next(iter(profile.perturbations)): ["low.1", "high.1"]}


class MeanOfChosen(nn.Module):
    """The mean of those steps whose first feature is large, through an activation; the rest is affine."""

    def __init__(self):
        super().__init__()
        self.fc, self.head = nn.Linear(WIDTH, 5), nn.Linear(5, CLASSES)

    def forward(self, x):
        h = tokens(x)
        chosen = h[..., 0] > 0.5
        out = h.new_zeros(len(x), STEPS, 5)
        out[chosen] = F.gelu(self.fc(h[chosen]))
        return self.head(out.mean(1))


def test_tolerance_asks_nothing_of_the_attacked_pass(nets):
    """By hand: the distance to the nearest boundary, which is affine in the value, of steps whose number changes."""
    network, x = nets.seeded(MeanOfChosen).eval(), inputs(3)
    with torch.no_grad():
        y = network(x).argmax(1)
        found = tolerance(network, [(x, y)], Wave(), steps=4, bisections=3)
        for k, one in enumerate(x):
            h = tokens(one)
            value = F.gelu(network.fc(h[h[:, 0] > 0.5]))
            logits = network.head(value.sum(0) / STEPS)
            slopes = (network.head.weight[y[k]] - network.head.weight).norm(dim=1) * len(value) ** 0.5 / STEPS
            gaps = ((logits[y[k]] - logits) / slopes)[torch.arange(CLASSES) != y[k]]
            torch.testing.assert_close(found.rho[0, k], gaps.min() / value.norm(), rtol=0.04, atol=1e-6)
    assert bool(found.displacement.isnan().any())
    assert found.left_out == {}


def test_a_layer_of_which_nothing_can_be_paired_says_why(nets):
    class Largest(MeanOfChosen):
        """Sees another step of every input that is perturbed."""

        def forward(self, x):
            h = tokens(x).flatten(0, 1)
            row = h[:, 0].argmax()[None]
            return self.head(F.gelu(self.fc(h[row]))) + 0 * x[:, :CLASSES]

    network, x = nets.seeded(Largest).eval(), torch.zeros(1, STEPS * WIDTH)
    x[0, 8], x[0, 4] = 0.02, 0.01
    data = [(x, torch.zeros(1, dtype=torch.int64))]

    profile = sustainability(network, data, Wave(size=-5.0))
    assert profile.left_out == {"gelu": UNPAIRED.reason}
    assert patching(network, data, Wave(size=-5.0)).left_out == {"gelu": UNPAIRED.reason}
