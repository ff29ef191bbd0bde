"""Audit any network for robustness, harden it, and compare.

The names below are the whole public surface; each role (attacks, defences, models, data, audits) is a package of its
own whose members are found by name.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from buttress import attacks, audits, data, defences, jobs, layers, losses, models, report, tasks, training
    from buttress.errors import UserError
    from buttress.models import Normalized
    from buttress.threat import Threat
    from buttress.training.config import TrainingConfig
    from buttress.training.fit import fit
    from buttress.training.optimiser import Optimiser
    from buttress.training.run_folder import load
    from buttress.training.schedule import Schedule

_PLACES = {
    "Threat": "buttress.threat",
    "UserError": "buttress.errors",
    "Normalized": "buttress.models",
    "Optimiser": "buttress.training",
    "Schedule": "buttress.training",
    "TrainingConfig": "buttress.training",
    "fit": "buttress.training",
    "load": "buttress.training",
}

__all__ = [
    "Normalized",
    "Optimiser",
    "Schedule",
    "Threat",
    "TrainingConfig",
    "UserError",
    "attacks",
    "audits",
    "data",
    "defences",
    "fit",
    "jobs",
    "layers",
    "load",
    "losses",
    "models",
    "report",
    "tasks",
    "training",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: ``import buttress`` itself stays cheap."""
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    if name in __all__:
        return import_module(f"buttress.{name}")
    raise AttributeError(f"module 'buttress' has no attribute {name!r}")
