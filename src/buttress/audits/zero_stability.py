"""Whether small differences stay small from block to block: stability of the multistep methods in a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from buttress.attacks import Attack, Perturbation
from buttress.attacks.corruptions.noises import Gaussian
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base.audit import Audit
from buttress.audits.base.finding import Finding, Severity, Topic
from buttress.audits.base.subject import Subject
from buttress.audits.base.work import Work, asked
from buttress.engine.pass_count import PassCount
from buttress.engine.preserved_model import preserved
from buttress.errors import UserError
from buttress.layers.select import user_module
from buttress.models import forward_checked
from buttress.models.architectures.zerosnet import MultistepBlock
from buttress.models.blocks.multistep import (
    TOLERANCE,
    amplification,
    characteristic_roots,
    consistency_order,
    family_parameter,
    is_zero_stable,
    parasitic_modulus,
)
from buttress.registry import audit

_TITLE = "Zero stability"
_NOISE = Gaussian(std=0.1)


@audit("zero-stability")
@dataclass(frozen=True, kw_only=True)
class ZeroStability(Audit):
    """Characteristic roots of each multistep block, and how far differences of its states grow on the way through.

    Chen, Jin and Shang, AAAI 2022, arXiv 2206.13100. Roots show what a step does to differences where f is 0; with a
    step size of 1 and a trained f they are a heuristic, so what happens is measured beside them: the mean norms of the
    states, and of their differences under a noise and under an attack, after the first convolution and after each
    block. Batch normalisation inside f hides states that blow up, their norms do not. Where a stage begins the states
    have another size, so norms are to be compared within a stage, or between networks of one architecture.

    Cost per input: the attack, and three forwards.

    Args:
        attack: whose points are one kind of difference.
        noise: a perturbation without a threat, the other.
    """

    topic: ClassVar[Topic] = "What happens inside"
    needs_classes = False

    attack: Attack = PGD(steps=20)
    noise: Perturbation = _NOISE

    def check(self, subject: Subject) -> None:
        """Refuse a network without multistep blocks."""
        _blocks(subject.model)

    def work(self, subject: Subject) -> Work:
        """The noise, the attack, and the inputs with each."""
        count = len(subject.y)
        return Work(asked([self.noise, self.attack], count), PassCount(4 * count))

    def ask(self, subject: Subject) -> Finding:
        """Read the coefficients, then run the inputs and their perturbed copies."""
        blocks = _blocks(subject.model)
        rows = [_row(name, block) for name, block in blocks.items()]
        stepping = [row for row in rows if not row["start"]]
        growth = {}
        for kind, perturbation in (("noise", self.noise), ("attack", self.attack)):
            points = subject.attacked(perturbation).outcome.x_adv
            norms, differences = _growth(subject, list(blocks.values()), points)
            growth[kind] = {"label": perturbation.label(), "differences": differences, **_factors(differences)}
        data: dict[str, Any] = {
            "inputs": len(subject.x),
            "seed": subject.seed,
            "blocks": rows,
            "modulus": max((row["modulus"] for row in stepping), default=0.0),
            "unstable": sum(not row["stable"] for row in stepping),
            "stepping": len(stepping),
            "amplification": amplification([row["a"] for row in stepping]) if stepping else 1.0,
            "norms": norms,
            **growth,
        }
        return Finding("zero-stability", _TITLE, _verdict(data), _severity(data), data)


def _blocks(model: nn.Module) -> dict[str, MultistepBlock]:
    blocks = {name: block for name, block in model.named_modules() if isinstance(block, MultistepBlock)}
    if not blocks:
        raise UserError(
            "zero-stability needs a network of multistep blocks, such as the model zerosnet; "
            f"{type(user_module(model)).__name__} has none"
        )
    return blocks


def _row(name: str, block: MultistepBlock) -> dict[str, Any]:
    *a, b0 = block.values()
    return {
        "block": name,
        "start": block.start,
        "a": a,
        "b0": b0,
        "k": family_parameter([*a, b0]),
        "trained": block.k is not None,
        "order": consistency_order(a, b0),
        "roots": [[root.real, root.imag] for root in characteristic_roots(a)],
        "modulus": parasitic_modulus(a),
        "stable": is_zero_stable(a),
    }


def _growth(subject: Subject, blocks: Sequence[MultistepBlock], points: Tensor) -> tuple[list[float], list[float]]:
    """Means over the inputs of the norms of each state, and of its difference at ``points`` (N, ...)."""
    size = max(1, subject.batch_size // 2)
    sums = torch.zeros(2, len(blocks) + 1, dtype=torch.float64)
    with preserved(subject.model, "eval", subject.seed, points.device), torch.no_grad(), _states(blocks) as states:
        for x, perturbed in zip(torch.split(subject.x, size), torch.split(points, size), strict=True):
            states.clear()
            forward_checked(subject.model, torch.cat([x, perturbed]))
            for index, state in enumerate(states):
                clean, changed = state.double().flatten(1).chunk(2)
                sums[0, index] += torch.linalg.vector_norm(clean, dim=1).sum().cpu()
                sums[1, index] += torch.linalg.vector_norm(changed - clean, dim=1).sum().cpu()
    norms, differences = (sums / len(points)).tolist()
    return norms, differences


@contextmanager
def _states(blocks: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """The states of a pass in order: the first block's input, then what each block gives."""
    states: list[Tensor] = []

    def record(block: nn.Module, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        states.extend([output[0]] if states else [inputs[0], output[0]])

    handles = [block.register_forward_hook(record) for block in blocks]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


def _factors(differences: Sequence[float]) -> dict[str, float | None]:
    """Growth from the first state to the last, and the mean factor of a block; None where nothing differs at first."""
    if not differences[0]:
        return {"growth": None, "per_block": None}
    growth = differences[-1] / differences[0]
    return {"growth": growth, "per_block": growth ** (1 / (len(differences) - 1))}


def _verdict(data: dict[str, Any]) -> str:
    count, unstable = data["stepping"], data["unstable"]
    if not count:
        return "All blocks are ordinary residual blocks at the start: there is no multistep method to judge."
    stability = (
        "all are zero-stable" if not unstable else f"{unstable} {'is' if unstable == 1 else 'are'} not zero-stable"
    )
    parts = [
        f"Of {count} multistep block{'s' * (count > 1)} {stability}; "
        f"the largest parasitic modulus is {data['modulus']:.3f}"
    ]
    for kind in ("noise", "attack"):
        if data[kind]["growth"] is not None:
            growth = f"{data[kind]['growth']:.3g} times as large at last as at first"
            parts.append(f"differences under {data[kind]['label']} are {growth}")
    return "; ".join(parts) + "."


def _severity(data: dict[str, Any]) -> Severity:
    """A warning for roots outside the circle or twice on its edge, neutral on the edge, and good inside."""
    if data["unstable"]:
        return "warning"
    return "good" if data["stepping"] and data["modulus"] < 1 - TOLERANCE else "info"
