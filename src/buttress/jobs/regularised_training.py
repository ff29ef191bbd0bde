"""How layers are regularised in a job: as strongly, and rising as slowly, as short trainings show to be best."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from buttress.defences.layer_regularised import LayerRegularised
from buttress.jobs.settings import Reporter, Training
from buttress.training import Trained
from buttress.training.monitors import LayerCollapse

GAMMAS = (0.03, 0.1, 0.3, 1.0)
_WARMUP = 1.0  # epochs
_LONGER_WARMUPS = (1 / 4, 1 / 2)  # of the training
_SHARE = 4  # a trial has this part of the training's epochs

Run = Callable[[str, LayerRegularised, str, Training], Trained]  # of a folder, a defence, a title and how it trains


@dataclass(frozen=True)
class Trial:
    """What a short training came to.

    Attributes:
        gamma: weight of the regularisation.
        warmup: epochs of the whole training over which gamma rises; of the trial, the same share.
        epochs: that it was trained for.
        clean: accuracy on validation data after the last of them; not after the best, which hides a later collapse.
        robust: the same under the attack that validates.
    """

    gamma: float
    warmup: float
    epochs: int
    clean: float
    robust: float

    @classmethod
    def of(cls, gamma: float, warmup: float, trained: Trained) -> Trial:
        """The end of a training; where nothing attacks in validation, clean accuracy counts as robust."""
        last = trained.history[-1]
        return cls(gamma, warmup, len(trained.history), last["clean"], last.get("robust", last["clean"]))

    @property
    def title(self) -> str:
        """What was tried."""
        return _title(self.gamma, self.warmup)

    def words(self) -> str:
        """What came of it, for people."""
        return f"robust {self.robust:.1%}, clean {self.clean:.1%} on validation data after {_epochs(self.epochs)}"


@dataclass(frozen=True)
class WeightChoice:
    """How the weight of the regularisation is chosen; what is given is taken as it is.

    Without a given one, gammas are tried first, with a warm-up of one epoch, and longer warm-ups with the best of them.

    Attributes:
        training: the whole training.
        gamma: the weight, if it is given.
        warmup: epochs over which it rises from 0, if they are given.
    """

    training: Training
    gamma: float | None = None
    warmup: float | None = None

    @property
    def gammas(self) -> tuple[float, ...]:
        """Those to choose from."""
        return GAMMAS if self.gamma is None else (self.gamma,)

    @property
    def warmups(self) -> tuple[float, ...]:
        """Those to choose from, in epochs of the whole training; a gamma of 0 needs none."""
        if self.warmup is not None or self.gamma == 0:
            return (_WARMUP if self.warmup is None else self.warmup,)
        longer = (share * self.training.epochs for share in _LONGER_WARMUPS)
        return (_WARMUP, *(warmup for warmup in longer if warmup > _WARMUP))

    @property
    def count(self) -> int:
        """How many trials it takes."""
        count = len(self.gammas) + len(self.warmups) - 1
        return count if count > 1 else 0

    def choose(
        self, regularised: LayerRegularised, run: Run, reporter: Reporter
    ) -> tuple[LayerRegularised, list[Trial]]:
        """The defence with the best gamma and warm-up, and the trials that showed it."""
        gamma, warmup = self.gammas[0], self.warmups[0]
        if not self.count:
            return _weighted(regularised, gamma, warmup), []
        trials = [self._try(regularised, gamma, warmup, run, reporter) for gamma in self.gammas]
        gamma = best(trials).gamma
        trials += [self._try(regularised, gamma, warmup, run, reporter) for warmup in self.warmups[1:]]
        chosen = best(trials)
        reporter.line(f"chosen: {chosen.title}, the most robust of {len(trials)}")
        return _weighted(regularised, chosen.gamma, chosen.warmup), trials

    def _try(self, regularised: LayerRegularised, gamma: float, warmup: float, run: Run, reporter: Reporter) -> Trial:
        short = trial_training(self.training)
        defence = _weighted(regularised, gamma, warmup * short.epochs / self.training.epochs)
        trained = run(f"gamma-{gamma:g}-warmup-{warmup:g}", defence, _title(gamma, warmup), short)
        trial = Trial.of(gamma, warmup, trained)
        reporter.line(f"{trial.title}: {trial.words()}")
        return trial


def trial_training(training: Training) -> Training:
    """How long and how a trial trains: a quarter of the epochs, at least one."""
    return replace(training, epochs=math.ceil(training.epochs / _SHARE))


def best(trials: Sequence[Trial]) -> Trial:
    """The trial of the highest robust accuracy; of several the most accurate, the smallest gamma, the shortest rise."""
    return max(trials, key=lambda trial: (trial.robust, trial.clean, -trial.gamma, -trial.warmup))


def watched(training: Training, layers: list[str]) -> Training:
    """The training with a monitor of the regularised layers' collapse, unless the user has given one."""
    if any(isinstance(monitor, LayerCollapse) for monitor in training.monitors):
        return training
    return replace(training, monitors=[*training.monitors, LayerCollapse(layers=layers)])


def _weighted(regularised: LayerRegularised, gamma: float, warmup: float) -> LayerRegularised:
    return LayerRegularised(**{**regularised.settings(), "gamma": gamma, "warmup": warmup})


def _title(gamma: float, warmup: float) -> str:
    return f"gamma {gamma:g}, warm-up {_epochs(warmup)}"


def _epochs(count: float) -> str:
    return f"{count:g} epoch{'s' * (count != 1)}"
