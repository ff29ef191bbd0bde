"""Accuracy under corruptions, other styles and attacks that training did not have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from buttress.attacks import Perturbation
from buttress.attacks.corruptions.blur_and_compression import JPEG, GaussianBlur, Pixelate
from buttress.attacks.corruptions.corruption import MOST_SEVERE, Corruption
from buttress.attacks.corruptions.geometric import Elastic, Rotation, Translation
from buttress.attacks.corruptions.photometric import Brightness, Contrast, Invert, Posterise, Solarise
from buttress.attacks.corruptions.stylised import Sketch, Texture
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base.audit import TAKES_ATTACKS, Audit
from buttress.audits.base.finding import Finding, Severity, Topic
from buttress.audits.base.ranking import joined, ranking
from buttress.audits.base.rating import kept, rate
from buttress.audits.base.statistics import INTERVAL, accuracy, bootstrap
from buttress.audits.base.subject import Subject, same_inputs
from buttress.audits.base.work import Work, asked
from buttress.engine.pass_count import PassCount
from buttress.errors import UserError
from buttress.registry import attack as registered_attacks
from buttress.registry import audit
from buttress.threat import Threat, budget_text
from buttress.validation import whole

_CORRUPTIONS = (
    GaussianBlur(),
    Brightness(),
    Contrast(),
    Rotation(),
    Translation(),
    Elastic(),
    JPEG(),
    Pixelate(),
)
_STYLES = (Invert(), Posterise(), Sketch(), Solarise(), Texture())


@audit("unseen")
@dataclass(frozen=True, kw_only=True)
class Unseen(Audit):
    """Standard, robust and unseen-attack generalisation in one table: clean accuracy, and accuracy under each of them.

    Beside corruptions it measures changes of style, which leave edges where they are and everything else may change.
    They are far from all data, so they are reported without a judgement: the finding's severity is that of the rest.

    Accuracy under a corruption counts all inputs that are classified correctly when corrupted, whatever their class
    uncorrupted; the mean corruption accuracy is that over corruptions, each the mean over its severities (1 minus the
    unnormalised mCE of Hendrycks and Dietterich, ICLR 2019), and the mean style accuracy is that over styles. Under an
    attack those inputs count that are classified correctly before and after it. Shares have exact intervals, means
    those of a bootstrap over inputs.

    Cost per input: one forward for each corruption or style and severity, and the attacks' passes.

    Args:
        corruptions: those of a severity are run at each of ``severities``, other perturbations as they are.
        styles: the family of styles, run in the same way; it may be empty.
        severities: which.
        attacks: what training had, for comparison; they may be none.
        unseen: attacks that training did not have; those in the norm of one of ``attacks`` are left out.
    """

    topic: ClassVar[Topic] = "How robust it is"
    needs_classes = False

    corruptions: Sequence[Perturbation] = _CORRUPTIONS
    styles: Sequence[Perturbation] = _STYLES
    severities: Sequence[int] = (1, 2, 3, 4, 5)
    attacks: Annotated[Sequence[Perturbation], TAKES_ATTACKS] = (PGD(steps=20),)
    unseen: Sequence[Perturbation] = (
        PGD(threat=Threat(), steps=20),
        PGD(threat=Threat(norm="l2", eps=0.5), steps=20),
        PGD(threat=Threat(norm="l1", eps=12.0), steps=20),
    )

    def __post_init__(self) -> None:
        """Refuse settings that measure nothing."""
        if not (self.corruptions or self.styles or self.attacks or self.unseen):
            raise UserError("an audit of the unseen needs corruptions, styles or attacks; got none")
        if not self.severities:
            raise UserError("severities must be some of 1, 2, 3, 4 and 5; got none")
        for severity in self.severities:
            whole("severities", severity, 1, MOST_SEVERE)

    @property
    def foreign(self) -> list[Perturbation]:
        """The unseen attacks that are run: those in another norm than the attacks of training."""
        trained_norms = {_norm(attack) for attack in self.attacks} - {""}
        return [attack for attack in self.unseen if _norm(attack) not in trained_norms]

    def not_for(self, subject: Subject) -> str:
        """Images alone are corrupted; where no corruption is asked for, any inputs will do."""
        changed = any(isinstance(change, Corruption) for change in (*self.corruptions, *self.styles))
        return "These inputs are no images to corrupt." if changed and subject.x.dim() != 4 else ""

    def work(self, subject: Subject) -> Work:
        """Each corruption and style at each severity, and the attacks."""
        count = len(subject.y)
        changed = [each for change in (*self.corruptions, *self.styles) for _, each in self._at_severities(change)]
        attacks = asked([*self.attacks, *self.foreign], count, "first")
        return Work((*asked(changed, count), *attacks), PassCount(count))

    def ask(self, subject: Subject) -> Finding:
        """Corrupt and attack every input.

        Raises:
            UserError: for corruptions or styles of images where the inputs are none.
        """
        correct = ~subject.task.is_adversarial(subject.logits, subject.y)
        changed = {
            kind: [self._changed(subject, change, kind) for change in family]
            for kind, family in (("corruption", self.corruptions), ("style", self.styles))
        }
        rows = [row for family in changed.values() for row, _ in family]
        robust: dict[bool, list[Tensor]] = {True: [], False: []}
        for seen, attacks in ((True, self.attacks), (False, self.foreign)):
            for attack in attacks:
                robust_rows = correct & ~subject.attacked(attack, search="first").outcome.success
                rows.append(_attacked(attack, robust_rows, seen))
                robust[seen].append(robust_rows)
        tied = {
            kind: _hardest([row["label"] for row, _ in family], [share for _, share in family], subject.seed)
            for kind, family in changed.items()
        }
        data: dict[str, Any] = {
            "inputs": len(correct),
            "seed": subject.seed,
            "precision": subject.precision,
            "interval": f"{INTERVAL}; of means by bootstrap over inputs, 95 %",
            "severities": sorted(set(self.severities)),
            **({} if subject.task.classes else {"right": subject.task.right}),
            "chance": subject.chance,
            "clean": accuracy(correct),
            "rows": rows,
            "hardest": tied,
            "mean_corruption": _mean([share for _, share in changed["corruption"]], subject.seed),
            "mean_style": _mean([share for _, share in changed["style"]], subject.seed),
            "seen": _worst(robust[True]),
            "unseen": _worst(robust[False]),
            "fingerprints": sorted(
                p.fingerprint() for p in (*self.corruptions, *self.styles, *self.attacks, *self.foreign)
            ),
            "same_inputs": same_inputs(subject),
        }
        return Finding("unseen", "Corruptions and unseen attacks", _verdict(data), _severity(data), data)

    def _at_severities(self, change: Perturbation) -> list[tuple[int | None, Perturbation]]:
        """A corruption at each severity, with that; another perturbation as it is."""
        if not isinstance(change, Corruption):
            return [(None, change)]
        return [(severity, replace(change, severity=severity)) for severity in sorted(set(self.severities))]

    def _changed(self, subject: Subject, change: Perturbation, kind: str) -> tuple[dict[str, Any], Tensor]:
        """The row of a corruption or style, and (N,) the share of its severities at which each input is correct."""
        points, correct = [], []
        for severity, each in self._at_severities(change):
            correct.append(~subject.attacked(each).outcome.success)
            points.append({"severity": severity, **accuracy(correct[-1])})
        share = torch.stack(correct).double().mean(0)
        figure = accuracy(correct[0]) if len(correct) == 1 else _mean([share], subject.seed)
        return {**_name_and_label(change, kind), **(figure or {}), "severities": points}, share


def _attacked(attack: Perturbation, robust_rows: Tensor, seen: bool) -> dict[str, Any]:
    threat = attack.threat
    budget = {} if threat is None else {"norm": threat.norm, "eps": threat.eps}
    return {**_name_and_label(attack, "seen attack" if seen else "unseen attack"), **budget, **accuracy(robust_rows)}


def _name_and_label(attack: Perturbation, kind: str) -> dict[str, Any]:
    return {"kind": kind, "name": registered_attacks.name_of(attack), "label": attack.label()}


def _norm(attack: Perturbation) -> str:
    threat = attack.within().threat
    return "" if threat is None else threat.norm


def _mean(shares: Sequence[Tensor], seed: int) -> dict[str, float] | None:
    """The mean of (N,) shares, and its interval over inputs; None where there are none."""
    if not shares:
        return None
    each = torch.stack(list(shares)).mean(0).cpu()
    low, high = bootstrap(len(each), lambda index: each[index].mean(1), seed)
    return {"accuracy": float(each.mean()), "low": low, "high": high}


def _hardest(names: Sequence[str], shares: Sequence[Tensor], seed: int) -> list[str]:
    """Those under which accuracy may be the lowest, of (N,) shares each, the lowest first."""
    return [names[k] for k in ranking(-torch.stack(list(shares)), seed).tied()] if shares else []


def _worst(robust: Sequence[Tensor]) -> dict[str, float] | None:
    """Accuracy under all of some attacks together; None where there are none."""
    return accuracy(torch.stack(list(robust)).all(0)) if robust else None


def _verdict(data: dict[str, Any]) -> str:
    parts = [
        f"{data['clean']['accuracy']:.1%} of {data['inputs']} inputs are {data.get('right', 'classified correctly')}"
    ]
    for kind in ("corruption", "style"):
        rows = [row for row in data["rows"] if row["kind"] == kind]
        if rows:
            worst = min(rows, key=lambda row: float(row["accuracy"]))
            others = [name for name in data["hardest"][kind] if name != worst["label"]]
            tied = f" ({joined(others)} cannot be told from it)" if others else ""
            text = f"{_interval_text(data[f'mean_{kind}'])} on average under {len(rows)} {kind}{'s' * (len(rows) > 1)}"
            parts.append(f"{text}, least under {worst['label']}: {worst['accuracy']:.1%}{tied}")
    for seen, kind in ((True, "seen"), (False, "unseen")):
        rows = [row for row in data["rows"] if row["kind"] == f"{kind} attack"]
        if rows:
            names = ", ".join(_budget(row) for row in rows)
            what = "the attacks of training" if seen else "unseen attacks"
            parts.append(f"{_interval_text(data[kind])} under {what} ({names})")
    return "; ".join(parts) + "."


def _interval_text(figure: dict[str, float]) -> str:
    return f"{figure['accuracy']:.1%} ({figure['low']:.1%} to {figure['high']:.1%})"


def _budget(row: dict[str, Any]) -> str:
    return f"{row['label']} at {row['norm']} eps {budget_text(row['eps'])}" if "norm" in row else str(row["label"])


def _severity(data: dict[str, Any]) -> Severity:
    """Bad at chance and when corruptions on average halve what the accuracy is above it; a warning when one does.

    A warning, too, when unseen attacks leave less than a tenth of it, and when the accuracy is not good before either.
    """
    clean, guess, mean, unseen = (data[key] for key in ("clean", "chance", "mean_corruption", "unseen"))
    rated = rate(clean, clean, guess)
    if rated == "bad" or (mean is not None and kept(clean, mean, guess) < 0.5):
        return "bad"
    halved = any(kept(clean, row, guess) < 0.5 for row in data["rows"] if row["kind"] == "corruption")
    vulnerable = unseen is not None and kept(clean, unseen, guess) < 0.1
    return "warning" if halved or vulnerable or rated != "good" else "good"
