"""A test's assertion that a network is robust."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from buttress import audits, tasks
from buttress.attacks import Attack
from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base.evaluation.groups import Data
from buttress.audits.robustness import Robustness
from buttress.data.dataset import Dataset
from buttress.engine.preserved_model import preserved
from buttress.engine.threat_resolution import resolve_threats
from buttress.errors import UserError
from buttress.tasks import Task
from buttress.threat import Threat
from buttress.validation import number


def assert_robust(
    model: nn.Module,
    data: Dataset | Data,
    *,
    eps: float,
    at_least: float,
    norm: str = "linf",
    box: Any = (0.0, 1.0),
    attacks: Sequence[Attack] | None = None,
    limit: int | None = None,
    seed: int = 0,
    batch_size: int = 256,
    task: Task = tasks.classification,
) -> dict[str, Any]:
    """Fail, as ``assert`` does, where robust accuracy is below a bound; the network comes back as it was.

    An input is robust where it is right unperturbed and none of the attacks is successful. Attacks of a fixed seed give
    the same figure at every run on one machine. What survives PGD is not proven robust: give ``attacks`` that suit the
    network, as ``[AutoAttack()]``, where gradients may be masked, and [Square()] where there are none.

    Args:
        model: gives logits for inputs in the box; it is tested in eval mode, whatever mode it is in.
        data: a data set, of which the test split counts; a split; or batches (x, y) such as a ``DataLoader`` gives.
        eps: the attacker's budget in the units of the inputs, 0 or more.
        at_least: robust accuracy as a share, 0 to 1.
        norm: of the budget: linf, l2 or l1.
        box: where inputs live, (low, high), or None for no limit; of a data set its own.
        attacks: PGD-20 and FGSM by default; the budget is that of ``eps`` and ``norm`` for all of them.
        limit: the largest number of inputs, classes in proportion; all unless given.
        seed: of the attacks.
        batch_size: inputs computed at once.
        task: what the network's output is for.

    Returns:
        The audit's figures, as in ``findings.json``: ``worst``, ``attacks``, ``inputs`` and others.

    Raises:
        AssertionError: with robust and clean accuracy, the interval, and the attack.
        UserError: for settings and inputs that mean nothing.
    """
    number("eps", eps, "[0, inf]")
    if not 0 <= at_least <= 1:
        raise UserError(f"at_least is a share from 0 to 1, as in 0.4 for 40 %; got {at_least!r}")
    if isinstance(data, Dataset):
        box, data = data.box, data.test
    threat = Threat(norm=cast(Any, norm), eps=eps, box=box)
    chosen = [_within(attack, threat) for attack in attacks or (PGD(steps=20), FGSM())]
    question = Robustness(attacks=chosen, eps=[eps])
    settings: dict[str, Any] = {"limit": limit, "seed": seed, "batch_size": batch_size, "task": task}
    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    with preserved(model, "eval", seed, device):
        findings = audits.run(model, data, [question], **settings)
    if not findings:
        raise UserError("none of the attacks runs on this network, which gives no gradients: give attacks=[Square()]")
    figures = dict(findings[0].data)
    robust = next(point for point in figures["worst"] if point["eps"] == eps)
    if robust["accuracy"] < at_least:
        raise AssertionError(f"robust accuracy is under {at_least:.1%}: {findings[0].verdict}")
    return figures


def _within(attack: Attack, threat: Threat) -> Attack:
    """The attack in this threat, whatever its own was."""
    if "threat" in attack.settings():
        return cast(Attack, replace(cast(Any, attack), threat=threat))
    return resolve_threats(attack, threat)
