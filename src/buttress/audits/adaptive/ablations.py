"""A network with a part of it put out of work: what that part is good for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from buttress.attacks.composed.variant import optional_networks
from buttress.audits.base.statistics import accuracy
from buttress.audits.base.subject import Subject


def ablations_of(model: nn.Module) -> dict[str, nn.Module]:
    """What a network offers as its own weights without a part of it, by a method ``ablations``; empty without one.

    Of a network inside others that hold it as ``model`` they are in its wrappers, as its variants for attacks are.
    """
    return optional_networks(model, "ablations", "ablation")


def ablated(subject: Subject, points: Tensor | None) -> list[dict[str, Any]]:
    """Accuracy of each ablation, on the inputs and on points (N, ...) that were found for the network itself."""
    rows = []
    for name, model in ablations_of(subject.model).items():
        other = replace(subject, model=model, store={}, folder=None, _logits=None)
        row: dict[str, Any] = {"label": name, "clean": accuracy(~subject.task.is_adversarial(other.logits, subject.y))}
        if points is not None:
            row["reference"] = accuracy(~subject.task.is_adversarial(other.output(points), subject.y))
        rows.append(row)
    return rows
