"""Made by scripts/write_stubs.py from the registry: the monitors."""

from buttress.training.monitors.base import Action as Action
from buttress.training.monitors.base import Moment as Moment
from buttress.training.monitors.base import Monitor as Monitor
from buttress.training.monitors.base import Snapshot as Snapshot
from buttress.training.monitors.catastrophic import CatastrophicOverfitting as CatastrophicOverfitting
from buttress.training.monitors.early_stopping import EarlyStopping as EarlyStopping

def names() -> list[str]: ...
