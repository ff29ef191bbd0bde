"""Whether adversarial examples come home: do they stand once the class that they were taken for is gone?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from buttress.attacks import Perturbation
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base.audit import TAKES_ATTACKS, Audit
from buttress.audits.base.finding import Finding, Topic
from buttress.audits.base.ranking import joined
from buttress.audits.base.statistics import INTERVAL, accuracy, bootstrap, paired
from buttress.audits.base.subject import Subject
from buttress.audits.base.work import Work, asked
from buttress.data.class_names import class_indices
from buttress.engine.pass_count import PassCount
from buttress.errors import UserError
from buttress.registry import audit

NO_EXAMPLE = -1  # in the place of the class that an input's adversarial example is taken for


@audit("homing")
@dataclass(frozen=True, kw_only=True)
class Homing(Audit):
    """The homing experiment (Tian, Kuang, Jiang, Wu and Wang, KDD 2021), on networks retrained without a class.

    An input of class c that is classified correctly, and as k under attack, has the confound class k. It comes home if
    the attack fails on a network that was trained without class k. Networks without a class are more robust in any
    case, having fewer classes to confuse; so the same inputs are attacked on the networks without another class, too:
    on the one whose removed class is as robust as k, or nearest to it (the control), and on all others on average.

    The paper says in words what the experiment is; the controls are ours. Intervals are over inputs: what another
    training would change is seen over seeds, as the recipe homing-fashion has them.

    Args:
        without: by class, its name or index, a network trained without it, whose outputs are the other classes in their
            order; for a control two at least. In a job, a run's folder: ``buttress train --without-classes NAME``.
        attack: what perturbs the inputs, on every network anew.
    """

    topic: ClassVar[Topic] = "Where it fails"

    without: Mapping[str | int, nn.Module | str]
    attack: Annotated[Perturbation, TAKES_ATTACKS] = PGD(steps=20)

    def check(self, subject: Subject) -> None:
        """Refuse what is no network, and networks for another number of classes.

        Raises:
            UserError: naming the class that the network is to be without.
        """
        self._networks(subject)

    def work(self, subject: Subject) -> Work:
        """The attack on the network, and on each of the others as if it were this one."""
        count = len(subject.y)
        most = self.attack.most_passes(subject.logits[0].numel()) or PassCount()
        others = most * (count * len(self.without))
        return Work(asked([self.attack], count, "first"), others + PassCount((2 + len(self.without)) * count))

    def ask(self, subject: Subject) -> Finding:
        """Attack the inputs on the network, and those of the other classes on each that lacks one."""
        networks = self._networks(subject)
        outcome = subject.attacked(self.attack, search="first").outcome
        correct = subject.logits.argmax(1) == subject.y
        taken_for = subject.output(outcome.x_adv).argmax(1).where(correct & outcome.success, NO_EXAMPLE)
        home = {k: self._home(subject, k, network) for k, network in networks.items()}
        robust = {k: float((~outcome.success[subject.y == k]).double().mean()) for k in range(len(subject.classes))}
        threat = self.attack.threat
        data: dict[str, Any] = {
            "attack": self.attack.label() + (f" at {threat.text()}" if threat is not None else ""),
            "inputs": len(subject.y),
            "seed": subject.seed,
            "interval": f"{INTERVAL}; of differences by bootstrap over inputs",
            "removed": [subject.classes[k] for k in networks],
            **homing_rates(subject.y.cpu(), taken_for.cpu(), home, robust, subject.classes, subject.seed),
        }
        return Finding("homing", "Homing", _verdict(data), "info", data)

    def _networks(self, subject: Subject) -> dict[int, nn.Module]:
        if not isinstance(self.without, Mapping) or not self.without:
            raise UserError("homing needs networks trained without a class: without={CLASS: NETWORK}")
        networks = {}
        for name, network in self.without.items():
            (k,) = class_indices([name], subject.classes)
            if not isinstance(network, nn.Module):
                raise UserError(f"homing: without {name}: a network was expected in Python; got {network!r}")
            part = replace(subject.subset(1), model=network, _logits=None)
            if (outputs := part.output(part.x).shape[1]) != len(subject.classes) - 1:
                others = f"{len(subject.classes) - 1} classes, all but {subject.classes[k]}"
                raise UserError(f"homing: without {name}: a network for {others}, was expected; got {outputs} outputs")
            networks[k] = network
        return networks

    def _home(self, subject: Subject, k: int, network: nn.Module) -> Tensor:
        """(N,) bool, on the CPU: the inputs of other classes that the network without class k holds under attack."""
        rows = (subject.y != k).nonzero().flatten()
        y = subject.y[rows]
        part = replace(
            subject,
            model=network,
            x=subject.x[rows],
            y=y - (y > k).long(),
            ids=subject.ids[rows],
            classes=tuple(name for index, name in enumerate(subject.classes) if index != k),
            tokens=None if subject.tokens is None else subject.tokens[rows],
            _logits=None,
        )
        home = torch.zeros(len(subject.y), dtype=torch.bool)
        home[rows.cpu()] = ~part.attacked(self.attack, search="first").outcome.success.cpu()
        return home


def homing_rates(
    y: Tensor,
    taken_for: Tensor,
    home: Mapping[int, Tensor],
    robust: Mapping[int, float],
    classes: tuple[str, ...],
    seed: int,
) -> dict[str, Any]:
    """Homing rates and their controls from a table of outcomes.

    Args:
        y: (N,) classes.
        taken_for: (N,) the class that the input's adversarial example is taken for; `NO_EXAMPLE` where it has none.
        home: by removed class, (N,) bool: the inputs that stand on the network without it.
        robust: robust accuracy by class, which says whose removal is the control of whose.
        classes: their names.
        seed: of the bootstrap.

    Returns:
        ``rows``, for each class and confound that there are examples of: how many, the homing rate with its interval,
        and the rates of the same examples where the control or any other class is removed; ``all``, the same over all
        rows; ``difference``, as of `statistics.paired`, from the control to the confound's removal, of the ``inputs``
        that have a control, whose homing rate is ``home``; ``beyond_others``, from the mean of all others. None where
        no class is left to be the control.
    """
    confounded = {
        (c, k): ((y == c) & (taken_for == k)).nonzero().flatten() for c in range(len(classes)) for k in home if c != k
    }
    confounded = {pair: index for pair, index in confounded.items() if len(index)}
    rows, parts = [], []
    for (c, k), index in confounded.items():
        others = [r for r in home if r not in (c, k)]
        control = min(others, key=lambda r: abs(robust[r] - robust[k])) if others else None
        came = home[k][index]
        like = None if control is None else home[control][index]
        mean = torch.stack([home[r][index] for r in others]).double().mean(0) if others else None
        parts.append((came, like, mean))
        row: dict[str, Any] = {"class": classes[c], "confound": classes[k], **_rates([parts[-1]])}
        rows.append({**row, "control_class": None if control is None else classes[control]})
    controlled = [(came, like, mean) for came, like, mean in parts if like is not None and mean is not None]
    data: dict[str, Any] = {"rows": rows, "all": _rates(parts) if parts else None}
    data |= {"difference": None, "beyond_others": None}
    if controlled:
        came, like, mean = (torch.cat(columns) for columns in zip(*controlled, strict=True))
        data["difference"] = {"inputs": len(came), "home": float(came.double().mean()), **paired(like, came, seed)}
        beyond = came.double() - mean
        low, high = bootstrap(len(beyond), lambda index: beyond[index].mean(1), seed)
        data["beyond_others"] = {"difference": float(beyond.mean()), "low": low, "high": high}
    return data


def _rates(parts: list[tuple[Tensor, Tensor | None, Tensor | None]]) -> dict[str, Any]:
    """The share that comes home, of all of these examples, and of those with a control the shares without it."""
    came = torch.cat([part[0] for part in parts])
    like = [part[1] for part in parts if part[1] is not None]
    mean = [part[2] for part in parts if part[2] is not None]
    return {
        "inputs": len(came),
        **accuracy(came),
        "control": accuracy(torch.cat(like)) if like else None,
        "others": float(torch.cat(mean).mean()) if mean else None,
    }


def _verdict(data: Mapping[str, Any]) -> str:
    removed = joined(data["removed"])
    every = data["all"]
    if every is None:
        return f"Under {data['attack']} no input that was classified correctly is taken for {removed}."
    text = (
        f"Of {every['inputs']} inputs that {data['attack']} moves into {removed}, {every['accuracy']:.1%} "
        f"({every['low']:.1%} to {every['high']:.1%}) stand on a network trained without the class they were moved into"
    )
    test = data["difference"]
    if test is None:
        return f"{text}; there is no network without another class to compare with."
    some = f"; of the {test['inputs']} with a control {test['home']:.1%} do" if test["inputs"] < every["inputs"] else ""
    return (
        f"{text}{some}, {every['control']['accuracy']:.1%} on one without another class of like robustness: "
        f"{100 * test['difference']:+.0f} points ({100 * test['low']:+.0f} to {100 * test['high']:+.0f}, exact McNemar "
        f"p = {test['p']:.2g})."
    )
