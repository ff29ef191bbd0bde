"""How to train: every setting of a training but the network, the data and the defence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from buttress import tasks
from buttress.attacks import Perturbation
from buttress.defences.base.defence import Defence
from buttress.engine.machine import Machine
from buttress.engine.runner import CraftPrecision
from buttress.errors import UserError
from buttress.registry import nearest
from buttress.started import started
from buttress.tasks import Task, check_task
from buttress.training.averaging import Average, average_of
from buttress.training.loggers import LoggerName, check_installed
from buttress.training.monitors.base import Monitor
from buttress.training.optimiser import Optimiser
from buttress.training.schedule import Schedule
from buttress.training.validation import default_attack
from buttress.validation import number, one_of, whole

Precision = Literal["32-true", "bf16-mixed", "64-true"]
Keep = Literal["best", "last"]
Strategy = Literal["auto", "ddp", "ddp_find_unused_parameters_true"]  # Lightning Fabric's names
_SHORT = {"precision": "train_precision"}  # what `fit` accepts as well; a job has other precisions beside it


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Machine):
    """How to train.

    Args:
        epochs: passes over the training data.
        batch_size: inputs per step, over all devices.
        workers: processes that read inputs which do not fit into memory while the network is trained, of each process
            that trains; one for each core, at most 8, by default. They change no figure.
        optimiser: how weights are updated.
        schedule: the learning rate's schedule.
        clip: the largest L2 norm of the gradient.
        average: an average of the weights, which is then validated and kept: a moving average's decay per step, or
            ema, swa or fawa with options of their own.
        monitors: monitors that observe the training and may stop it; a run that one has stopped is finished.
        train_precision: 32-true, bf16-mixed (passes, crafting included, in bf16 where that is safe) or 64-true.
        search_precision: precision of crafting: fp32, bf16, folded or twin (a copy with BatchNorm folded, in bf16); by
            default that of train_precision.
        accelerator: cpu, cuda or mps; auto takes the best that this machine has.
        devices: of each host, one process each, that share the work; as many as torchrun or srun started by default.
        num_nodes: hosts; as many as there are processes on by default.
        strategy: how several processes train one network: ddp, which auto is as well; or, where some weights take no
            part in a step, ddp_find_unused_parameters_true.
        loggers: where each epoch's figures go beside metrics.csv: tensorboard (in the run's folder), wandb, mlflow, or
            several; [] for none. A run that goes on is the same run there; one that fails does not stop the training.
        keep: best (by robust accuracy on the validation split) or last.
        validate_with: the attack for the robust accuracy, or none; auto is PGD-10 in the defence's threat.
        validate_on: inputs of the validation split that are used, at most, stratified.
        task: what the network's output is for: classification, multi-label, regression, ordinal or denoising.
        checkpoint_seconds: time between checkpoints inside an epoch; there is one after every epoch anyway.

    Raises:
        UserError: for settings that mean nothing.
    """

    epochs: int = 30
    batch_size: int = 128
    workers: int | None = None
    optimiser: Optimiser = field(default_factory=Optimiser)
    schedule: Schedule = field(default_factory=Schedule)
    clip: float | None = None
    average: float | Average | None = None
    monitors: list[Monitor] = field(default_factory=list)
    loggers: Sequence[LoggerName] = ("tensorboard",)
    strategy: Strategy = "auto"
    train_precision: Precision = "32-true"
    search_precision: CraftPrecision | None = None
    keep: Keep = "best"
    validate_with: Perturbation | Literal["auto", "none"] = field(default="auto", repr=False)  # no option of a job
    validate_on: int = 500
    task: Task = field(default=tasks.classification, repr=False)  # a job asks for it with the network
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        super().__post_init__()
        whole("epochs", self.epochs)
        whole("batch_size", self.batch_size)
        whole("validate_on", self.validate_on)
        if self.workers is not None:
            whole("workers", self.workers, 0)
        number("checkpoint_seconds", self.checkpoint_seconds, "[0, inf]")
        if self.clip is not None:
            number("clip", self.clip, "(0, inf]")
        if not isinstance(self.loggers, list | tuple):
            raise UserError(f"loggers must be a list of names, as in ['tensorboard', 'mlflow']; got {self.loggers!r}")
        for logger in self.loggers:
            one_of("loggers", logger, get_args(LoggerName))
            check_installed(logger)
        one_of("keep", self.keep, get_args(Keep))
        one_of("strategy", self.strategy, get_args(Strategy))
        if self.search_precision not in (None, *get_args(CraftPrecision)):
            choices = ", ".join(get_args(CraftPrecision))
            raise UserError(f"search_precision must be one of {choices}; got {self.search_precision!r}")
        if isinstance(self.validate_with, str) and self.validate_with not in ("auto", "none"):
            raise UserError(f"validate_with must be an attack, auto or none; got {self.validate_with!r}")
        for name, kind in (("optimiser", Optimiser), ("schedule", Schedule)):
            if not isinstance(getattr(self, name), kind):
                value = getattr(self, name)
                raise UserError(f"{name} must be made by {kind.__name__}(name=...); got {value!r}")
        check_task(average_of(self.average), self.task)
        if not isinstance(self.monitors, list | tuple):
            raise UserError(f"monitors must be a list of monitors; got {self.monitors!r}")
        for monitor in self.monitors:
            if not isinstance(monitor, Monitor):
                raise UserError(f"monitors must be a list of monitors; got {monitor!r}")

    def check_processes(self) -> None:
        """As `Machine.check_processes`; a strategy is for several processes.

        Raises:
            UserError: with the command to type.
        """
        super().check_processes()
        if self.strategy != "auto" and started() is None:
            raise UserError(f"strategy {self.strategy} has no effect on one process: leave it out, or use torchrun")

    def validation_attack(self, defence: Defence) -> Perturbation | None:
        """The attack for the robust accuracy on the validation split of a network trained by ``defence``."""
        if isinstance(self.validate_with, str):
            return default_attack(defence) if self.validate_with == "auto" else None
        return self.validate_with


def training_config(
    config: TrainingConfig | None, settings: Mapping[str, Any], others: Iterable[str] = ()
) -> TrainingConfig:
    """A config with some of its settings changed; the defaults unless it is given.

    Args:
        config: the config.
        settings: new values by name.
        others: further names that the user may have meant by one that is unknown.

    Raises:
        UserError: for a setting that there is not, with the nearest name.
    """
    if config is not None and not isinstance(config, TrainingConfig):
        raise UserError(f"config must be a TrainingConfig; got {config!r}: give settings by name, as in epochs=5")
    changes = {_SHORT.get(name, name): value for name, value in settings.items()}
    names = [f.name for f in fields(TrainingConfig)]
    for name in changes:
        if name not in names:
            raise UserError(f"fit has no setting {name!r}; {nearest(name, [*names, *others])}")
    return replace(config or TrainingConfig(), **changes)
