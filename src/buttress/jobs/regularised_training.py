"""How layers are regularised in a job: by a weight chosen by short trainings on validation data, and watched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from buttress.defences.layer_regularised import LayerRegularised
from buttress.jobs.settings import Training
from buttress.training import Trained
from buttress.training.monitors import LayerCollapse

GAMMAS = (0.03, 0.1, 0.3, 1.0)
_SHARE = 4  # a trial has this part of the training's epochs


@dataclass(frozen=True)
class GammaTrial:
    """What a short training with one weight came to.

    Attributes:
        gamma: the weight.
        epochs: that it was trained for.
        clean: accuracy on validation data after the last of them; not after the best, which hides a later collapse.
        robust: the same under the attack that validates.
    """

    gamma: float
    epochs: int
    clean: float
    robust: float

    @classmethod
    def of(cls, gamma: float, trained: Trained) -> GammaTrial:
        """The end of a trial; where nothing attacks in validation, clean accuracy counts as robust."""
        last = trained.history[-1]
        return cls(gamma, len(trained.history), last["clean"], last.get("robust", last["clean"]))

    def words(self) -> str:
        """What came of it, for people."""
        epochs = f"{self.epochs} epoch{'s' * (self.epochs != 1)}"
        return f"robust {self.robust:.1%}, clean {self.clean:.1%} on validation data after {epochs}"


def trial_training(training: Training) -> Training:
    """How long and how a trial trains: a quarter of the epochs, at least one."""
    return replace(training, epochs=math.ceil(training.epochs / _SHARE))


def trial_defence(regularised: LayerRegularised, gamma: float, training: Training) -> LayerRegularised:
    """The defence with another weight, which rises over the same share of a trial as of the whole training."""
    share = trial_training(training).epochs / training.epochs
    settings = regularised.settings()
    return LayerRegularised(**{**settings, "gamma": gamma, "warmup": share * regularised.warmup})


def best(trials: Sequence[GammaTrial]) -> GammaTrial:
    """The trial of the highest robust accuracy; of several the one of the highest clean one, and the smallest gamma."""
    return max(trials, key=lambda trial: (trial.robust, trial.clean, -trial.gamma))


def watched(training: Training, layers: list[str]) -> Training:
    """The training with a monitor of the regularised layers' collapse, unless the user has given one."""
    if any(isinstance(monitor, LayerCollapse) for monitor in training.monitors):
        return training
    return replace(training, monitors=[*training.monitors, LayerCollapse(layers=layers)])
