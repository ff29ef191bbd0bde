"""Training: `fit` and what it leaves behind."""

from buttress.training.fit import Trained, fit
from buttress.training.loop import Interrupted
from buttress.training.optimisation import Optimiser, Schedule
from buttress.training.run import load, read_facts, versions

__all__ = ["Interrupted", "Optimiser", "Schedule", "Trained", "fit", "load", "read_facts", "versions"]
