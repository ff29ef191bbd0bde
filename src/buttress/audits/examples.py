"""A gallery of adversarial examples: inputs before and after an attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from buttress.attacks import Perturbation
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base.audit import TAKES_ATTACKS, Audit
from buttress.audits.base.finding import Finding, Topic
from buttress.audits.base.png import difference, is_image, pixels, png
from buttress.audits.base.subject import Subject
from buttress.audits.base.work import Work, asked
from buttress.engine.pass_count import PassCount
from buttress.registry import audit
from buttress.validation import positive, whole


@audit("examples")
@dataclass(frozen=True, kw_only=True)
class Examples(Audit):
    """Clean, perturbed and magnified difference images with labels and confidences; for images of 1 or 3 channels.

    Args:
        attack: what perturbs the inputs.
        count: inputs shown, spread evenly over the data; successful adversarial examples come first.
        magnification: of the difference around mid-grey; such that the largest change spans the range unless given.
    """

    topic: ClassVar[Topic] = "Where it fails"
    needs_classes = False

    attack: Annotated[Perturbation, TAKES_ATTACKS] = PGD(steps=20)
    count: int = 8
    magnification: float | None = None

    def __post_init__(self) -> None:
        """Refuse what shows nothing."""
        whole("count", self.count)
        if self.magnification is not None:
            positive("magnification", self.magnification)

    def not_for(self, subject: Subject) -> str:
        """Images alone are shown."""
        return "" if is_image(subject.x) else "These inputs are no images to show."

    def work(self, subject: Subject) -> Work:
        """The attack, and the outputs before and after."""
        count = len(subject.y)
        return Work(asked([self.attack], count), PassCount(2 * count))

    def ask(self, subject: Subject) -> Finding:
        """Choose correct inputs, and show them before and after."""
        x = subject.x
        if reason := self.not_for(subject):
            return Finding("examples", "Examples", reason, "info", {"items": []})
        x_adv = subject.attacked(self.attack).outcome.x_adv
        clean, adversarial = subject.logits, subject.output(x_adv)
        task, y = subject.task, subject.y
        correct = ~task.is_adversarial(clean, y)
        beaten = task.is_adversarial(adversarial, y)
        success = correct & beaten
        order = torch.cat([part.nonzero().squeeze(1) for part in (success, correct & ~success, ~correct)])
        pool = order[: max(self.count, int(success.sum()))]
        rows = pool[torch.linspace(0, len(pool) - 1, min(self.count, len(pool))).long()] if len(pool) else pool
        largest = float((x_adv - x).abs().max())
        scale = self.magnification or (0.5 / largest if largest > 0 else 1.0)
        items = [
            {
                "truth": task.words(y[i], subject.classes),
                "clean": {**_label(clean[i : i + 1], subject), "right": bool(correct[i])},
                "adversarial": {**_label(adversarial[i : i + 1], subject), "right": not bool(beaten[i])},
                "images": {
                    "clean": png(pixels(x[i])),
                    "adversarial": png(pixels(x_adv[i])),
                    "difference": png(difference(x[i].cpu(), x_adv[i].cpu(), scale)),
                },
            }
            for i in rows.tolist()
        ]
        count, total = int(success.sum()), int(correct.sum())
        verdict = f"{self.attack.label()} is successful on {count} of the {total} inputs that are {task.right}."
        facts = {"classes": list(subject.classes), "attack": self.attack.label(), "magnification": scale}
        return Finding("examples", "Examples", verdict, "info", {**facts, "items": items})


def _label(output: Tensor, subject: Subject) -> dict[str, Any]:
    """What the network says of one input, and how sure it is, where the task knows that."""
    confidence = subject.task.confidence(output)
    words = subject.task.words(subject.task.decision(output)[0], subject.classes)
    return {"label": words, **({} if confidence is None else {"confidence": float(confidence)})}
