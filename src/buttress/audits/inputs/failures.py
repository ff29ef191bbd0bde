"""The inputs that fail, as groups in feature space, and what each group shares."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor

from buttress.audits.inputs.cards import Facts, is_image
from buttress.audits.inputs.groups import groups
from buttress.layers.features import penultimate


def failures(facts: Facts, failing: Tensor, examples: int) -> dict[str, Any]:
    """Groups of the failing inputs.

    Args:
        facts: of all inputs.
        failing: (F,) rows of those that fail.
        examples: how many ids each group has, those nearest to its centre first.

    Returns:
        ``groups``, largest first, each with the number of ``inputs``, a ``sentence`` on what they share and ``ids``;
        the layer of the ``features``, and the mean ``silhouette``, None for one group.
    """
    subject = facts.subject
    if not len(failing):
        return {"groups": [], "features": None, "silhouette": None}
    features, layer = penultimate(
        subject.model, subject.x[failing], task=subject.task, batch_size=subject.batch_size, seed=subject.seed
    )
    labels, silhouette = groups(features, subject.seed)
    found = []
    for k in range(int(labels.max()) + 1):
        members = (labels == k).nonzero().squeeze(1).to(failing.device)
        centre = features[members].double().mean(0)
        near = (features[members].double() - centre).square().sum(1).round(decimals=4).argsort(stable=True)
        ids = facts.ids(failing[members[near]], examples)
        found.append({"inputs": len(members), "sentence": _shared(facts, failing[members]), "ids": ids})
    return {"groups": found, "features": layer, "silhouette": silhouette}


def _shared(facts: Facts, rows: Tensor) -> str:
    """What these inputs have in common, of what was measured."""
    subject, task, parts = facts.subject, facts.subject.task, list[str]()
    if task.classes:
        truths = [task.words(subject.y[i], subject.classes) for i in rows.tolist()]
        answers = [task.words(one, subject.classes) for one in task.decision(facts.attacked[rows])]
        (pair, count), *_ = Counter(zip(truths, answers, strict=True)).most_common(1)
        parts.append(f"{count} of {len(rows)} are {pair[0]} taken for {pair[1]}")
    already = int((~facts.right[rows]).sum())
    parts.append(f"{already} of {len(rows)} are wrong unattacked")
    if is_image(subject.x):
        brightness = subject.x.double().flatten(1).mean(1)
        parts.append(
            f"mean brightness {float(brightness[rows].mean()):.2f} (all inputs {float(brightness.mean()):.2f})"
        )
    if facts.margin is not None:
        parts.append(f"median margin {_median(facts.margin[rows]):.3g} (all inputs {_median(facts.margin):.3g})")
    return ", ".join(parts)


def _median(values: Tensor) -> float:
    return float(torch.quantile(values.double(), 0.5))
