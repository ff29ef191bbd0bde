"""What an audit of privacy says, in a few sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ONE_BY_ONE = " Gradients were taken one by one, since torch.func cannot follow this network."
_KNOWN = {
    "confidence": "the confidence in the true class",
    "adversarial loss": "the loss at an adversarial example",
    "likelihood ratio": "the confidence, calibrated by reference networks",
}


def verdict(data: Mapping[str, Any]) -> str:
    """Membership first, then the gaps, then the intensity, and the model of the noise last.

    Args:
        data: of the finding.
    """
    sentences = [_membership(data["membership"]), _gaps(data)]
    paired = data["intensity"].get("paired")
    if paired and paired["max"]["ratio"] is not None:
        mean = "" if paired["mean"]["ratio"] is None else f", in the mean {paired['mean']['ratio']:.3g} times"
        sentences.append(
            f"The longest gradient of an example is {paired['max']['ratio']:.3g} times as long under the attack"
            f"{mean} (robustified intensity)."
        )
    if data["intensity"].get("vectorised") is False:
        sentences.append(ONE_BY_ONE.lstrip())
    if reason := data["intensity"].get("left_out"):
        sentences.append(f"Left out is what gradients over parameters tell: {reason}.")
    if composed := data.get("composed"):
        sentences.append(
            f"A model of the noise in training, under the assumptions listed, comes to eps {composed['epsilon']:.3g} "
            f"at delta {composed['delta']:.3g} over {composed['steps']} steps: no guarantee of privacy."
        )
    return " ".join(sentences)


def known_by(name: str) -> str:
    """What an attack on membership knows, in words."""
    return _KNOWN.get(name, name)


def _membership(found: Mapping[str, Any]) -> str:
    name, best = max(found.items(), key=lambda entry: float(entry[1]["low"]))
    told = (
        f"By {known_by(name)}, a training input is told from another with an advantage of {best['advantage']:.1%} "
        f"({best['low']:.1%} to {best['high']:.1%}; 0% is a guess)"
    )
    found_at = best["at"].get("0.01")
    seldom = "" if found_at is None else f"; at 1 false alarm in 100, {found_at:.1%} of the training inputs are found"
    if best["low"] <= 0:
        return f"Training inputs are not told from others by what was tried: {told[0].lower()}{told[1:]}{seldom}."
    return f"{told}{seldom}."


def _gaps(data: Mapping[str, Any]) -> str:
    parts = []
    for key, where in (("clean", "as they are"), ("robust", f"under {data['attack']}")):
        if (entry := data[key]) is not None:
            gap, shares = entry["gap"], [entry[side]["accuracy"] for side in ("members", "others")]
            parts.append(
                f"{shares[0]:.1%} and {shares[1]:.1%} {where} (gap {_points(gap['difference'])}, "
                f"{_points(gap['low'])} to {_points(gap['high'])} points)"
            )
    return f"Accuracy on {data['inputs']} training and as many other inputs is {', '.join(parts)}."


def _points(share: float) -> str:
    return f"{100 * share:.1f}"
