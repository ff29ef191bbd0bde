"""The transfer matrix by known answers: linear networks, whose examples are known by hand."""

import itertools
from dataclasses import dataclass, field

import pytest
import torch

from buttress import audits, tasks
from buttress.attacks import Attack
from buttress.attacks.black_box.square import Square
from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base.statistics import interval
from buttress.errors import UserError
from buttress.jobs.transfer import Candidate, check_comparable, summary, transfer_matrix
from buttress.threat import Threat

EPS = 0.3
FREE = Threat(eps=EPS, box=None)
FIRST, SECOND = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.5, 0.4, -1.5])


def linear(w, bias=0.0):
    """Two classes by the sign of w x + bias."""
    model = torch.nn.Linear(len(w), 2)
    with torch.no_grad():
        model.weight.copy_(torch.stack([-w / 2, w / 2]))
        model.bias.copy_(torch.tensor([-bias / 2, bias / 2]))
    return model.eval()


@dataclass(frozen=True, kw_only=True)
class Counted(Attack):
    """One sign step, which remembers how many inputs each of its runs had."""

    threat: Threat = FREE
    runs: list = field(default_factory=list, compare=False)

    def perturb(self, oracle, x, y, random):
        self.runs.append(len(x))
        return x + self.threat.eps * oracle.loss_and_grad(x)[1].sign()


@pytest.fixture(scope="module")
def inputs():
    random = torch.Generator().manual_seed(5)
    x = torch.randn(120, 3, generator=random)
    return x, ((x @ (FIRST + SECOND)) > 0).long()


def candidates(inputs, **models):
    return {name: Candidate(audits.subject(model, [inputs])) for name, model in models.items()}


def by_hand(inputs, source, target):
    """A step of eps along the sign of the source's weights, against the target's margin: (both right, wrong)."""
    x, y = inputs
    side = 2.0 * y - 1
    margins = [side * (x @ w) for w in (source, target)]
    both = (margins[0] > 0) & (margins[1] > 0)
    return both, both & (margins[1] - EPS * (target @ source.sign()) < 0)


def test_two_linear_networks_by_hand(inputs):
    weights = {"first": FIRST, "second": SECOND}
    found = transfer_matrix(candidates(inputs, first=linear(FIRST), second=linear(SECOND)), [FGSM(threat=FREE)])
    for source, target in itertools.product(weights, repeat=2):
        cell = found[source].data["attacks"][0]["cells"][target]
        both, wrong = by_hand(inputs, weights[source], weights[target])
        assert (cell["inputs"], cell["beaten"]) == (int(both.sum()), int(wrong.sum()))
        assert (cell["low"], cell["high"]) == interval(cell["beaten"], cell["inputs"])
        assert cell["share"] == cell["beaten"] / cell["inputs"]
        _, own = by_hand(inputs, weights[source], weights[source])
        assert (cell["successful"], cell["carried"]) == (int((own & both).sum()), int((own & wrong).sum()))
    assert 0 < found["first"].data["attacks"][0]["cells"]["first"]["share"] < 1


def test_a_direction_that_helps_the_other_fools_it_nowhere(inputs):
    """Weights of which one is minus the other are never right together; at right angles in sign, nothing carries."""
    found = transfer_matrix(candidates(inputs, a=linear(FIRST), b=linear(-FIRST)), [FGSM(threat=FREE)])
    cell = found["a"].data["attacks"][0]["cells"]["b"]
    assert (cell["inputs"], cell["share"], cell["low"]) == (0, None, None)
    assert "it is right on no input that another network gets right" in found["a"].verdict
    assert summary(found).startswith("No example could be tried on another network")


@pytest.mark.parametrize("attack", [FGSM(threat=FREE), PGD(threat=FREE, steps=3), Square(threat=FREE, queries=20)])
def test_of_identical_networks_every_cell_is_the_diagonal(inputs, attack):
    found = transfer_matrix(candidates(inputs, a=linear(FIRST), b=linear(FIRST), c=linear(FIRST)), [attack])
    cells = [cell for finding in found.values() for cell in finding.data["attacks"][0]["cells"].values()]
    assert len(cells) == 9
    assert all(cell == cells[0] for cell in cells)
    assert all(finding.data["beyond_own"] == [] for finding in found.values())


def test_nothing_fools_a_constant_network(inputs):
    """It is right on one class, by far; what is crafted on it, along no gradient, moves nothing else either."""
    found = transfer_matrix(
        candidates(inputs, line=linear(FIRST), constant=linear(0 * FIRST, 9.0)), [FGSM(threat=FREE)]
    )
    x, y = inputs
    right = (2 * y - 1) * (x @ FIRST) > 0
    cell = found["line"].data["attacks"][0]["cells"]["constant"]
    assert (cell["inputs"], cell["beaten"]) == (int((right & (y == 1)).sum()), 0)
    assert found["constant"].data["attacks"][0]["cells"]["constant"]["inputs"] == int((y == 1).sum())


