"""What became of robust accuracy from one network to another, input by input, and whether it is a demonstrable gain."""

from __future__ import annotations

from typing import Any

import torch

from buttress.audits import Finding
from buttress.audits.base.statistics import paired
from buttress.threat import budget_text

LEVEL = 0.05  # of McNemar's exact test


def robust_change(first: Finding, last: Finding) -> tuple[str, dict[str, Any] | None]:
    """What became of robust accuracy between two robustness findings, in words and as plain data.

    Returns:
        The words; and, where the same inputs were attacked in the same way, `paired` of the two with ``change``: "gain"
        or "loss" where McNemar's exact test at 5 % shows one, else "none"; None where they cannot be compared.
    """
    before, after = (_budget(finding) for finding in (first, last))
    if before != after:
        return f"robust {score_name(first)} is not compared, being under {before} and {after}", None
    text = f"robust {score_name(first)} {shares(first, last, 'main')} under {after}"
    if first.data["fingerprints"] != last.data["fingerprints"] or first.data["seed"] != last.data["seed"]:
        return f"{text}, by different attacks, seeds or versions of buttress, which are not compared", None
    if first.data["same_inputs"] != last.data["same_inputs"]:
        return f"{text}, on different inputs", None
    test = paired(robust_inputs(first), robust_inputs(last), seed=first.data["seed"])
    shown = test["p"] < LEVEL
    test["change"] = "none" if not shown else "gain" if test["difference"] > 0 else "loss"
    if not test["gained"] + test["lost"]:
        return f"{text}, the same inputs", test
    change = f"{100 * test['low']:+.1f} to {100 * test['high']:+.1f} points"
    counts = f"{test['gained']} inputs gained, {test['lost']} lost"
    figures = f"({counts}, exact McNemar p = {test['p']:.2g}, paired bootstrap {change})"
    return f"{text} {figures}", test


def score_name(finding: Finding) -> str:
    """What the share of right outputs is called."""
    return str(finding.data.get("score", "accuracy"))


def shares(first: Finding, last: Finding, which: str) -> str:
    """The accuracies of both, "clean" or under attack ("main"): "90.0% to 80.0%"."""
    before, after = (f.data["stands"][which].count("1") / f.data["inputs"] for f in (first, last))
    return f"{before:.1%} to {after:.1%}"


def robust_inputs(finding: Finding, which: str = "main") -> torch.Tensor:
    """(N,) bool, the inputs classified correctly at the main budget, or ("clean") without attack."""
    return torch.tensor([one == "1" for one in finding.data["stands"][which]])


def _budget(finding: Finding) -> str:
    return f"{finding.data['attacks'][0]['norm']} eps {budget_text(finding.data['main_eps'])}"
