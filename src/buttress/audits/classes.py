"""Which classes are vulnerable: robust accuracy by class, and what attacked inputs are classified as."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from buttress.attacks import Perturbation
from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.attacks.gradient.tpgd import TPGD
from buttress.audits.base import class_agreement, statistics
from buttress.audits.base.audit import TAKES_ATTACKS, Audit
from buttress.audits.base.finding import Finding, Severity, Topic
from buttress.audits.base.ranking import joined, tied_shares
from buttress.audits.base.subject import Subject, same_inputs
from buttress.audits.base.work import Work, asked
from buttress.data.class_names import class_indices
from buttress.defences.class_corrected import last_linear
from buttress.engine.pass_count import PassCount
from buttress.errors import UserError
from buttress.layers.correlation import pearson, spearman
from buttress.registry import audit

_LEVEL = 0.05  # of the test of the worst class, over all classes together


@audit("classes")
@dataclass(frozen=True, kw_only=True)
class Classes(Audit):
    """Robustness by class (Tian, Kuang, Jiang, Wu and Wang, KDD 2021), on one table of attacked predictions.

    CV, the class-wise variance, is the mean square of a class's robust accuracy minus the mean over classes; MCD, the
    maximum class-wise discrepancy, is the highest minus the lowest. The verdict is a warning when the worst class is
    less robust than all others together by Fisher's exact test, at a level of 5 % over all classes.

    Other attacks say whether the same classes are vulnerable to them: how far each puts the classes in the same order
    as the first, and how much of what the stronger of the two gains is on vulnerable classes (`class_agreement`).

    Args:
        attack: what perturbs the inputs; an input is robust when it is classified correctly, under the attack too.
        others: attacks whose order of the classes is compared with that of ``attack``; FGSM and T-PGD-20 in its threat
            unless given, none for a noise.
        groups: names of superclasses and the classes in them, by name or index: attacked mistakes are then counted as
            within a group or out of it. Classes may be left out, and their mistakes are then not counted.
    """

    topic: ClassVar[Topic] = "Where it fails"

    attack: Annotated[Perturbation, TAKES_ATTACKS] = PGD(steps=20)
    others: Annotated[Sequence[Perturbation] | None, TAKES_ATTACKS] = None
    groups: Mapping[str, Sequence[int | str]] | None = None

    def work(self, subject: Subject) -> Work:
        """The attacks, and the outputs before and after each."""
        count, attacks = len(subject.y), [self.attack, *self._others()]
        return Work(asked(attacks, count, "first"), PassCount((2 + len(attacks)) * count))

    def ask(self, subject: Subject) -> Finding:
        """Attack every input once and count."""
        group_of = self._group_of(subject.classes)
        outcome = subject.attacked(self.attack, search="first").outcome
        clean, robust = subject.logits.argmax(1) == subject.y, ~outcome.success
        predicted = subject.output(outcome.x_adv).argmax(1)
        present = [k for k in range(len(subject.classes)) if bool((subject.y == k).any())]
        rows = [_row(k, subject, clean, robust) for k in present]
        shares = torch.tensor([row["accuracy"] for row in rows], dtype=torch.float64)
        worst = rows[int(shares.argmin())]
        data: dict[str, Any] = {
            "attack": _attack_text(self.attack),
            "inputs": len(subject.y),
            "chance": subject.chance,
            "classes": rows,
            "robust": float(robust.double().mean()),
            "worst": worst["class"],
            "worst_accuracy": worst["accuracy"],
            "tied": tied_with_worst(rows),
            "cv": float((shares - shares.mean()).square().mean()),
            "mcd": float(shares.max() - shares.min()),
            "predicted": _names(subject.classes, subject.logits.shape[1]),
            "confusion": _confusion(subject.y, predicted, present, subject.logits.shape[1]),
            "interval": statistics.INTERVAL,
            "agreement_interval": class_agreement.METHOD,
            "seed": subject.seed,
            "same_inputs": same_inputs(subject),
            "labels": subject.y.tolist(),
            "attacks": self._by_attack(subject),
        }
        data |= self._norms(subject, rows)
        if self.groups:
            data["groups"] = _mistakes(subject.y, predicted, group_of)
        significant = _is_significant(worst, rows)
        severity: Severity = "warning" if significant else "info"
        return Finding("classes", "Classes", _verdict(data, worst, significant), severity, data)

    def _by_attack(self, subject: Subject) -> list[dict[str, Any]]:
        """For each attack every input's prediction, and accuracies by class; for the others, how they compare."""
        entries, robust = list[dict[str, Any]](), list[Tensor]()
        for attack in {attack.fingerprint(): attack for attack in (self.attack, *self._others())}.values():
            outcome = subject.attacked(attack, search="first").outcome
            robust.append(~outcome.success)
            stands = {k: robust[-1][subject.y == k] for k in torch.unique(subject.y).tolist()}
            shares = {subject.classes[k]: float(part.double().mean()) for k, part in stands.items()}
            entry: dict[str, Any] = {
                "attack": _attack_text(attack),
                "fingerprint": attack.fingerprint(),
                "robust": float(robust[-1].double().mean()),
                "classes": shares,
                "worst": min(shares, key=lambda name: shares[name]),
                "worst_accuracy": min(shares.values()),
                "stands": "".join("01"[int(one)] for one in robust[-1]),
                "predictions": subject.output(outcome.x_adv).argmax(1).tolist(),
            }
            if len(robust) > 1:
                entry["agreement"] = class_agreement.agreement(subject.y, robust[0], robust[-1], subject.seed)
                pair = [(entries[0], robust[0]), (entry, robust[-1])]
                (weaker, most), (stronger, least) = sorted(pair, key=lambda one: -float(one[0]["robust"]))
                gain = class_agreement.gain(subject.y, most, least, subject.seed)
                entry["gain"] = gain and {"weaker": weaker["attack"], "stronger": stronger["attack"], **gain}
            entries.append(entry)
        return entries

    def _others(self) -> Sequence[Perturbation]:
        if self.others is not None:
            return self.others
        threat = self.attack.threat
        return () if threat is None else (FGSM(threat=threat), TPGD(threat=threat, steps=20))

    def _group_of(self, classes: Sequence[str]) -> dict[int, str]:
        groups: dict[int, str] = {}
        for group, members in (self.groups or {}).items():
            for k in class_indices(members, classes):
                if k in groups:
                    raise UserError(f"a class is in one group; {classes[k]!r} is in {groups[k]!r} and in {group!r}")
                groups[k] = group
        return groups

    def _norms(self, subject: Subject, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Norms of the last layer's weights into the rows, and how robust accuracy goes with them."""
        try:
            weight = last_linear(subject.model, subject.x[:4], subject.task).weight.detach().double()
        except UserError:
            return {}
        sizes = weight.norm(dim=1).tolist()
        for row in rows:
            row["weight_norm"] = sizes[row["index"]]
        norms, shares = (
            torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in ("weight_norm", "accuracy")
        )
        figures = {"pearson": pearson(norms, shares), "spearman": spearman(norms, shares)}
        return {} if len(rows) < 3 or any(map(math.isnan, figures.values())) else figures


def _attack_text(attack: Perturbation) -> str:
    threat = attack.threat
    return attack.label() + (f" at {threat.text()}" if threat is not None else "")


def _row(k: int, subject: Subject, clean: Tensor, robust: Tensor) -> dict[str, Any]:
    rows = subject.y == k
    return {
        "class": subject.classes[k],
        "index": k,
        "inputs": int(rows.sum()),
        "clean": float(clean[rows].double().mean()),
        **statistics.accuracy(robust[rows]),
    }


def _names(classes: Sequence[str], outputs: int) -> list[str]:
    return [classes[k] if k < len(classes) else str(k) for k in range(outputs)]


def _confusion(y: Tensor, predicted: Tensor, present: list[int], outputs: int) -> list[list[float]]:
    """By class that has inputs, the share of them that is classified as each class under attack; rows sum to 1."""
    counts = torch.stack([torch.bincount(predicted[y == k], minlength=outputs) for k in present]).double()
    shares: list[list[float]] = (counts / counts.sum(1, keepdim=True)).tolist()
    return shares


def _mistakes(y: Tensor, predicted: Tensor, group_of: Mapping[int, str]) -> dict[str, Any]:
    """Of attacked mistakes about classes in a group: the share that stays within it, overall and group by group."""
    inside: dict[str, list[bool]] = {group: [] for group in group_of.values()}
    for true, predicted_class in zip(y.tolist(), predicted.tolist(), strict=True):
        if true != predicted_class and true in group_of:
            inside[group_of[true]].append(group_of.get(predicted_class) == group_of[true])
    every = [inside_group for part in inside.values() for inside_group in part]
    within = {group: sum(part) / len(part) if part else None for group, part in inside.items()}
    return {"mistakes": len(every), "within": sum(every) / len(every) if every else None, "by_group": within}


def tied_with_worst(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The classes, of rows with ``accuracy`` and ``inputs``, that are not shown to be more robust than the worst."""
    shares = [(round(row["accuracy"] * row["inputs"]), int(row["inputs"])) for row in rows]
    worst = min(range(len(rows)), key=lambda k: float(rows[k]["accuracy"]))
    return [rows[k]["class"] for k in tied_shares(shares, worst) if k != worst]


def _is_significant(worst: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the worst class is less robust than all others together, by more than the choice of it explains."""
    from scipy.stats import fisher_exact

    if len(rows) < 2:
        return False
    correct_by_class = [round(row["accuracy"] * row["inputs"]) for row in rows]
    correct = round(worst["accuracy"] * worst["inputs"])
    others, count = sum(correct_by_class) - correct, sum(row["inputs"] for row in rows) - worst["inputs"]
    table = [[correct, worst["inputs"] - correct], [others, count - others]]
    return bool(float(fisher_exact(table, alternative="less").pvalue) * len(rows) < _LEVEL)


def _verdict(data: Mapping[str, Any], worst: Mapping[str, Any], significant: bool) -> str:
    between = f"{worst['low']:.1%} to {worst['high']:.1%}"
    tied = f", not told from {joined(data['tied'])}" if data["tied"] else ""
    text = (
        f"Robust accuracy under {data['attack']} is {data['robust']:.1%}; in the worst class, {worst['class']}, "
        f"{worst['accuracy']:.1%} ({between}, {worst['inputs']} inputs{tied}), {100 * data['mcd']:.0f} points below "
        "the best"
    )
    return text + ("." if significant else "; that may be chance.")
