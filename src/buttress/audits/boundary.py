"""The decision boundary of a network on two features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from buttress.audits.base.audit import Audit
from buttress.audits.base.finding import Finding, Topic
from buttress.audits.base.subject import Subject
from buttress.audits.base.work import Work
from buttress.engine.pass_count import PassCount
from buttress.registry import audit
from buttress.validation import not_negative, whole


@audit("boundary")
@dataclass(frozen=True, kw_only=True)
class Boundary(Audit):
    """Probability of the last class over the plane, with the inputs; for data of two features.

    Args:
        grid: points along each axis.
        margin: how far beyond the inputs the plane reaches, as a share of their range.
        points: inputs shown, at most.
    """

    topic: ClassVar[Topic] = "Where it fails"

    grid: int = 101
    margin: float = 0.25
    points: int = 400

    def __post_init__(self) -> None:
        """Refuse what draws nothing."""
        whole("grid", self.grid, 2)
        whole("points", self.points, 0)
        not_negative("margin", self.margin)

    def not_for(self, subject: Subject) -> str:
        """Of two features alone there is a plane."""
        return "" if subject.x.dim() == 2 and subject.x.shape[1] == 2 else "The inputs do not have two features."

    def work(self, subject: Subject) -> Work:
        """A pass for each point of the plane."""
        return Work(passes=PassCount(self.grid**2))

    def ask(self, subject: Subject) -> Finding:
        """Evaluate the plane."""
        if reason := self.not_for(subject):
            return Finding("boundary", "Decision boundary", reason, "info", {})
        low, high = subject.x.amin(0), subject.x.amax(0)
        low, high = low - self.margin * (high - low), high + self.margin * (high - low)
        axes = [torch.linspace(float(a), float(b), self.grid) for a, b in zip(low, high, strict=True)]
        rows, columns = torch.meshgrid(axes[1], axes[0], indexing="ij")
        plane = torch.stack([columns.flatten(), rows.flatten()], 1).to(subject.x)
        probability = subject.output(plane).softmax(1)[:, -1].view(self.grid, self.grid)
        shown = subject.x[: self.points].cpu()
        data = {
            "x": axes[0].tolist(),
            "y": axes[1].tolist(),
            "probability": probability.cpu().tolist(),
            "classes": list(subject.classes),
            "points": {
                "x": shown[:, 0].tolist(),
                "y": shown[:, 1].tolist(),
                "label": subject.y[: self.points].tolist(),
            },
        }
        share = float((probability > 0.5).float().mean())
        name = subject.classes[-1]
        verdict = f"{share:.0%} of the plane shown is classified as {name}."
        return Finding("boundary", "Decision boundary", verdict, "info", data)
