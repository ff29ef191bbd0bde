"""Between what each input's smallest successful perturbation lies: found from above, certified from below."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from buttress import certificates
from buttress.attacks import Attack
from buttress.attacks.minimum_norm.ddn import DDN
from buttress.attacks.minimum_norm.deepfool import DeepFool
from buttress.attacks.minimum_norm.fab import FAB
from buttress.attacks.minimum_norm.fmn import FMN
from buttress.attacks.minimum_norm.smallest_perturbation import MinimumNorm
from buttress.audits.base.budget_sweep import at_budget
from buttress.audits.base.subject import Subject
from buttress.certificates import Verifier
from buttress.certificates.size import usual_verifier
from buttress.errors import NoGradientError, UserError
from buttress.tasks import Task
from buttress.threat import Threat, per_row

_BUDGETS = tuple(2.0 ** (step / 3) for step in range(-11, 4))  # shares of eps
_EPS = 11  # which of them is eps itself
_REACH = 32.0  # times eps, where there is no box that ends a search
HALVINGS = 10  # of the line from the input to a success
AUTO = "auto"
RADII = 12  # certificates that the search for the largest certified size takes, about
_ROUNDING = 1e-4  # relative, of bounds and distances in single precision


@dataclass(frozen=True)
class Brackets:
    """The smallest perturbation that makes each of M inputs wrong, from both sides.

    Attributes:
        smallest: (M,) float64, the size of the smallest that was found; 0 where the input is wrong unperturbed,
            infinite where none was found.
        found_by: M labels of the attacks that found them; empty texts where none did, or none is needed.
        attacks: the labels of all that searched.
        left_out: attack -> why it did not search.
        certified: (M,) float64, the size up to which no perturbation does; None where that could not be computed.
        unknown: why not; empty where it could.
    """

    smallest: Tensor
    found_by: list[str]
    attacks: list[str]
    left_out: dict[str, str]
    certified: Tensor | None
    unknown: str

    @property
    def crossed(self) -> Tensor:
        """(M,) bool: a perturbation was found within what was certified, which one of both computed wrongly."""
        if self.certified is None:
            return torch.zeros_like(self.smallest, dtype=torch.bool)
        return self.certified > self.smallest * (1 + _ROUNDING)


def brackets(
    subject: Subject, rows: Tensor, attacks: Sequence[Attack], besides: bool, certificate: str | None
) -> Brackets:
    """Search from above by attacks, and from below by a certificate.

    Attacks that look for the smallest perturbation run once, without a limit. Others run at budgets between eps / 13
    and 2 eps, a factor of 2^(1/3) apart, between which each input is bisected. What each found is then drawn back
    along the line to the input as far as it stays successful. All runs come from the subject's store.

    Args:
        subject: the network.
        rows: (M,) the inputs in question.
        attacks: of one norm and one box.
        besides: whether to run those of FAB, FMN, DDN and DeepFool too that are defined for the norm and the task.
        certificate: the name of a verifier, or `AUTO`; None for none.
    """
    y, threat = subject.y[rows], attacks[0].threat
    wrong = subject.task.is_adversarial(subject.logits[rows], y)
    smallest = torch.where(wrong, 0.0, math.inf).double()
    found_by, ran, left_out = [""] * len(rows), list[str](), dict[str, str]()
    for attack, required in _searching(attacks, besides, subject.task):
        try:
            points, success = _points(subject, attack, rows)
        except NoGradientError as reason:
            if required:
                raise
            left_out[attack.label()] = str(reason)
            continue
        ran.append(attack.label())
        distance = _drawn_back(subject, threat, rows, points, success & ~wrong)
        for i in (distance < smallest).nonzero().squeeze(1).tolist():
            found_by[i] = attack.label()
        smallest = torch.minimum(smallest, distance)
    certified, unknown = _certified(subject, rows, threat, smallest, certificate)
    return Brackets(smallest, found_by, ran, left_out, certified, unknown)


def _searching(attacks: Sequence[Attack], besides: bool, task: Task) -> Iterator[tuple[Attack, bool]]:
    """The attacks, and whether each was asked for by name."""
    for attack in attacks:
        yield attack, True
    threat = attacks[0].threat
    searching = {type(attack.innermost) for attack in attacks}
    for kind in (FMN, DDN, DeepFool, FAB) if besides else ():
        try:
            attack = kind(threat=replace(threat, eps=1.0))
        except UserError:  # not defined in this norm
            continue
        if kind not in searching and (task.classes or not attack.needs_classes):
            yield attack.varied(threat=threat, **({"steps": 20} if kind is FAB else {})), False


def search_runs(attacks: Sequence[Attack], besides: bool, task: Task) -> list[Attack]:
    """The runs of all that searches, at most: of what has a budget as many as bisection takes, at several of them."""
    runs = list[Attack]()
    for attack, _ in _searching(attacks, besides, task):
        if isinstance(attack.innermost, MinimumNorm):
            runs.append(_far(attack))
        elif math.isinf(attack.threat.eps):
            runs.append(attack)
        else:
            steps = math.ceil(math.log2(len(_BUDGETS) + 1))
            runs += [at_budget(attack, attack.threat.eps * share) for share in _BUDGETS[_EPS - steps + 1 : _EPS + 1]]
    return runs


def verifier_for(subject: Subject, certificate: str) -> str | Verifier:
    """The verifier of this name; for `AUTO` that which a network of this size leaves time for.

    Raises:
        UserError: for a network that cannot be bounded.
    """
    return usual_verifier(subject.model, subject.x[:1], subject.task) if certificate == AUTO else certificate


def _far(attack: Attack) -> Attack:
    """The search for the smallest perturbation without a limit, or with one that no input needs."""
    threat = attack.threat
    return at_budget(attack, math.inf if threat.box is not None else _REACH * threat.eps)


def _points(subject: Subject, attack: Attack, rows: Tensor) -> tuple[Tensor, Tensor]:
    """(M, ...) what the attack ended with for each of the inputs, and (M,) bool whether that fools the network."""
    threat = attack.threat
    if isinstance(attack.innermost, MinimumNorm):
        outcome = subject.attacked(_far(attack), search="first", rows=_or_all(subject, rows)).outcome
        return outcome.x_adv, outcome.success
    if math.isinf(threat.eps):
        outcome = subject.attacked(attack, search="first", rows=_or_all(subject, rows)).outcome
        return outcome.x_adv, outcome.success
    return _bisected(subject, attack, rows)


def _bisected(subject: Subject, attack: Attack, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The same at the smallest of the budgets at which bisection, which begins at eps, saw the attack succeed."""
    points, success = subject.x[rows].clone(), torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    low = torch.full((len(rows),), -1, device=rows.device)
    high, middle = torch.full_like(low, len(_BUDGETS)), torch.full_like(low, _EPS)
    while bool((high - low > 1).any()):
        for index in torch.unique(middle[high - low > 1]).tolist():
            asked = ((middle == index) & (high - low > 1)).nonzero().squeeze(1)
            at = at_budget(attack, attack.threat.eps * _BUDGETS[index])
            outcome = subject.attacked(at, search="first", rows=_or_all(subject, rows[asked])).outcome
            beaten = asked[outcome.success]
            points[beaten], success[beaten] = outcome.x_adv[outcome.success], True
            high[beaten], low[asked[~outcome.success]] = index, index
        middle = (low + high) // 2
    return points, success


