"""Loggers, one file each: where the figures of a run go, beside ``metrics.csv``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Literal

from buttress.errors import UserError
from buttress.training.loggers.base import Logger, Run
from buttress.training.loggers.mlflow import MLflow
from buttress.training.loggers.tensorboard import TensorBoard
from buttress.training.loggers.wandb import WandB

__all__ = ["LOGGERS", "Logger", "LoggerName", "Run", "check_installed"]

LoggerName = Literal["tensorboard", "wandb", "mlflow"]
LOGGERS: Mapping[LoggerName, type[Logger]] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}


def check_installed(name: LoggerName) -> None:
    """Refuse a logger whose package is not there.

    Raises:
        UserError: with the command that installs it.
    """
    kind = LOGGERS[name]
    if find_spec(kind.package) is None:
        raise UserError(f"the logger {name} needs {kind.package}, which is not installed: pip install {kind.install}")