def test_the_order_of_networks_changes_nothing(inputs):
    models = {"a": linear(FIRST), "b": linear(SECOND), "c": linear(FIRST + SECOND)}
    attacks = [PGD(threat=FREE, steps=3), Square(threat=FREE, queries=10)]
    forward = transfer_matrix(candidates(inputs, **models), attacks)
    backward = transfer_matrix(candidates(inputs, **dict(reversed(models.items()))), attacks)
    for name in models:
        assert forward[name].data["attacks"] == backward[name].data["attacks"]


def test_of_several_networks_the_most_and_the_least_is_told(inputs):
    models = {"a": linear(FIRST), "b": linear(SECOND), "c": linear(FIRST + SECOND)}
    found = transfer_matrix(candidates(inputs, **models), [FGSM(threat=FREE)])
    shares = {
        (source, target): cell["share"]
        for source, finding in found.items()
        for target, cell in finding.data["attacks"][0]["cells"].items()
        if source != target
    }
    first, on_first = max(shares, key=shares.get)
    text = summary(found)
    assert text == summary(dict(reversed(found.items())))
    assert f"those crafted on {first} fool {on_first} on {max(shares.values()):.1%} (" in text
    assert f"), the most of all pairs, and those crafted on b fool a on {min(shares.values()):.1%} (" in text
    assert shares["a", "b"] == shares["b", "a"] == min(shares.values())  # of equals the last by name is told
    assert text.endswith("), the least of all pairs, of the inputs that both get right.")


def test_examples_of_another_that_do_better_are_told_as_masking(inputs):
    """A network that answers right and gives a gradient of its own making: examples of an honest twin beat it."""

    class Astray(torch.nn.Linear):
        def forward(self, x):
            turned = x.flip(1)
            return super().forward(x.detach() + 0 * x) + (turned - turned.detach()) @ torch.ones(3, 2) * torch.tensor(
                [1.0, -1.0]
            )

    masked = Astray(3, 2).eval()
    masked.load_state_dict(linear(FIRST).state_dict())
    found = transfer_matrix(candidates(inputs, honest=linear(FIRST), masked=masked), [FGSM(threat=FREE)])
    (test,) = found["masked"].data["beyond_own"]
    assert (test["source"], test["target"]) == ("honest", "masked")
    assert found["masked"].severity == "warning"
    assert "crafted on honest are more successful on masked than its own" in found["masked"].verdict
    assert test["text"] in summary(found)
    assert found["honest"].data["beyond_own"] == []


def test_a_network_without_gradients_is_tried_on_but_crafts_nothing_by_them(inputs):
    class Rounded(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x).detach()

    closed = Rounded(3, 2).eval()
    closed.load_state_dict(linear(SECOND).state_dict())
    found = transfer_matrix(
        candidates(inputs, line=linear(FIRST), closed=closed), [FGSM(threat=FREE), Square(threat=FREE, queries=10)]
    )
    gradient, queries = found["closed"].data["attacks"]
    assert (gradient["cells"], gradient["left_out"]) == ({}, "the network gives no gradients")
    assert set(queries["cells"]) == {"line", "closed"}
    assert found["line"].data["attacks"][0]["cells"]["closed"]["beaten"] == int(by_hand(inputs, FIRST, SECOND)[1].sum())
    assert "No example of FGSM crafted on closed was tried on others: the network gives no" in found["closed"].verdict


def test_what_an_audit_has_kept_is_not_crafted_again(inputs, tmp_path):
    """Once for each network; a third network of which nothing was kept is attacked, and nothing is written for it."""
    attack = Counted(threat=FREE)
    for name, w in (("a", FIRST), ("b", SECOND)):
        audits.subject(linear(w), [inputs], folder=tmp_path / name).attacked(attack)
    models = {"a": linear(FIRST), "b": linear(SECOND), "c": linear(FIRST + SECOND)}
    both = {name: Candidate(audits.subject(model, [inputs]), tmp_path / name) for name, model in models.items()}
    attack.runs.clear()
    found = transfer_matrix(both, [attack])
    assert attack.runs == [len(inputs[0])]
    assert [finding.data["attacks"][0]["kept"] for finding in found.values()] == [True, True, False]
    assert not (tmp_path / "c").exists()
    fresh = transfer_matrix(candidates(inputs, **models), [attack])
    for name in models:
        assert found[name].data["attacks"][0]["cells"] == fresh[name].data["attacks"][0]["cells"]


def test_what_no_example_fits_all_of_is_refused(inputs):
    x, y = inputs
    one = audits.subject(linear(FIRST), [inputs])
    wider = audits.subject(linear(torch.ones(4)), [(torch.randn(120, 4), y)])
    others = {
        "inputs of a are 3, those of b 4": wider,
        "a and b are on other inputs": audits.subject(linear(FIRST), [(x + 1, y)]),
        "a has 2 outputs, b 5": audits.subject(torch.nn.Linear(3, 5).eval(), [inputs]),
        "a is for classification, b for multi-label": audits.subject(
            linear(FIRST), [(x, torch.stack([y, y], 1))], task=tasks.MultiLabel()
        ),
    }
    for words, other in others.items():
        with pytest.raises(UserError, match=words):
            check_comparable({"a": one, "b": other})
    one.tokens = torch.zeros(120, 3, dtype=torch.long)
    with pytest.raises(UserError, match="a reads tokens"):
        check_comparable({"a": one, "b": one})
