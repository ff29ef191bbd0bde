"""Single inputs: how near each is to failing, which fail together, whose labels look wrong, what to collect."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from buttress.attacks import Attack
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base.audit import Audit
from buttress.audits.base.finding import Finding, Severity, Topic
from buttress.audits.base.statistics import median
from buttress.audits.base.subject import Stored, Subject
from buttress.audits.base.verifying_time import verifying_seconds
from buttress.audits.base.work import Work, asked
from buttress.audits.inputs.brackets import AUTO, HALVINGS, RADII, Brackets, brackets, search_runs, verifier_for
from buttress.audits.inputs.cards import Facts, cards
from buttress.audits.inputs.collect import weakest_class, what_to_collect
from buttress.audits.inputs.failures import failures
from buttress.audits.inputs.labels import label_errors
from buttress.engine.pass_count import PassCount
from buttress.errors import UserError
from buttress.layers import sustainability
from buttress.registry import audit
from buttress.threat import budget_text
from buttress.validation import one_name, switch, whole

_LAYERS = 32  # whose inputs are listed
_CLASSES = 40  # whose inputs are listed, those with the most that fail


@audit("inputs")
@dataclass(frozen=True, kw_only=True)
class Inputs(Audit):
    """What there is to say of single inputs, from which a report goes from a class or a layer to its inputs.

    Of ``inputs`` of them it gives the clean margin, the smallest perturbation that was found to make each wrong and the
    size up to which none does, by a certificate (see `brackets`); the easiest and the hardest; the inputs that fail
    under the first attack, as groups in the space of the network's last features (k-means, their number by the
    silhouette); labels that look wrong by confident learning (Northcutt, Jiang and Chuang, JAIR 2021), which needs
    inputs that the network was not trained on; and what to collect next. All but the brackets is of all inputs.

    Tasks without classes have all but label errors and lists by class.

    Args:
        attacks: of one norm and one box; those of others than the first are left out by name. An input fails when the
            first is successful, within half of all smallest perturbations where it has no budget.
        inputs: how many inputs' smallest perturbations are searched, spread evenly over the data.
        minimum_norm: whether FAB, FMN, DDN and DeepFool, where they are defined, search beside the attacks.
        certificate: the verifier that bounds from below: "auto" for CROWN, or CROWN-IBP where the network is too large
            for it; a name, as "crown"; None for none.
        shown: inputs that each list shows.
        pictures: inputs that are shown at all, in all lists together.
    """

    topic: ClassVar[Topic] = "Where it fails"
    needs_classes = False

    attacks: Sequence[Attack] = (PGD(steps=20),)
    inputs: int = 100
    minimum_norm: bool = True
    certificate: str | None = AUTO
    shown: int = 8
    pictures: int = 250

    def __post_init__(self) -> None:
        """Refuse what shows nothing."""
        if not self.attacks:
            raise UserError("an audit of inputs needs at least one attack; got none")
        whole("inputs", self.inputs)
        whole("shown", self.shown)
        whole("pictures", self.pictures, 0)
        switch("minimum_norm", self.minimum_norm)
        if self.certificate is not None:
            one_name("certificate", self.certificate)

    def work(self, subject: Subject) -> Work:
        """The attack, the searches for the smallest perturbation, what looks at layers, and the certificate."""
        attacks, _ = _of_one_threat([attack.within() for attack in self.attacks])
        count, few = len(subject.y), min(self.inputs, len(subject.y))
        searches, seconds = search_runs(attacks, self.minimum_norm, subject.task), 0.0
        if self.certificate is not None:
            with suppress(UserError):  # a network that cannot be bounded, or a task without classes
                seconds = (
                    RADII * few * verifying_seconds(subject, attacks[0].threat, verifier_for(subject, self.certificate))
                )
        own = PassCount(5 * count) + PassCount(HALVINGS * len(searches) * few)
        return Work((*asked(attacks[:1], count), *asked(searches, few, "first")), own, seconds)

    def ask(self, subject: Subject) -> Finding:
        """Attack, search, bound, group and list."""
        attacks, others = _of_one_threat([attack.within() for attack in self.attacks])
        attack, count = attacks[0], len(subject.y)
        outcome = subject.attacked(attack).outcome
        rows = torch.linspace(0, count - 1, min(self.inputs, count), device=subject.y.device).round().long()
        found = brackets(subject, rows, attacks, self.minimum_norm, self.certificate)
        facts = _facts(subject, rows, found, outcome.x_adv)
        budget = attack.threat.eps
        if math.isinf(budget):  # any input fails somewhere
            needed = found.smallest[found.smallest > 0]
            budget = float(needed.quantile(0.5, interpolation="lower")) if len(needed) else 0.0
            facts = _within(facts, rows[found.smallest > budget])
        failing = facts.order((~facts.robust).nonzero().squeeze(1))
        grouped = failures(facts, failing, self.shown)
        hard = facts.order(rows[found.smallest > 0])
        half = (len(hard) + 1) // 2  # so that no input is among both
        data: dict[str, Any] = {
            "attack": attack.label(),
            "threat": attack.threat.text(budget),
            "norm": attack.threat.norm,
            "inputs": count,
            "failing": len(failing),
            "wrong": int((~facts.right).sum()),
            "measured": _measured(subject, rows, found, facts),
            "hardest": facts.ids(hard[:half], self.shown),
            "easiest": facts.ids(hard[half:].flip(0), self.shown),
            **grouped,
            "by_layer": self._by_layer(facts, outcome.x_adv),
        }
        data["measured"]["left_out"] |= others
        weakest = None
        if subject.task.classes:
            data |= self._of_classes(facts, failing)
            weakest = weakest_class(subject.y, facts.robust, subject.classes)
        data |= {"weakest": weakest, "collect": what_to_collect(weakest, grouped["groups"], len(failing))}
        data["cards"] = cards(facts, _listed(data), self.pictures)
        severity: Severity = "bad" if data["measured"]["crossed"] else "info"
        return Finding("inputs", "Inputs", _verdict(data, subject.task.right), severity, data)

    def _of_classes(self, facts: Facts, failing: Tensor) -> dict[str, Any]:
        """Labels that look wrong, and the failing inputs of each class."""
        subject = facts.subject
        errors = label_errors(subject.logits.softmax(1), subject.y)
        suspects = [
            {"id": int(subject.ids[row]), "suggested": subject.task.words(errors.suggested[i], subject.classes)}
            for i, row in enumerate(errors.rows[: 2 * self.shown].tolist())
        ]
        of_class = [(k, failing[subject.y[failing] == k]) for k in torch.unique(subject.y).tolist()]
        listed = sorted(of_class, key=lambda part: -len(part[1]))[:_CLASSES]
        by_class = [
            {
                "class": subject.task.words(torch.tensor(k), subject.classes),
                "index": k,
                "failing": len(part),
                "inputs": int((subject.y == k).sum()),
                "ids": facts.ids(part, self.shown),
            }
            for k, part in sorted(listed, key=lambda part: part[0])
        ]
        labels = {"count": len(errors.rows), "rate": errors.rate, "suspects": suspects}
        return {"labels": labels, "by_class": by_class}

    def _by_layer(self, facts: Facts, x_adv: Tensor) -> list[dict[str, Any]]:
        """The inputs whose displacement is largest, layer by layer; none where no layer is seen."""
        subject = facts.subject
        try:
            profile = sustainability(
                subject.model,
                [(subject.x, subject.y)],
                {"attack": Stored(torch.arange(len(subject.y), device=subject.y.device), x_adv)},
                task=subject.task,
                seed=subject.seed,
                batch_size=subject.batch_size,
            )
        except UserError:
            return []
        lists = []
        for name, values in list(zip(profile.layers, profile.values[0], strict=True))[:_LAYERS]:
            order = values.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)
            order = order[~values[order].isnan()][: self.shown]
            lists.append(
                {"layer": name, "ids": facts.ids(order.to(subject.ids.device), self.shown)}
                | {"displacement": values[order].tolist()}
            )
        return lists


def _of_one_threat(attacks: Sequence[Attack]) -> tuple[list[Attack], dict[str, str]]:
    """Those whose perturbations are measured as the first's are, and the others with the reason."""

    def measure(attack: Attack) -> tuple[Any, ...]:
        threat = attack.threat
        return threat.norm, threat.box, threat.mask, threat.shares

    same = [attack for attack in attacks if measure(attack) == measure(attacks[0])]
    reason = f"its threat is another than that of {attacks[0].label()}"
    return same, {attack.label(): reason for attack in attacks if attack not in same}


