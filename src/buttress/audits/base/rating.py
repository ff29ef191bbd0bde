"""How good an accuracy under attack is, beside the accuracy without one and beside what a guess gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from buttress.audits.base.finding import Finding, Severity

Figure = Mapping[str, float]  # an accuracy with its interval: "accuracy", "low", "high"

_BAD, _GOOD = 0.1, 0.5  # shares of what is above chance: below the first is bad, from the second on good


def at_chance(clean: Figure, guess: float | None) -> bool:
    """Whether an accuracy without attack is not above that of a guess: its interval reaches down to it."""
    return guess is not None and clean["low"] <= guess


def rate(clean: Figure, robust: Figure, guess: float | None) -> Severity:
    """Rate an accuracy under attack, or otherwise perturbed.

    What is rated is how far it is above chance, as a share of what lies between chance and 1 (as Cohen's kappa corrects
    for chance, Educational and Psychological Measurement 20, 1960): one answer for all inputs is robust to every
    attack. One rule holds for any number of classes and any imbalance: a half of what lies between chance and 1 must be
    robust for "good", which is an accuracy of 75 % for two classes that are as frequent, 55 % for ten and 51 % for
    fifty.

    Args:
        clean: the accuracy without attack, with its interval.
        robust: the accuracy under attack, likewise.
        guess: the accuracy of a guess, see `Task.chance`; None counts as 0.

    Returns:
        "bad" for a network at chance, and where less than a tenth is left of what the network is above chance;
        "good" where at least half of that is left, at least half of what lies between chance and 1 is robust, and the
        inputs are enough to tell that from chance; "warning" else.
    """
    if at_chance(clean, guess):
        return "bad" if above(clean["high"], guess) < _GOOD else "warning"
    share = kept(clean, robust, guess)
    if share < _BAD:
        return "bad"
    shown = guess is None or robust["low"] > guess
    return "good" if shown and min(share, above(robust["accuracy"], guess)) >= _GOOD else "warning"


def kept(clean: Figure, perturbed: Figure, guess: float | None) -> float:
    """What is left, under a perturbation, of what an accuracy is above chance: a share of 1; 0 where nothing is."""
    before = above(clean["accuracy"], guess)
    return above(perturbed["accuracy"], guess) / before if before else 0.0


def chance_sentence(clean: Figure, guess: float | None, right: str = "classified correctly") -> str:
    """A sentence for a network whose accuracy is not above chance; empty for others.

    Args:
        clean: the accuracy without attack, with its interval.
        guess: the accuracy of a guess.
        right: what the share is of, see `Task`.
    """
    if guess is None or not at_chance(clean, guess):
        return ""
    if above(clean["high"], guess) < _GOOD:
        reason = "The network is at chance"
    else:
        reason = "The inputs are too few" if guess < 1 else "The task is too easy on these inputs"
    lower = clean["high"] < guess
    if lower:
        reason = "The network is worse than chance"
    figure = f"{clean['accuracy']:.1%} ({clean['low']:.1%} to {clean['high']:.1%}) {right}"
    compared = "is less than" if lower else "cannot be told from"
    return f"{reason}: {figure} {compared} the {guess:.1%} of one answer for all."


def beside_chance(finding: Finding, told: Callable[[], str]) -> Finding:
    """The finding; one that tells an accuracy, and so has the ``chance`` in its data, is not "good" at chance.

    Args:
        finding: of an audit.
        told: the sentence that says so, see `chance_sentence`; empty for a network that is above chance.
    """
    sentence = told() if "chance" in finding.data else ""
    if not sentence:
        return finding
    severity = "warning" if finding.severity == "good" else finding.severity
    return replace(finding, verdict=f"{finding.verdict} {sentence}", severity=severity)


def above(accuracy: float, guess: float | None) -> float:
    """How far an accuracy is above chance, from 0 to 1; where a guess gets 1, all that reaches it counts as 1."""
    lowest = guess or 0.0
    if lowest >= 1:
        return float(accuracy >= 1)
    return max(0.0, (accuracy - lowest) / (1 - lowest))
