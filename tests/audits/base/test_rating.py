"""Ratings know what a guess gets: a constant answer, a network at chance, an imbalanced set, too few inputs."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from buttress import audits, registry, tasks
from buttress.attacks.corruptions.noises import Gaussian
from buttress.attacks.gradient.fgsm import FGSM
from buttress.audits.base.audit import Audit
from buttress.audits.base.finding import Finding
from buttress.audits.base.rating import at_chance, chance_sentence, kept, rate
from buttress.audits.base.statistics import accuracy
from buttress.audits.robustness import Robustness
from buttress.audits.unseen import Unseen
from buttress.data.dataset import Split
from buttress.errors import UserError
from buttress.threat import Threat

ORDER = ["good", "info", "warning", "bad"]


def share(hits, count):
    return accuracy(torch.arange(count) < hits)


def test_where_no_chance_is_known_it_counts_as_nothing():
    assert rate(share(90, 100), share(60, 100), None) == "good"
    assert rate(share(90, 100), share(40, 100), None) == "warning"
    assert rate(share(0, 100), share(0, 100), None) == "bad"


@pytest.mark.parametrize(
    ("clean", "robust", "guess", "severity"),
    [
        (100, 100, 0.1, "bad"),  # at chance, which nothing changes
        (110, 105, 0.1, "bad"),  # not told from chance
        (900, 900, 0.95, "bad"),  # less than the most frequent class alone
        (880, 150, 0.1, "bad"),  # 6 % of what is above chance is left
        (880, 300, 0.1, "warning"),
        (760, 608, 0.1, "good"),
        (200, 150, 0.1, "warning"),  # half of little
        (900, 500, 0.5, "bad"),  # as robust as one answer for all
        (900, 600, 0.5, "warning"),
        (900, 800, 0.5, "good"),
        (550, 545, 0.5, "warning"),  # nothing is lost of next to nothing
        (740, 740, 0.5, "warning"),
        (908, 907, 0.9, "bad"),
        (970, 960, 0.9, "good"),
        (550, 550, 0.02, "good"),  # fifty classes
        (1000, 1000, 1.0, "warning"),  # a perfect network, where one answer for all is perfect as well
        (990, 990, 1.0, "bad"),
    ],
)
def test_ratings_of_a_thousand_inputs(clean, robust, guess, severity):
    assert rate(share(clean, 1000), share(robust, 1000), guess) == severity


def test_too_few_inputs_are_told_from_a_network_at_chance():
    assert rate(share(4, 4), share(4, 4), 0.5) == "warning"
    assert chance_sentence(share(4, 4), 0.5).startswith("The inputs are too few: 100.0% (39.8% to 100.0%) ")
    assert chance_sentence(share(101, 1000), 0.1).startswith("The network is at chance: 10.1% (8.3% ")
    worse = chance_sentence(share(4, 40), 0.5)
    assert worse.startswith("The network is worse than chance: 10.0% (2.8% to 23.7%) classified correctly is less than")
    assert chance_sentence(share(130, 1000), 0.1) == ""
    easy = "The task is too easy on these inputs: 100.0% (39.8% to 100.0%) within 1 cannot be told from the 100.0% of "
    assert chance_sentence(share(4, 4), 1.0, "within 1") == easy + "one answer for all."


@given(
    clean=st.integers(0, 200),
    lost=st.integers(0, 200),
    more=st.integers(0, 200),
    guess=st.sampled_from([None, 0.02, 0.1, 0.5, 0.95, 1.0]),
)
def test_a_lower_robust_accuracy_is_never_rated_better_and_chance_never_good(clean, lost, more, guess):
    before = share(clean, 200)
    one, other = (share(max(0, clean - lost - further), 200) for further in (0, more))
    assert ORDER.index(rate(before, one, guess)) <= ORDER.index(rate(before, other, guess))
    assert 0 <= kept(before, other, guess) <= kept(before, one, guess) <= 1
    if at_chance(before, guess):
        assert rate(before, one, guess) != "good"
    if rate(before, one, guess) == "good":  # half of what lies between chance and 1
        assert one["accuracy"] - (guess or 0) >= (1 - one["accuracy"]) - 1e-9


@pytest.fixture(scope="module")
def guessing(nets):
    """A network of 10 classes that says 3 of every picture, whatever is done to it, and 100 pictures, 10 a class."""
    model = nets.linear(torch.zeros(10, 36), 5.0 * torch.arange(10).eq(3))
    y = torch.arange(100) % 10
    return model, Split(torch.rand(100, 1, 6, 6, generator=torch.Generator().manual_seed(0)), y, torch.arange(100))


class Content(Audit):
    """An audit that likes everything, and tells an accuracy where it is given the chance to."""

    def __init__(self, **data):
        self.data = data

    def ask(self, subject):
        return Finding("content", "Content", "All is well.", "good", self.data)


def test_a_network_at_chance_is_told_so_and_is_good_in_no_finding(guessing):
    """10 % clean and 10 % robust is no robustness, though nothing is lost; an audit of a user's own knows it too."""
    model, split = guessing
    questions = [Robustness(attacks=[FGSM(threat=Threat(eps=0.1))]), Content(chance=0.1)]
    for finding in audits.run(model, split, questions):
        assert "The network is at chance: 10.0% (4.9% to 17.6%) classified correctly cannot be told" in finding.verdict
        assert finding.severity in ("warning", "bad")
    assert audits.run(model, split, questions)[0].severity == "bad"
    (other,) = audits.run(model, split, [Content()])  # what it says is no accuracy
    assert (other.severity, other.verdict) == ("good", "All is well.")