def _facts(subject: Subject, rows: Tensor, found: Brackets, x_adv: Tensor) -> Facts:
    task, attacked = subject.task, subject.output(x_adv)
    right = ~task.is_adversarial(subject.logits, subject.y)
    try:
        margin = -task.resolve("margin").value(subject.logits, subject.y)
    except UserError:  # the task has none
        margin = None
    smallest, certified = torch.full((2, len(subject.y)), math.nan, dtype=torch.float64, device=subject.y.device)
    smallest[rows] = found.smallest
    if found.certified is not None:
        certified[rows] = found.certified
    robust = right & ~task.is_adversarial(attacked, subject.y)
    return Facts(subject, attacked, right, robust, margin, smallest, certified)


def _within(facts: Facts, robust: Tensor) -> Facts:
    """The facts with these rows as the robust ones; what was not searched does not count as failing."""
    stands = facts.smallest.isnan()
    stands[robust] = True
    return replace(facts, robust=stands)


def _measured(subject: Subject, rows: Tensor, found: Brackets, facts: Facts) -> dict[str, Any]:
    """The brackets of all inputs that were searched, and their medians over those that are right."""
    right = facts.right[rows]
    certified = None if found.certified is None else found.certified
    medians: dict[str, Any] = {}
    if bool(right.any()):
        medians["smallest_median"] = median(found.smallest[right], subject.seed)
        if certified is not None:
            medians["certified_median"] = median(certified[right], subject.seed)
    return {
        "ids": facts.ids(rows, len(rows)),
        "margin": None if facts.margin is None else facts.margin[rows].tolist(),
        "smallest": found.smallest.tolist(),
        "found_by": found.found_by,
        "certified": None if certified is None else certified.tolist(),
        "unknown": found.unknown,
        "attacks": found.attacks,
        "left_out": found.left_out,
        "right": int(right.sum()),
        "crossed": facts.ids(rows[found.crossed], len(rows)),
        **medians,
    }


