"""How good an accuracy under attack is, beside the accuracy without one and beside what a guess gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from buttress.audits.base.finding import Finding, Severity
from buttress.audits.base.statistics import accuracy
from buttress.tasks import Task

if TYPE_CHECKING:
    from buttress.audits.base.subject import Subject

Figure = Mapping[str, float]  # an accuracy with its interval: "accuracy", "low", "high"

_BAD, _GOOD = 0.1, 0.5  # shares of what is above chance without attack: below the first is bad, from the second good


def chance(task: Task, y: Tensor, classes: int) -> float | None:
    """The accuracy of the best answer that is the same for all inputs: the share of the most frequent class.

    Where one class only occurs, a network that was trained on all cannot know that: chance is 1 over the number of
    classes then. None for a task in which not one class of several is right.

    Args:
        task: what the network is for.
        y: (N,) the truth.
        classes: how many the network tells apart.
    """
    if not task.classes:
        return None
    counts = y.long().bincount(minlength=1)
    share = float(counts.max()) / len(y)
    return share if share < 1 else 1 / classes


def at_chance(clean: Figure, guess: float | None) -> bool:
    """Whether an accuracy without attack cannot be told from that of a guess: its interval reaches down to it."""
    return guess is not None and clean["low"] <= guess


def rate(clean: Figure, robust: Figure, guess: float | None) -> Severity:
    """Rate an accuracy under attack, or otherwise perturbed.

    What is rated is how far it is above chance, as a share of what lies between chance and 1 (as Cohen's kappa corrects
    for chance, Educational and Psychological Measurement 20, 1960): one answer for all inputs is robust to every
    attack.

    Args:
        clean: the accuracy without attack, with its interval.
        robust: the accuracy under attack, likewise.
        guess: the accuracy of a guess, see `chance`.

    Returns:
        "bad" for a network at chance, and where less than a tenth is left of what the network is above chance;
        "warning" where less than half of that is left, where fewer than half of the inputs are robust, and where the
        inputs are too few to tell an accuracy from chance; "good" else.
    """
    if at_chance(clean, guess):
        return "bad" if _above(clean["high"], guess) < _GOOD else "warning"
    share = kept(clean, robust, guess)
    if share < _BAD:
        return "bad"
    shown = guess is None or robust["low"] > guess
    return "good" if shown and share >= _GOOD and robust["accuracy"] >= 0.5 else "warning"


def kept(clean: Figure, perturbed: Figure, guess: float | None) -> float:
    """What is left, under a perturbation, of what an accuracy is above chance: a share of 1; 0 where nothing is."""
    before = _above(clean["accuracy"], guess)
    return _above(perturbed["accuracy"], guess) / before if before else 0.0


def chance_sentence(clean: Figure, guess: float | None) -> str:
    """A sentence for a network whose accuracy cannot be told from chance; empty for others."""
    if guess is None or not at_chance(clean, guess):
        return ""
    reason = "The network is at chance" if _above(clean["high"], guess) < _GOOD else "The inputs are too few"
    figure = f"{clean['accuracy']:.1%} ({clean['low']:.1%} to {clean['high']:.1%}) classified correctly"
    return f"{reason}: {figure} cannot be told from the {guess:.1%} of one answer for all."


def beside_chance(finding: Finding, subject: Subject) -> Finding:
    """The finding; one that tells an accuracy, and so has the ``chance`` in its data, is not "good" at chance.

    A sentence says so then.
    """
    if "chance" not in finding.data:
        return finding
    clean = accuracy(~subject.task.is_adversarial(subject.logits, subject.y))
    sentence = chance_sentence(clean, subject.chance)
    if not sentence:
        return finding
    severity = "warning" if finding.severity == "good" else finding.severity
    return replace(finding, verdict=f"{finding.verdict} {sentence}", severity=severity)


def _above(accuracy: float, guess: float | None) -> float:
    """How far an accuracy is above chance, from 0 to 1."""
    lowest = guess or 0.0
    return max(0.0, (accuracy - lowest) / (1 - lowest))
