"""The learning rate's schedule: a function of progress, or any class of torch.optim.lr_scheduler by its name."""

from __future__ import annotations

import bisect
import inspect
import math
import warnings
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from buttress.errors import UserError
from buttress.registry import nearest
from buttress.training.optimiser import check_args

OWN = ("constant", "piecewise", "cyclic", "cosine")
_EVERY_STEP = ("cycliclr", "onecyclelr")  # as torch's documentation uses them; the others step once an epoch
_REFUSED = {
    "lambdalr": "a function",
    "multiplicativelr": "a function",
    "sequentiallr": "other schedulers",
    "chainedscheduler": "other schedulers",
}
_LENGTHS = ("T_max", "total_steps")  # how long the training is, in the scheduler's own steps


def classes() -> dict[str, type[LRScheduler]]:
    """The schedulers of torch by their names in small letters."""
    members = [member for member in vars(lr_scheduler).values() if isinstance(member, type)]
    kinds = [kind for kind in members if issubclass(kind, LRScheduler) and not kind.__name__.endswith("LRScheduler")]
    return {kind.__name__.lower(): kind for kind in kinds}


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate over training, as a factor of its highest value; or a scheduler of torch.

    Args:
        name: "constant"; "piecewise", times ``factor`` at each of ``milestones``; "cyclic", linear from 0 up to 1 at
            ``peak`` and down to 0; "cosine", half a cosine from 1 to 0; or a class of torch.optim.lr_scheduler, such as
            StepLR or OneCycleLR.
        milestones: shares of the training, in (0, 1), in rising order.
        factor: of each milestone.
        peak: share of the training at which the cycle is highest.
        args: arguments of a class of torch, as in {step_size: 10}; T_max and total_steps are the whole training, and
            max_lr the optimiser's lr, unless given.
        per: whether a class of torch moves on after each "step" or after each "epoch"; CyclicLR and OneCycleLR after
            each step, others after each epoch, unless given.
    """

    name: str = "constant"
    milestones: tuple[float, ...] = (0.5, 0.75)
    factor: float = 0.1
    peak: float = 0.4
    args: dict[str, Any] = field(default_factory=dict)
    per: Literal["step", "epoch"] | None = None

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        object.__setattr__(self, "milestones", tuple(self.milestones))
        if any(not 0 < m < 1 for m in self.milestones) or list(self.milestones) != sorted(self.milestones):
            raise UserError(f"milestones must be shares of the training in (0, 1), rising; got {self.milestones}")
        if not 0 < self.peak < 1 or not self.factor > 0:
            raise UserError(f"peak must be in (0, 1) and factor positive; got {self.peak} and {self.factor}")
        if self.per not in (None, "step", "epoch"):
            raise UserError(f"per must be step or epoch; got {self.per!r}")
        self._refuse_others()
        if self.name in OWN:
            if self.args or self.per:
                raise UserError(f"args and per are for schedulers of torch; {self.name} takes neither")
            return
        key, names = self.name.lower(), {kind.__name__: name for name, kind in classes().items()}
        if key in _REFUSED:
            raise UserError(f"the schedule {self.name} is made of {_REFUSED[key]}, which no settings can name")
        if key not in classes():
            known = [*OWN, *(name for name, key in names.items() if key not in _REFUSED)]
            raise UserError(f"there is no schedule {self.name!r}; {nearest(self.name, known)}")
        self._try()

    def _refuse_others(self) -> None:
        """Refuse settings that only other schedules read."""
        for name, reader in (("milestones", "piecewise"), ("factor", "piecewise"), ("peak", "cyclic")):
            if self.name != reader and getattr(self, name) != getattr(Schedule, name):
                raise UserError(f"{name} is a setting of the schedule {reader}; {self.name} does not read it")

    def at(self, progress: float) -> float:
        """The factor when a share ``progress`` of the training is done; of a schedule that is no class of torch."""
        if self.name == "piecewise":
            return self.factor ** bisect.bisect_right(self.milestones, progress)
        if self.name == "cyclic":
            return progress / self.peak if progress < self.peak else (1 - progress) / (1 - self.peak)
        if self.name == "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        return 1.0

    @property
    def every_step(self) -> bool:
        """Whether a class of torch moves on after each step, rather than after each epoch."""
        return self.per == "step" or (self.per is None and self.name.lower() in _EVERY_STEP)

    def build(self, optimizer: torch.optim.Optimizer, epochs: int, per_epoch: int) -> LRScheduler | None:
        """The scheduler of torch; None for a schedule that is no class of torch.

        Args:
            optimizer: whose learning rate is scheduled.
            epochs: of the whole training.
            per_epoch: steps of an epoch.

        Raises:
            UserError: for values that torch refuses, with this optimiser at least.
        """
        if self.name in OWN:
            return None
        kind: Any = classes()[self.name.lower()]
        names = inspect.signature(kind).parameters
        length = epochs * per_epoch if self.every_step else epochs
        usual: dict[str, Any] = {"max_lr": optimizer.param_groups[0]["lr"]}
        if "epochs" not in self.args:  # which gives OneCycleLR its length, too
            usual |= dict.fromkeys(_LENGTHS, length)
        if kind is lr_scheduler.ReduceLROnPlateau:
            usual["mode"] = "max"  # of the accuracy on the validation split
        args = {**{name: value for name, value in usual.items() if name in names}, **self.args}
        try:
            scheduler: LRScheduler = kind(optimizer, **args)
        except (TypeError, ValueError, KeyError, ZeroDivisionError) as error:
            raise UserError(f"the schedule {self.name}: {' '.join(str(error).split())}") from None
        return scheduler

    def _try(self) -> None:
        """Build the scheduler for another optimiser and take a step, so that what is wrong is refused now."""
        kind: Any = classes()[self.name.lower()]
        names = [name for name in inspect.signature(kind).parameters if name not in ("optimizer", "last_epoch")]
        check_args(f"the schedule {self.name}", self.args, names, ())
        needed = [name for name in names if inspect.signature(kind).parameters[name].default is inspect.Parameter.empty]
        missing = [name for name in needed if name not in (*self.args, *_LENGTHS, "max_lr")]
        if missing:
            raise UserError(f"the schedule {self.name} needs {', '.join(missing)} in args")
        if kind is lr_scheduler.ReduceLROnPlateau and self.per == "step":
            raise UserError("the schedule ReduceLROnPlateau follows the validation of each epoch; got per: step")
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
        scheduler = self.build(optimizer, 100, 100)
        assert scheduler is not None
        step: Any = scheduler.step
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that no weights were updated
                step(*([1.0] if kind is lr_scheduler.ReduceLROnPlateau else []))
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise UserError(f"the schedule {self.name}: {' '.join(str(error).split())}") from None