def _listed(data: dict[str, Any]) -> Iterable[int]:
    """The ids in all lists: first those that there is no second way to."""
    yield from [*data["hardest"], *data["easiest"]]
    yield from (suspect["id"] for suspect in data.get("labels", {}).get("suspects", []))
    for lists in ("groups", "by_layer", "by_class"):
        yield from (i for entry in data.get(lists, []) for i in entry["ids"])


def _verdict(data: dict[str, Any], right: str) -> str:
    measured, parts = data["measured"], list[str]()
    if crossed := measured["crossed"]:
        parts.append(
            f"A certificate and an attack contradict each other on {len(crossed)} inputs (the first is {crossed[0]}): "
            "one of both is computed wrongly, please report it."
        )
    if "smallest_median" in measured:
        size = measured["smallest_median"]["median"]
        known = f"of the {measured['right']} inputs searched that are {right}"
        if math.isinf(size):
            parts.append(f"For fewer than half {known} any perturbation was found.")
        else:
            bound = measured.get("certified_median")
            below = f", and are certified up to {bound['median']:.3g}" if bound and bound["median"] > 0 else ""
            parts.append(f"Half {known} fall to a {data['norm']} perturbation of {budget_text(size)} or less{below}.")
    else:
        parts.append(f"None of the inputs searched is {right}.")
    count = len(data["groups"])
    together = f", in {count} groups" if count > 1 else ""
    parts.append(f"{data['failing']} of {data['inputs']} fail under {data['attack']} at {data['threat']}{together}.")
    if data.get("labels", {}).get("count"):
        parts.append(f"{data['labels']['count']} labels look wrong, if the network was not trained on these inputs.")
    return " ".join([*parts, data["collect"]])
