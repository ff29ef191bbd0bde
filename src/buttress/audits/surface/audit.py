"""The loss around inputs: how it looks, how far from its tangent it is, and whether the gradient leads uphill."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from buttress.attacks import Attack
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base.audit import Audit
from buttress.audits.base.finding import Finding, Topic
from buttress.audits.base.loss_around import LossAround
from buttress.audits.base.statistics import INTERVAL, interval, median
from buttress.audits.base.subject import Subject
from buttress.audits.base.work import Work, asked
from buttress.audits.surface.directions import across, budget_line, moved, steepest, towards
from buttress.audits.surface.measures import ON_THE_WAY, Measured, tangent
from buttress.engine.pass_count import PassCount
from buttress.errors import UserError
from buttress.losses import Loss
from buttress.random import Random, derive, generator
from buttress.registry import audit
from buttress.tasks import Task
from buttress.threat import budget_text, per_row
from buttress.validation import one_of, positive, whole

Direction = Literal["gradient", "attack"]

_TITLE = "Loss surface"
_BANDS = {"small": (0.0, 0.2), "medium": (0.4, 0.6), "large": (0.8, 1.0)}  # of the right inputs, by their margin
_NEAR = 0.1  # of the budget: where a gradient that means what it says cannot be far off
_ODD = 0.05  # share of inputs beyond which a random direction that is steeper is a warning


@audit("surface")
@dataclass(frozen=True, kw_only=True)
class Surface(Audit):
    """The loss, and the margin, around inputs: pictures of some, and figures over more of them.

    A picture shows the loss in the plane of two steps of size eps: along the steepest direction (the gradient's sign in
    linf), or towards the example that the attack found, and at random across it. Points beyond the range of inputs are
    put back into it, as an attack must.

    Figures, over inputs that the network gets right, by each loss l with gradient g, within the budget:

    - linearity error: max |l(x + d) - l(x) - d g| (Qin et al., NeurIPS 2019, equation 5), as far as a search finds it:
      ``steps`` of projected ascent from a random start, as there, and besides the gradient's step and the attack's
      example. Also as a share of the rise that the gradient predicts for its own step u.
    - curvature: l(x + u) + l(x - u) - 2 l(x), of the step u along the gradient, less what clipping adds.
    - roughness: of the loss's ups and downs on the way along u, the share that cancels out; 0 where it only rises.
    - steeper at random: whether the best of ``draws`` random steps and their opposites raises the loss that decides by
      more than u does, at the budget and at a tenth of it. So near by, on more than a few inputs, it is a sign of
      gradients that do not say where the loss rises (masking).

    Args:
        attack: its threat is the budget; what it finds is the other direction.
        direction: of the pictures' first axis: "gradient" or "attack".
        inputs: inputs measured, spread evenly over those that are right.
        grid: points along each axis of a picture, odd, so that the input is one of them.
        reach: of the pictures, in budgets.
        steps: of the search for the linearity error.
        draws: random directions tried.
    """

    topic: ClassVar[Topic] = "Whether the figures can be trusted"
    needs_classes = False

    attack: Attack = PGD(steps=20)
    direction: Direction = "gradient"
    inputs: int = 64
    grid: int = 25
    reach: float = 2.0
    steps: int = 10
    draws: int = 8

    def __post_init__(self) -> None:
        """Refuse settings that show nothing."""
        one_of("direction", self.direction, ("gradient", "attack"))
        for name in ("inputs", "steps", "draws"):
            whole(name, getattr(self, name))
        if whole("grid", self.grid, 3) % 2 == 0:
            raise UserError(f"grid must be odd, so that the input is one of the points; got {self.grid}")
        positive("reach", self.reach)

    def check(self, subject: Subject) -> None:
        """Refuse an attack without a budget.

        Raises:
            UserError: naming it.
        """
        eps = self.attack.threat.eps
        if eps == 0 or math.isinf(eps):
            raise UserError(f"surface looks as far as a budget: give {self.attack.label()} an eps; got {eps:g}")

    def work(self, subject: Subject) -> Work:
        """The attack; by each loss what is measured around an input, and the points of three pictures."""
        count, losses = len(subject.y), len(surface_losses(subject.task))
        searched = PassCount(2 * self.steps, self.steps)
        way = PassCount(ON_THE_WAY + 12, 2) + PassCount(2 * (2 * self.draws + 2))
        own = (searched + way) * (losses * min(self.inputs, count)) + PassCount(2 * count)
        pictures = PassCount(self.grid**2 + 2 * losses + 1, losses + 1) * len(_BANDS)
        return Work(asked([self.attack], count), own + pictures)

    def ask(self, subject: Subject) -> Finding:
        """Measure the inputs that are right, and draw three of them."""
        right = (~subject.task.is_adversarial(subject.logits, subject.y)).nonzero().squeeze(1)
        if not len(right):
            return Finding(
                "surface", _TITLE, f"No input is {subject.task.right}: there is nothing to look at.", "info", {}
            )
        losses = {name: LossAround(subject, loss) for name, loss in surface_losses(subject.task).items()}
        deciding = list(losses)[-1]
        x_adv = subject.attacked(self.attack).outcome.x_adv
        rows = right[torch.linspace(0, len(right) - 1, min(self.inputs, len(right))).round().long()]
        measures, steeper = dict[str, Any](), dict[str, Any]()
        for k, (name, loss) in enumerate(losses.items()):
            inputs = {"x": subject.x[rows], "y": subject.y[rows], "ids": subject.ids[rows]}
            measured = Measured(loss=loss, threat=self.attack.threat, seed=subject.seed, **inputs)
            measures[name] = _summary(measured, measured.linearity_error(self.steps, x_adv[rows]))
            if name == deciding:
                shares = {where: self._steeper(measured, share) for where, share in (("near", _NEAR), ("budget", 1.0))}
                steeper = {**shares, "flat": int((measured.rise == 0).sum()), "draws": self.draws}
            if subject.watch is not None:
                subject.watch("surface", (k + 1) / (len(losses) + 1))
        lead = -losses[deciding].value(subject.x[right], subject.y[right])
        chosen = {band: int(right[row]) for band, row in _chosen(lead, subject.seed).items()}
        items = [self._item(subject, losses, row, x_adv, band) for band, row in chosen.items()]
        threat = self.attack.threat
        data = {
            "norm": threat.norm,
            "eps": threat.eps,
            "inputs": len(rows),
            "losses": list(losses),
            "deciding": deciding,
            "direction": self.direction,
            "attack": self.attack.label(),
            "axis": self._axis().tolist(),
            "interval": f"medians by bootstrap over inputs, 95 %; shares {INTERVAL}",
            "measures": measures,
            "steeper": steeper,
            "items": items,
        }
        masked = steeper["near"]["low"] > _ODD
        return Finding("surface", _TITLE, _verdict(data), "warning" if masked else "info", data)

    def _steeper(self, measured: Measured, share: float) -> dict[str, Any]:
        found = measured.steeper_at_random(share, self.draws)
        count, total = int(found.sum()), len(found)
        low, high = interval(count, total)
        return {"of_budget": share, "inputs": count, "share": count / total, "low": low, "high": high}

    def _axis(self) -> Tensor:
        return torch.linspace(-self.reach, self.reach, self.grid, dtype=torch.float64)

    def _item(
        self, subject: Subject, losses: dict[str, LossAround], row: int, x_adv: Tensor, band: str
    ) -> dict[str, Any]:
        """One input's surfaces, by loss a row for each place across and a column for each place along."""
        x, y, ids = (part[row : row + 1] for part in (subject.x, subject.y, subject.ids))
        threat, axis = self.attack.threat, self._axis().to(x.device)
        deciding = next(reversed(losses.values()))
        if self.direction == "attack":
            along = towards(threat, x, x_adv[row : row + 1])
        else:
            along = steepest(threat, x, deciding.gradient(x, y))
        side = across(threat, along, Random(derive(subject.seed, "surface", "across"), ids))
        down, right = (part.flatten() for part in torch.meshgrid(axis, axis, indexing="ij"))
        values: dict[str, list[Tensor]] = {name: [] for name in losses}
        # Each point is a whole input, in float64 for a moment: of large ones few at once.
        for places in torch.split(torch.arange(len(down), device=x.device), max(1, subject.batch_size // 8)):
            steps = per_row(right[places], x) * along + per_row(down[places], x) * side
            output = subject.output(moved(threat, x, steps)).double()
            for name, loss in losses.items():
                values[name].append(loss.loss.value(output, y.expand(len(places), *y.shape[1:])))
        line = moved(threat, x, per_row(axis, x) * along)
        tangents = {name: tangent(loss.gradient(x, y), line, x) for name, loss in losses.items()}
        decision = subject.task.decision(subject.logits[row : row + 1])[0]
        return {
            "margin": band,
            "id": int(ids[0]),
            "truth": subject.task.words(y[0], subject.classes),
            "answer": subject.task.words(decision, subject.classes),
            "budget": [_rounded(part) for part in budget_line(threat, along, side)],
            "surfaces": {
                name: [_rounded(line) for line in torch.cat(parts).view(self.grid, self.grid).tolist()]
                for name, parts in values.items()
            },
            "tangents": {name: _rounded(rises.tolist()) for name, rises in tangents.items()},
        }


def surface_losses(task: Task) -> dict[str, Loss]:
    """The losses of a task that are looked at, by name: what training minimises, what attacks climb, what decides."""
    margin = ["margin"] * ("margin" in task.meanings or task.classes)
    losses = {name: task.resolve(name) for name in dict.fromkeys([task.objective_loss, task.loss, *margin])}
    return {name: loss for name, loss in losses.items() if loss.against == "label"}


def _chosen(lead: Tensor, seed: int) -> dict[str, int]:
    """A position for each band of the margin, drawn from the seed; each at most once."""
    order, random, found = lead.argsort(stable=True).tolist(), generator(seed, "surface"), dict[str, int]()
    for band, (low, high) in _BANDS.items():
        within = order[int(low * len(order)) : max(1, math.ceil(high * len(order)))]
        position = within[int(torch.randint(len(within), (), generator=random))]
        if position not in found.values():
            found[band] = position
    return found


def _summary(measured: Measured, error: Tensor) -> dict[str, Any]:
    """Medians over the inputs, and the error beside the predicted rise where there is one."""
    seed, rise = measured.seed, measured.rise
    sloping = rise > 0
    return {
        "linearity_error": median(error, seed),
        "share_of_rise": median(error[sloping] / rise[sloping], seed) if bool(sloping.any()) else None,
        "rise": median(rise, seed),
        "curvature": median(measured.curvature(), seed),
        "roughness": median(measured.roughness(), seed),
    }


def _rounded(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.6g}") for value in values]


def _verdict(data: dict[str, Any]) -> str:
    name, found, near = data["deciding"], data["measures"][data["deciding"]], data["steeper"]["near"]
    budget = f"{data['norm']} eps {budget_text(data['eps'])}"
    if found["share_of_rise"] is None:
        return f"Within {budget} there is no gradient of the {name} to follow, on any of {data['inputs']} inputs."
    share = found["share_of_rise"]
    departs = f"{share['median']:.1%} ({share['low']:.1%} to {share['high']:.1%})"
    text = (
        f"Within {budget} the {name.replace('_', ' ')} departs from its tangent by {departs} of the rise that the "
        f"gradient predicts (median of {data['inputs']} inputs)."
    )
    if not near["inputs"]:
        return f"{text} At a tenth of the budget no random direction is steeper than the gradient."
    odd = f"{near['share']:.1%} ({near['low']:.1%} to {near['high']:.1%})"
    sign = ": a sign that gradients do not say where it rises (masking)" if near["low"] > _ODD else ""
    return f"{text} At a tenth of the budget a random direction is steeper than the gradient on {odd} of them{sign}."
