"""A certificate of the fixed form by randomised smoothing: whether inputs keep their class within a threat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from buttress.certificates.certificate import Certificate
from buttress.certificates.smoothing.smoothed import Smoothed
from buttress.engine.call_checks import check_inputs
from buttress.errors import UserError
from buttress.near_names import nearest
from buttress.tasks import Task
from buttress.threat import Threat

SMOOTHING = "smoothing"  # what the method is called
_TAKEN = ("model", "norm", "seed", "batch_size", "task")  # given by the call, the norm by its threat


def certify_smoothed(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    settings: Mapping[str, Any],
    *,
    task: Task,
    batch_size: int,
    seed: int,
    ids: Tensor | None,
) -> Certificate:
    """What `Smoothed.certify` states, held against a threat and the truth.

    All of it is about the smoothed network. ``verified``: its class is ``y``, and its radius larger than the threat's
    eps. ``falsified``: at the input itself its class is another one. ``margin`` is no difference of logits here, but
    the radius less eps, in input units; minus infinity where the class is another one or it abstained. ``probability``
    is that of each input's statement, or of all together with ``joint``. A box only takes perturbations away.

    Args:
        model: the network that is smoothed.
        x: (N, ...) inputs in the threat's box.
        y: (N,) their classes.
        threat: in l2 (normal noise) or l1 (uniform noise).
        settings: of `Smoothed`: ``sigma``, and perhaps ``n0``, ``n``, ``alpha`` and ``joint``.
        task: what the output is for.
        batch_size: noisy inputs computed at once.
        seed: of the noise.
        ids: (N,) what identifies each input.

    Raises:
        UserError: for another norm, and for settings that are missing, unknown or mean nothing.
    """
    known = [one.name for one in fields(Smoothed) if one.name not in _TAKEN]
    for name in settings:
        if name not in known:
            raise UserError(f"smoothing has no setting {name!r}; {nearest(name, known)}")
    if "sigma" not in settings:
        raise UserError("smoothing needs sigma, the noise's standard deviation in input units: give sigma=0.25")
    if threat.norm == "linf":
        raise UserError(
            "smoothing certifies in l2 or l1; got linf: give norm l2 with eps times the square root of an input's "
            "number of values, which holds for the linf budget, too"
        )
    check_inputs(model, x, y, threat.box)
    threat.check(x)
    given: dict[str, Any] = {"norm": threat.norm, "seed": seed, "batch_size": batch_size, "task": task}
    found = Smoothed(model, **given | dict(settings)).certify(x, ids=ids)
    right = found.certified(y)
    return Certificate(
        verified=found.certified(y, threat.eps),
        falsified=~found.abstained & (found.label != y),
        margin=torch.where(right, found.radius - threat.eps, -torch.inf),
        method=SMOOTHING,
        sound=False,
        seconds=found.seconds,
        x_adv=x.clone(),
        probability=found.probability,
    )
