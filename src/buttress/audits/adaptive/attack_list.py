"""The attacks of an attacker who knows how a network is made, listed for one network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from buttress.attacks import Attack
from buttress.attacks.black_box.corners import Corners
from buttress.attacks.black_box.hopskipjump import HopSkipJump
from buttress.attacks.black_box.square import Square
from buttress.attacks.composed.eot import EoT
from buttress.attacks.composed.transfer import Transfer
from buttress.attacks.composed.variant import Variant
from buttress.attacks.gradient.apgd import APGD
from buttress.attacks.gradient.pgd import PGD
from buttress.random import Random
from buttress.threat import Threat

REFERENCE, WHITE, VARIANT, TRANSFER, BLACK = "reference", "white box", "variant", "transfer", "gradient-free"


@dataclass(frozen=True)
class Jitter:
    """Normal noise whose size is a share of the budget: eps times the share for each value, or as a norm on average.

    Args:
        threat: gives eps and norm.
        share: of eps.
    """

    threat: Threat
    share: float

    def __call__(self, x: Tensor, random: Random) -> Tensor:
        """The inputs, (N, ...), with noise; each by its own draws."""
        features = math.prod(x.shape[1:])
        spread = {"linf": 1.0, "l2": math.sqrt(features), "l1": float(features)}[self.threat.norm]
        return x + self.share * self.threat.eps / spread * random.normal(x.shape[1:], x.dtype)


@dataclass(frozen=True)
class Entry:
    """One attack of the list.

    Attributes:
        attack: what is run.
        kind: "reference", "white box", "variant", "transfer" or "gradient-free".
        label: a few words.
        inputs: at most so many are attacked; all unless given.
    """

    attack: Attack
    kind: str
    label: str
    inputs: int | None = None


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is spent; 0 leaves a kind of attack out.

    Attributes:
        steps: of each attack by gradients.
        restarts: of PGD.
        targets: classes to move each input towards; all others unless given.
        jitters: noisy copies whose mean gradient is followed.
        jitter: their noise, as a share of eps.
        queries: of Square.
        decisions: of HopSkipJump.
        corners: random corners.
        corner_inputs: inputs that they are tried on.
    """

    steps: int
    restarts: int
    targets: int | None
    jitters: int
    jitter: float
    queries: int
    decisions: int
    corners: int
    corner_inputs: int


def attacks_on(
    classes: int, variants: Sequence[str], surrogates: Sequence[nn.Module], reference: Attack, effort: Effort
) -> Iterator[Entry]:
    """The attacks, the reference first, cheap ones before expensive ones.

    Args:
        classes: of the network.
        variants: names of the networks that it offers to craft on.
        surrogates: other networks for the same inputs and classes.
        reference: whose threat is that of all.
        effort: how much is spent.
    """
    yield Entry(reference, REFERENCE, reference.label())
    threat = reference.threat
    steps, restarts = effort.steps, effort.restarts
    pgds = [PGD(threat=threat, steps=steps, restarts=restarts, loss=loss) for loss in (None, "margin")]
    yield from (Entry(pgd, WHITE, pgd.label()) for pgd in pgds)
    for name in variants:
        yield from (Entry(Variant(attack=pgd, variant=name), VARIANT, f"{pgd.label()} on {name!r}") for pgd in pgds)
    for number, surrogate in enumerate(surrogates, start=1):
        for pgd in pgds:
            label = f"{pgd.label()} on surrogate {number}"
            yield Entry(Transfer(attack=pgd, surrogate=surrogate), TRANSFER, label)
    targets = classes - 1 if effort.targets is None else min(effort.targets, classes - 1)
    if targets:
        targeted = APGD(threat=threat, steps=steps, targets=targets, loss="margin")
        yield Entry(targeted, WHITE, targeted.label())
    if effort.jitters:
        inner = PGD(threat=threat, steps=steps, loss="margin")
        averaged = EoT(attack=inner, draws=effort.jitters, transforms=Jitter(threat, effort.jitter))
        yield Entry(averaged, WHITE, f"{inner.label()}, mean over {effort.jitters} jitters")
    yield from _gradient_free(threat, effort)


def _gradient_free(threat: Threat, effort: Effort) -> Iterator[Entry]:
    if effort.corners:
        corners = Corners(threat=threat, queries=effort.corners)
        yield Entry(corners, BLACK, corners.label(), effort.corner_inputs)
    if effort.queries:
        square = Square(threat=threat, queries=effort.queries)
        yield Entry(square, BLACK, square.label())
    if effort.decisions and threat.norm != "l1":  # it is defined in the others
        decision = HopSkipJump(threat=threat, queries=effort.decisions)
        yield Entry(decision, BLACK, decision.label())
