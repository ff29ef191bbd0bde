"""Ratings know what a guess gets: a constant answer, a network at chance, an imbalanced set, too few inputs."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from buttress import audits, registry, tasks
from buttress.attacks.gradient.fgsm import FGSM
from buttress.audits.base.finding import Finding
from buttress.audits.base.rating import at_chance, chance, chance_sentence, kept, rate
from buttress.audits.base.statistics import accuracy
from buttress.audits.base.subject import Audit
from buttress.audits.robustness import Robustness
from buttress.data.dataset import Split
from buttress.errors import UserError
from buttress.threat import Threat

ORDER = ["good", "info", "warning", "bad"]


def share(hits, count):
    return accuracy(torch.arange(count) < hits)


@pytest.mark.parametrize(
    ("counts", "classes", "expected"),
    [([10, 10], 2, 0.5), ([19, 1], 2, 0.95), ([5] * 10, 10, 0.1), ([7], 4, 0.25), ([3, 3, 6], 100, 0.5)],
)
def test_chance_is_the_best_constant_answer(counts, classes, expected):
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    assert chance(tasks.classification, y, classes) == pytest.approx(expected)


def test_without_classes_there_is_no_chance():
    assert chance(tasks.Denoising(), torch.rand(4, 1, 2, 2), 1) is None
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
    ],
)
def test_ratings_of_a_thousand_inputs(clean, robust, guess, severity):
    assert rate(share(clean, 1000), share(robust, 1000), guess) == severity


def test_too_few_inputs_are_told_from_a_network_at_chance():
    assert rate(share(4, 4), share(4, 4), 0.5) == "warning"
    assert chance_sentence(share(4, 4), 0.5).startswith("The inputs are too few: 100.0% (39.8% to 100.0%) ")
    assert chance_sentence(share(101, 1000), 0.1).startswith("The network is at chance: 10.1% (8.3% ")
    assert chance_sentence(share(130, 1000), 0.1) == ""


@given(
    clean=st.integers(0, 200),
    lost=st.integers(0, 200),
    more=st.integers(0, 200),
    guess=st.sampled_from([None, 0.1, 0.5]),
)
def test_a_lower_robust_accuracy_is_never_rated_better_and_chance_never_good(clean, lost, more, guess):
    before = share(clean, 200)
    one, other = (share(max(0, clean - lost - further), 200) for further in (0, more))
    assert ORDER.index(rate(before, one, guess)) <= ORDER.index(rate(before, other, guess))
    assert 0 <= kept(before, other, guess) <= kept(before, one, guess) <= 1
    if at_chance(before, guess):
        assert rate(before, one, guess) != "good"


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
