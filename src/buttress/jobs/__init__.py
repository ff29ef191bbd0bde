"""The jobs as functions: what the command line calls."""

from buttress.jobs.attack import attack
from buttress.jobs.audit import audit
from buttress.jobs.compare import compare
from buttress.jobs.export import export
from buttress.jobs.harden import harden
from buttress.jobs.settings import Network, Reporter, Source, Training
from buttress.jobs.train import train

__all__ = [
    "Network",
    "Reporter",
    "Source",
    "Training",
    "attack",
    "audit",
    "compare",
    "export",
    "harden",
    "train",
]