def constant_networks(nets):
    """For each registered task that knows chance: a network that always gives the best answer, and its inputs."""
    random = torch.Generator().manual_seed(0)
    four = torch.randint(4, (120,), generator=random)
    labels = (torch.rand(120, 3, generator=random) < 0.2).long()
    values = torch.rand(120, generator=random)
    yield tasks.classification, four, 5.0 * torch.eye(4)[four.bincount().argmax()]
    yield tasks.Ordinal(), four, torch.tensor([0.0, 0.0, 5.0, 0.0])
    yield tasks.Ordinal(), four.clamp(max=2), torch.tensor([0.0, 5.0, 0.0])
    yield tasks.MultiLabel(), labels, -torch.ones(3)
    yield tasks.MultiLabel(wrong="all"), labels, -torch.ones(3)
    yield tasks.Regression(), values, torch.tensor([0.5])
    yield tasks.Regression(tolerance=0.5), values, torch.tensor([0.5])
    yield tasks.Regression(tolerance=0.3), torch.stack([values, values.flip(0)], 1), torch.tensor([0.5, 0.5])


def test_a_constant_answer_is_good_in_no_task(nets):
    x = torch.rand(120, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    known = set()
    for task, y, answer in constant_networks(nets):
        model = nets.linear(torch.zeros(len(answer), 9), answer)
        (finding,) = audits.run(model, [(x, y)], [Robustness(attacks=[FGSM(threat=Threat(eps=0.1))])], task=task)
        assert finding.severity in ("bad", "warning"), task
        assert "cannot be told from the" in finding.verdict or "is less than the" in finding.verdict
        known.add(task.label())
    assert known == set(tasks.names()) - {"denoising"}  # which knows none


def test_unseen_is_not_good_either_for_a_network_barely_above_chance(nets):
    """2500 inputs of two classes, 55 % right by a feature that corruptions leave alone."""
    y = torch.arange(2500) % 2
    side = torch.where(torch.arange(2500) % 20 < 11, y, 1 - y)
    x = side.double().view(-1, 1, 1, 1).expand(-1, 1, 2, 2).float()
    model = nets.linear(torch.tensor([[-1.0] * 4, [1.0] * 4]), torch.tensor([2.0, -2.0]))
    question = Unseen(corruptions=[Gaussian(std=0.01)], styles=[], attacks=[], unseen=[])
    (finding,) = audits.run(model, [(x, y)], [question])
    assert finding.severity == "warning"


CHEAP = {
    "adaptive": {"steps": 2, "restarts": 1, "queries": 5, "decisions": 0, "corners": 5, "jitters": 0, "curve": False},
    "masking": {"inputs": 20},
}


@pytest.mark.parametrize("name", registry.audit.names())
def test_no_registered_audit_rates_chance_good(name, guessing):
    model, split = guessing
    member = registry.audit.get(name)
    needed = [f.name for f in dataclasses.fields(member) if f.default is f.default_factory is dataclasses.MISSING]
    if needed:  # a file of examples, say
        return
    try:
        finding = member(**CHEAP.get(name, {}))(model, split, limit=20)
    except UserError:  # it is about other networks
        return
    assert finding.severity != "good" or "chance" not in finding.data
    assert ("at chance" in finding.verdict) == ("chance" in finding.data)
