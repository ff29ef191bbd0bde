"""One step against many: whether FGSM's perturbations still point where many steps lead, and are as successful."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from buttress.attacks import Attack
from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base.audit import Audit
from buttress.audits.base.finding import Finding, Severity, Topic
from buttress.audits.base.statistics import accuracy, bootstrap, paired
from buttress.audits.base.subject import Subject
from buttress.audits.base.work import Work, asked
from buttress.engine.pass_count import PassCount
from buttress.registry import audit
from buttress.validation import share

_TITLE = "One step against many"
_BINS = 20  # of the cosines, from -1 to 1


@audit("perturbations")
@dataclass(frozen=True, kw_only=True)
class Perturbations(Audit):
    """FGSM's perturbation beside that of an attack of many steps: their mean cosine, and the gap of the accuracies.

    The diagnosis of Li et al. (arXiv 2010.08034): where training uses one step, that step can degenerate into noise;
    accuracy under FGSM then stays high while that under many steps drops. A cosine is undefined where an attack moves
    nothing; such inputs are counted and left out. Cost: both attacks, and one forward per input.

    Args:
        attack: of many steps; FGSM is run in its threat.
        gap: accuracy under FGSM minus that under the attack, both in [0, 1], from which on the verdict is a warning.
    """

    topic: ClassVar[Topic] = "Whether the figures can be trusted"
    needs_classes = False

    attack: Attack = PGD(steps=20)
    gap: float = 0.15

    def __post_init__(self) -> None:
        """Refuse a gap that is none."""
        share("gap", self.gap)

    @property
    def _single(self) -> Attack:
        return FGSM(threat=self.attack.threat)

    def work(self, subject: Subject) -> Work:
        """Both attacks."""
        count = len(subject.y)
        return Work(asked([self._single, self.attack], count), PassCount(count))

    def ask(self, subject: Subject) -> Finding:
        """Run both attacks on every input."""
        single = self._single
        step, many = (subject.attacked(attack).outcome for attack in (single, self.attack))
        cosines = _cosines(step.x_adv - subject.x, many.x_adv - subject.x).cpu()
        correct = ~subject.task.is_adversarial(subject.logits, subject.y)
        robust = [correct & ~outcome.success for outcome in (step, many)]
        gap = paired(robust[1], robust[0], subject.seed)
        cosine = _mean(cosines, subject.seed)
        names = [single.label(), self.attack.label()]
        accuracies = [accuracy(rows) for rows in robust]
        data = {
            "inputs": len(correct),
            "chance": subject.chance,
            "seed": subject.seed,
            "norm": self.attack.threat.norm,
            "eps": self.attack.threat.eps,
            **({} if subject.task.classes else {"score": subject.task.score_name}),
            "clean": accuracy(correct),
            "attacks": [{"label": name, **row} for name, row in zip(names, accuracies, strict=True)],
            "gap": gap,
            "cosine": cosine,
            "histogram": {
                "edges": torch.linspace(-1, 1, _BINS + 1).tolist(),
                "counts": torch.histc(cosines[~cosines.isnan()].float(), _BINS, -1, 1).long().tolist(),
            },
        }
        wide = gap["difference"] >= self.gap and gap["low"] > 0
        severity: Severity = "warning" if wide else "info"
        return Finding("perturbations", _TITLE, self._verdict(data, wide), severity, data)

    def _verdict(self, data: dict[str, Any], wide: bool) -> str:
        (first_name, single_step), (second_name, many_steps) = (
            (row["label"], row["accuracy"]) for row in data["attacks"]
        )
        mean, score = data["cosine"]["mean"], data.get("score", "accuracy")
        cosine = "undefined" if mean is None else f"{mean:.2f}"
        verdict = (
            f"At {self.attack.threat.text()}, robust {score} is {single_step:.1%} under "
            f"{first_name} and {many_steps:.1%} under {second_name}; their perturbations' mean cosine is {cosine}."
        )
        return verdict + (f" Robust {score} under {first_name} means little here." if wide else "")


def _cosines(one: Tensor, other: Tensor) -> Tensor:
    """(N,) cosine of the angle between perturbations, NaN where one of them is 0."""
    first, second = one.double().flatten(1), other.double().flatten(1)
    size = torch.linalg.vector_norm(first, dim=1) * torch.linalg.vector_norm(second, dim=1)
    product = (first * second).sum(1)
    return torch.where(size > 0, (product / torch.where(size > 0, size, 1)).clamp(-1, 1), torch.nan)


def _mean(values: Tensor, seed: int) -> dict[str, Any]:
    """The mean of what is defined with its bootstrap interval, and how many are not."""
    defined = values[~values.isnan()]
    undefined = len(values) - len(defined)
    if not len(defined):
        return {"mean": None, "low": None, "high": None, "undefined": undefined}
    low, high = bootstrap(len(defined), lambda index: defined[index].mean(1), seed)
    return {"mean": float(defined.mean()), "low": low, "high": high, "undefined": undefined}
