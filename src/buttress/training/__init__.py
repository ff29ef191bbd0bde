"""Training: `fit` and what it leaves behind."""

from buttress.training.averaging import EMA, FAWA, SWA, Average
from buttress.training.config import TrainingConfig
from buttress.training.fit import Trained, fit
from buttress.training.optimiser import Optimiser
from buttress.training.run_folder import load, read_facts, versions
from buttress.training.schedule import Schedule
from buttress.training.signals import Interrupted

__all__ = [
    "EMA",
    "FAWA",
    "SWA",
    "Average",
    "Interrupted",
    "Optimiser",
    "Schedule",
    "Trained",
    "TrainingConfig",
    "fit",
    "load",
    "read_facts",
    "versions",
]
