"""buttress inside other tools: an assertion for tests, attacks of other libraries, training loops of one's own.

Names are imported when they are first used: pytest loads this package in every test suite of an environment.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from buttress.integrations.assertion import assert_robust
    from buttress.integrations.foreign_attacks import ARTAttack, FoolboxAttack, TorchAttack
    from buttress.integrations.hugging_face import DefenceTrainer, TrainerRobustness
    from buttress.integrations.lightning import LightningDefence, LightningRobustness
    from buttress.integrations.own_loop import DefenceLoss

_PLACES = {
    "ARTAttack": "foreign_attacks",
    "DefenceLoss": "own_loop",
    "DefenceTrainer": "hugging_face",
    "FoolboxAttack": "foreign_attacks",
    "LightningDefence": "lightning",
    "LightningRobustness": "lightning",
    "TorchAttack": "foreign_attacks",
    "TrainerRobustness": "hugging_face",
    "assert_robust": "assertion",
}

__all__ = [
    "ARTAttack",
    "DefenceLoss",
    "DefenceTrainer",
    "FoolboxAttack",
    "LightningDefence",
    "LightningRobustness",
    "TorchAttack",
    "TrainerRobustness",
    "assert_robust",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name in _PLACES:
        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
