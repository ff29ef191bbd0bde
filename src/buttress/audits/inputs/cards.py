"""What a report shows of single inputs: a small picture or the first values, and the figures of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from buttress.audits.base.png import pixels, png
from buttress.audits.base.subject import Subject

_SIDE = 48  # pixels of a picture's longer side
_VALUES = 8  # of an input that is no image


@dataclass(frozen=True)
class Facts:
    """What is known of all N inputs.

    Attributes:
        subject: the network and the inputs.
        attacked: (N, ...) outputs under the attack.
        right: (N,) bool: right unattacked; ``robust`` under the attack too.
        margin: (N,) by how far each is right, in logits or the task's own units; None where the task has no margin.
        smallest: (N,) float64, as in `Brackets`; NaN where that was not searched. ``certified`` likewise.
    """

    subject: Subject
    attacked: Tensor
    right: Tensor
    robust: Tensor
    margin: Tensor | None
    smallest: Tensor
    certified: Tensor

    def order(self, rows: Tensor) -> Tensor:
        """These rows, nearest to failing first: by smallest perturbation, then by margin, then as they come."""
        if self.margin is not None:
            rows = rows[self.margin[rows].argsort(stable=True)]
        return rows[self.smallest[rows].nan_to_num(nan=torch.inf).argsort(stable=True)]

    def ids(self, rows: Tensor, most: int) -> list[int]:
        """The ids of the first so many rows."""
        return [int(i) for i in self.subject.ids[rows[:most]].tolist()]


def cards(facts: Facts, ids: Iterable[int], most: int) -> dict[str, dict[str, Any]]:
    """By id, as a text, what is shown of the first so many different inputs."""
    subject = facts.subject
    place = {int(i): row for row, i in enumerate(subject.ids.tolist())}
    return {str(i): _card(facts, place[i]) for i in list(dict.fromkeys(ids))[:most]}


def _card(facts: Facts, row: int) -> dict[str, Any]:
    subject, task = facts.subject, facts.subject.task

    def words(output: Tensor) -> str:
        return task.words(task.decision(output[row : row + 1])[0], subject.classes)

    confidence = task.confidence(subject.logits[row : row + 1])
    smallest, certified = (
        None if value != value else value for value in map(float, (facts.smallest[row], facts.certified[row]))
    )
    return {
        "truth": task.words(subject.y[row], subject.classes),
        "answer": words(subject.logits),
        "attacked": words(facts.attacked),
        "right": bool(facts.right[row]),
        "robust": bool(facts.robust[row]),
        "margin": None if facts.margin is None else float(facts.margin[row]),
        "smallest": smallest,
        "certified": certified,
        **({} if confidence is None else {"confidence": float(confidence)}),
        **_shown(subject.x[row]),
    }


def is_image(x: Tensor) -> bool:
    """Whether (N, ...) inputs are images that can be shown, of 1 or 3 channels."""
    return x.dim() == 4 and x.shape[1] in (1, 3)


def _shown(x: Tensor) -> dict[str, Any]:
    if not is_image(x[None]):
        return {"values": x.flatten()[:_VALUES].tolist(), "length": x.numel()}
    sides = x.shape[1:]
    shrunk = max(1.0, max(sides) / _SIDE)
    size = [max(1, round(side / shrunk)) for side in sides]
    small = x if shrunk == 1 else F.interpolate(x[None].float(), size, mode="area")[0]
    return {"picture": png(pixels(small))}
