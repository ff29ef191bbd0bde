"""Which data to collect next: where the network falls short most, by more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from buttress.audits.base import statistics

_LEVEL = 0.05  # of the test, over all classes together


def weakest_class(y: Tensor, robust: Tensor, names: Sequence[str]) -> dict[str, Any] | None:
    """The class that is least robust, and how much less so than all others together.

    Args:
        y: (N,) classes.
        robust: (N,) bool: right, under the attack too.
        names: of the classes.

    Returns:
        The class, its share with an exact interval, the others' share, and whether Fisher's exact test, at 5 % over
        all classes, says that it is lower; None where there is one class alone.
    """
    from scipy.stats import fisher_exact

    present = torch.unique(y).tolist()
    if len(present) < 2:
        return None
    shares = torch.stack([robust[y == k].double().mean() for k in present])
    k = present[int(shares.argmin())]
    own, others = robust[y == k], robust[y != k]
    table = [[int(part.sum()), int((~part).sum())] for part in (own, others)]
    p = float(fisher_exact(table, alternative="less").pvalue) * len(present)
    return {
        "class": names[k] if k < len(names) else str(k),
        "index": k,
        "inputs": len(own),
        **statistics.accuracy(own),
        "others": float(others.double().mean()),
        "significant": p < _LEVEL,
    }


def what_to_collect(weakest: dict[str, Any] | None, clusters: Sequence[dict[str, Any]], failing: int) -> str:
    """One sentence on what to collect, with its evidence; what is not shown by more than chance is not advised."""
    if not failing:
        return "No input fails, so these inputs do not say what to collect."
    if weakest is not None and weakest["significant"]:
        return (
            f"Collect more of class {weakest['class']} next: {weakest['accuracy']:.1%} of its {weakest['inputs']} "
            f"inputs stand ({weakest['low']:.1%} to {weakest['high']:.1%}), against {weakest['others']:.1%} of the "
            "others."
        )
    if len(clusters) > 1:
        return (
            f"Collect more inputs like those of group 1, the largest of {len(clusters)}: {clusters[0]['inputs']} of "
            f"the {failing} that fail; {clusters[0]['sentence']}."
        )
    return f"The {failing} inputs that fail stand out neither by their truth nor as groups: collect evenly."
