"""AutoAttack: a suite of attacks without settings to choose, each on the inputs that are robust to those before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from buttress.attacks.black_box.square import Square
from buttress.attacks.composed.certified_first import certified
from buttress.attacks.gradient.apgd import APGD
from buttress.attacks.minimum_norm.fab import FAB
from buttress.certificates import Verifier
from buttress.engine.attack import Attack
from buttress.engine.composition import staged
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.errors import UserError
from buttress.random import Random
from buttress.registry import attack, nearest
from buttress.threat import NOT_GIVEN, Threat, check_threat, per_row
from buttress.validation import one_of, whole

Version = Literal["standard", "plus", "rand"]
Part = Literal["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"]

SUITES: dict[Version, tuple[Part, ...]] = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
PARTS: tuple[Part, ...] = get_args(Part)


@attack("autoattack")
@dataclass(frozen=True, kw_only=True)
class AutoAttack(Attack):
    """The suite of Croce and Hein (ICML 2020; in l1: ICML 2021), composed as they publish it.

    Each part works on the inputs that are robust so far, and drops one with its first adversarial example, whatever the
    search; only where the model is in train mode all stay together. The point returned for a robust input is the input
    itself. `AttackResult.stages` has the figures of each part.

    ===========  ====================================================================================================
    "standard"   apgd-ce, apgd-t (9 targets), fab-t (9 targets), square; in l1 apgd starts in larger balls, apgd-ce
                 has 5 restarts, and apgd-t 5 targets
    "plus"       apgd-ce, apgd-dlr and fab with 5 restarts each, square, apgd-t and fab-t with 9 targets
    "rand"       apgd-ce and apgd-dlr, each answer the mean of 20 passes: for models that draw at random
    ===========  ====================================================================================================

    Models of fewer classes have fewer targets, and losses that need more classes are replaced, with a warning (see
    `losses.dlr`). When the attack was given a target, all parts lead there.

    Cost per input that is robust to "standard" in linf or l2, with 10 classes: about 7,000 forwards, 1,900 backwards.

    Args:
        threat: what is allowed; a finite eps or a box.
        version: "standard", "plus" or "rand".
        parts: the part or parts to run instead, in this order: "apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t",
            "square"; their settings are those of the version.
        steps: gradient steps of each run of apgd and fab.
        queries: of square.
        targets: of apgd-t and fab-t; as published where 0.
        restarts: of apgd-ce, apgd-dlr and fab; as published where 0.
        draws: passes whose mean is one answer; as published where 0.
        verifier: what it certifies is not attacked, as in `CertifiedFirst`; nothing unless given.
    """

    threat: Threat = NOT_GIVEN
    version: Version = "standard"
    parts: Part | Sequence[Part] | None = None
    steps: int = 100
    queries: int = 5000
    targets: int = 0
    restarts: int = 0
    draws: int = 0
    verifier: Verifier | None = None

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing, and settle the number of draws, which the engine asks for."""
        one_of("version", self.version, get_args(Version))
        for name in ("targets", "restarts", "draws"):  # 0 for as published
            whole(name, getattr(self, name), 0)
        whole("steps", self.steps)
        whole("queries", self.queries)
        if self.parts is not None:
            parts: object = (self.parts,) if isinstance(self.parts, str) else self.parts
            if not isinstance(parts, list | tuple) or not parts:
                raise UserError(f"parts must be names, one or more of {', '.join(PARTS)}; got {self.parts!r}")
            for name in parts:
                if not isinstance(name, str) or name not in PARTS:
                    raise UserError(f"there is no part {name!r}; {nearest(str(name), list(PARTS))}")
            object.__setattr__(self, "parts", tuple(parts))
        check_threat("AutoAttack", self.threat, finite=True)
        if not self.draws:
            object.__setattr__(self, "draws", 20 if self.version == "rand" else 1)
        self.suite()

    def label(self) -> str:
        """The version, which names all that is as published, and what differs: "AutoAttack (standard, 20 steps)"."""
        return f"{self._name()} ({', '.join([self.version, *self._changed()])})"

    @property
    def needs_classes(self) -> bool:
        """All parts but square follow classes."""
        return any(name != "square" for name, _ in self.suite())

    def suite(self) -> list[tuple[str, APGD | FAB | Square]]:
        """The parts by name, in order."""
        names = (self.parts,) if isinstance(self.parts, str) else self.parts or SUITES[self.version]
        resolved = self.within()
        return [(name, resolved._part(name)) for name in names]

    def search_passes(self, classes: int) -> PassCount:
        """Those of all parts, each with a forward at its end."""
        return sum((part.search_passes(classes) + PassCount(1) for _, part in self.suite()), start=PassCount())

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """What fooled the model first, input by input, and the others as they were."""
        robust = ~oracle.task.is_adversarial(oracle.clean, y, oracle.target)
        points, training = x.clone(), oracle.together
        if self.verifier is not None:
            robust &= ~certified(oracle, x, y, self.threat, self.verifier)
        for name, part in self.suite():
            rows = (robust & oracle.alive).nonzero().squeeze(1)
            if not len(rows):
                break
            rows = torch.arange(len(x), device=x.device) if training else rows
            crafted, won = (_together if training else staged)(oracle, part, rows, random, name)
            won = won & robust[rows]
            points[rows] = crafted.where(per_row(won, crafted), points[rows])
            robust[rows] &= ~won
        return points

    def _changed(self) -> list[str]:
        """What is not as the version has it: "20 steps"; the parts that are run by their names."""
        usual, changed = AutoAttack(version=self.version).settings(), list[str]()
        for name, value in self.settings().items():
            if name != "threat" and value != usual[name]:
                changed.append(_words(name, value))
        return changed

    def _part(self, name: str) -> APGD | FAB | Square:
        threat, steps, l1 = self.threat, self.steps, self.threat.norm == "l1"
        large = l1 and self.version == "standard"
        restarts = self.restarts or (5 if self.version == "plus" or large else 1)
        if name == "apgd-t":
            targets = self.targets or (5 if large else 9)
            return APGD(threat=threat, steps=steps, loss="dlr", targets=targets, large_start=large)
        if name.startswith("apgd"):
            loss = "cross_entropy" if name == "apgd-ce" else "dlr"
            return APGD(threat=threat, steps=steps, restarts=restarts, loss=loss, large_start=large)
        if name == "fab":
            return FAB(threat=threat, steps=steps, restarts=restarts)
        if name == "fab-t":
            return FAB(threat=threat, steps=steps, targets=self.targets or 9)
        return Square(threat=threat, queries=self.queries)


def _words(name: str, value: Any) -> str:
    """A setting that is not the version's: "20 steps", "apgd-ce + square", "certified by crown first"."""
    if isinstance(value, Verifier):
        return f"certified by {value.label()} first"
    return " + ".join(value) if isinstance(value, tuple) else f"{value} {name}"


def _together(oracle: Oracle, part: Attack, rows: Tensor, random: Random, name: str) -> tuple[Tensor, Tensor]:
    """`staged`, but no input leaves before the part is over."""
    inner = oracle.only(rows, search="full")
    points = part.points(inner, inner.x, inner.y, random.only(rows).fork(name))
    points, output = inner.settle(part.threat.project(points, inner.x))
    return points, oracle.merge(inner, rows, points, output, name)
