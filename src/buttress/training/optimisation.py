"""The optimiser and the learning rate's schedule."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from buttress.errors import UserError
from buttress.validation import not_negative, number, positive


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """How weights are updated.

    Args:
        name: "sgd", "adam" or "adamw".
        lr: the highest learning rate of the schedule.
        momentum: of SGD.
        nesterov: SGD with Nesterov's momentum.
        weight_decay: 0 or more.
    """

    name: Literal["sgd", "adam", "adamw"] = "adam"
    lr: float = 1e-3
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        if self.name not in ("sgd", "adam", "adamw"):
            raise UserError(f"optimiser must be sgd, adam or adamw; got {self.name!r}")
        positive("lr", self.lr)
        not_negative("weight_decay", self.weight_decay)
        number("momentum", self.momentum, "[0, 1)")

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of torch for these parameters."""
        if self.name == "sgd":
            return torch.optim.SGD(
                parameters,
                lr=self.lr,
                momentum=self.momentum,
                nesterov=self.nesterov,
                weight_decay=self.weight_decay,
            )
        kind = torch.optim.Adam if self.name == "adam" else torch.optim.AdamW
        return kind(parameters, lr=self.lr, weight_decay=self.weight_decay)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate over training, as a factor of its highest value; a function of progress alone.

    Args:
        name: "constant"; "piecewise", times ``factor`` at each of ``milestones``; "cyclic", linear from 0 up to 1 at
            ``peak`` and down to 0; "cosine", half a cosine from 1 to 0.
        milestones: shares of the training, in (0, 1), in rising order.
        factor: of each milestone.
        peak: share of the training at which the cycle is highest.
    """

    name: Literal["constant", "piecewise", "cyclic", "cosine"] = "constant"
    milestones: tuple[float, ...] = (0.5, 0.75)
    factor: float = 0.1
    peak: float = 0.4

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        if self.name not in ("constant", "piecewise", "cyclic", "cosine"):
            raise UserError(f"schedule must be constant, piecewise, cyclic or cosine; got {self.name!r}")
        if any(not 0 < m < 1 for m in self.milestones) or list(self.milestones) != sorted(self.milestones):
            raise UserError(f"milestones must be shares of the training in (0, 1), rising; got {self.milestones}")
        if not 0 < self.peak < 1 or not self.factor > 0:
            raise UserError(f"peak must be in (0, 1) and factor positive; got {self.peak} and {self.factor}")

    def at(self, progress: float) -> float:
        """The factor when a share ``progress`` of the training is done."""
        if self.name == "piecewise":
            return self.factor ** bisect.bisect_right(self.milestones, progress)
        if self.name == "cyclic":
            return progress / self.peak if progress < self.peak else (1 - progress) / (1 - self.peak)
        if self.name == "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        return 1.0