def _or_all(subject: Subject, rows: Tensor) -> Tensor | None:
    """None for all inputs in their order, which is what other audits ask the store for."""
    return None if len(rows) == len(subject.y) else rows


def _drawn_back(subject: Subject, threat: Threat, rows: Tensor, points: Tensor, success: Tensor) -> Tensor:
    """(M,) float64 the size of the shortest successful perturbation seen on the line to the input."""
    asked = success.nonzero().squeeze(1)
    distance = torch.full((len(rows),), math.inf, dtype=torch.float64, device=rows.device)
    if not len(asked):
        return distance
    x, y, far = subject.x[rows[asked]], subject.y[rows[asked]], points[asked]
    distance[asked] = threat.distance(far, x)
    low = torch.zeros(len(asked), dtype=x.dtype, device=x.device)
    high = torch.ones_like(low)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        near = x + per_row(middle, x) * (far - x)
        beaten = subject.task.is_adversarial(subject.output(near), y)
        shorter = torch.where(beaten, threat.distance(near, x), math.inf)
        distance[asked] = torch.minimum(distance[asked], shorter)
        low, high = torch.where(beaten, low, middle), torch.where(beaten, middle, high)
    return distance


def _certified(
    subject: Subject, rows: Tensor, threat: Threat, smallest: Tensor, method: str | None
) -> tuple[Tensor | None, str]:
    """(M,) certified sizes, or None and why there are none."""
    if method is None:
        return None, "no certificate was asked for"
    needed = smallest[(smallest > 0) & smallest.isfinite()]
    largest = float(needed.max()) if len(needed) else 2 * threat.eps
    if not 0 < largest < math.inf:
        return None, "no size is known up to which to look"
    try:
        verifier = verifier_for(subject, method)
        radius = certificates.radius(
            subject.model,
            subject.x[rows],
            subject.y[rows],
            threat=replace(threat, eps=largest),
            method=verifier,
            task=subject.task,
            seed=subject.seed,
            ids=subject.ids[rows],
        )
    except UserError as reason:
        return None, str(reason)
    return radius.double(), ""
