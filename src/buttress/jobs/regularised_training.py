"""How layers are regularised in a job: as strongly, and rising as slowly, as short trainings show to be better."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from buttress.audits.base.statistics import paired
from buttress.defences.base.length import check_rise, for_share
from buttress.defences.layer_regularised import LayerRegularised
from buttress.errors import UserError
from buttress.jobs.robust_change import LEVEL
from buttress.jobs.settings import Reporter, Training
from buttress.training import Trained
from buttress.training.cost import passes
from buttress.training.monitors.layer_collapse import DIMENSIONS, SPREAD, LayerCollapse
from buttress.validation import not_negative

GAMMAS = (0.03, 0.2, 1.0)
_WARMUP = 1.0  # epochs
_LONGER_WARMUPS = (1 / 4, 1 / 2)  # of the training
_SHARE = 4  # a trial has this part of the training's epochs

TRIAL = "gamma-"  # how the folders of short trainings begin
Run = Callable[[str, LayerRegularised, str, Training], Trained]  # of a folder, a defence, a title and how it trains
Judge = Callable[[Trained], tuple[Tensor, Tensor | None]]  # which validation inputs are right: clean, and attacked


@dataclass(frozen=True)
class Trial:
    """What a short training came to, after its last epoch; not after the best, which hides a later collapse.

    Attributes:
        gamma: weight of the regularisation.
        warmup: epochs of the whole training over which gamma rises; of the trial, the same share.
        epochs: that it was trained for.
        clean: (N,) bool which validation inputs are right.
        robust: (N,) bool the same under the attack that validates; where nothing attacks, ``clean``.
        passes: of each input trained on; None where not known.
    """

    gamma: float
    warmup: float
    epochs: int
    clean: Tensor
    robust: Tensor
    passes: float | None = None

    @property
    def title(self) -> str:
        """What was tried."""
        return _title(self.gamma, self.warmup)

    @property
    def words(self) -> str:
        """What came of it, for people."""
        shares = f"robust {_share(self.robust):.1%}, clean {_share(self.clean):.1%}"
        return f"{shares} of {len(self.clean)} validation inputs after {_epochs(self.epochs)}"

    def gains_on(self, other: Trial, comparisons: int = 1) -> bool:
        """Whether more inputs are right than in the other trial, by McNemar's exact test (Bonferroni's level)."""
        test = paired(other.robust, self.robust, seed=0)
        return bool(test["difference"] > 0 and test["p"] < LEVEL / comparisons)


@dataclass(frozen=True)
class Chosen:
    """What a choice came to.

    Attributes:
        defence: with the gamma and the warm-up.
        reason: a sentence without a full stop; empty where nothing was tried.
        gain: whether trials showed that regularising gains; None where they did not ask that.
        trials: what was tried.
    """

    defence: LayerRegularised
    reason: str = ""
    gain: bool | None = None
    trials: list[Trial] = field(default_factory=list)

    @property
    def title(self) -> str:
        """What was chosen."""
        return _title(self.defence.gamma[0], self.defence.warmup)

    @property
    def facts(self) -> dict[str, Any]:
        """Gamma, warm-up, and how they were chosen, for a report."""
        facts: dict[str, Any] = {"gamma": self.defence.gamma[0], "warm-up": self.defence.warmup}
        if self.trials:
            facts |= {"chosen from": {trial.title: trial.words for trial in self.trials}, "choice": self.reason}
        return facts

    @property
    def passes(self) -> float | None:
        """Of each input trained on, in all trials; None where not known."""
        each = [trial.passes for trial in self.trials]
        return None if None in each else sum(number for number in each if number is not None)


@dataclass(frozen=True)
class WeightChoice:
    """How the weight of the regularisation is chosen; what is given is taken as it is.

    Without a given one, the gammas are tried with a warm-up of one epoch, and so is 0. Differences count where
    McNemar's exact test on the validation inputs shows them at 5 %, for all gammas together. Of the gammas that gain on
    0, the smallest is taken that the most robust does not gain on; where none gains, the smallest there is. Longer
    warm-ups are tried where a gamma gains or is given, and taken where they gain on one epoch.

    Attributes:
        training: the whole training.
        gamma: the weight, if it is given.
        warmup: epochs over which it rises from 0, if they are given.
    """

    training: Training
    gamma: float | None = None
    warmup: float | None = None

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        if self.gamma is not None:
            not_negative("gamma", self.gamma)
        if self.warmup is not None:
            check_rise("warmup", not_negative("warmup", self.warmup), self.training.epochs)
            if self.gamma == 0 and self.warmup:
                raise UserError("--warmup has no effect with --gamma 0, which regularises nothing: leave it out")

    @property
    def remark(self) -> str:
        """What a gamma of 0 means, a sentence without a full stop; empty for any other."""
        return "with gamma 0 nothing is regularised, and hardened is base once more" if self.gamma == 0 else ""

    @property
    def gammas(self) -> tuple[float, ...]:
        """Those to try, the unregularised training first; empty where gamma is given."""
        return (0.0, *GAMMAS) if self.gamma is None else ()

    @property
    def longer_warmups(self) -> tuple[float, ...]:
        """Those to try, in epochs of the whole training; a gamma of 0 needs none."""
        if self.warmup is not None or self.gamma == 0:
            return ()
        return tuple(epochs for share in _LONGER_WARMUPS if (epochs := share * self.training.epochs) > _WARMUP)

    @property
    def counts(self) -> tuple[int, int]:
        """How many trials it takes: in any case, and more where a gamma shows a gain."""
        longer = len(self.longer_warmups)
        return (len(self.gammas), longer) if self.gamma is None else (longer + 1 if longer else 0, 0)

    def choose(self, regularised: LayerRegularised, run: Run, judge: Judge, reporter: Reporter) -> Chosen:
        """The defence with gamma and warm-up, and what showed them to be better."""
        warmup = _WARMUP if self.warmup is None else self.warmup

        def tried(gamma: float, warmup: float) -> Trial:
            trial = self._try(_weighted(regularised, gamma, warmup), run, judge)
            reporter.line(f"{trial.title}: {trial.words}")
            return trial

        trials, reasons, gain = [tried(gamma, warmup) for gamma in self.gammas], [], None
        if self.gamma is None:
            best, gain = best_gamma(trials)
            reasons.append(_gamma_reason(best, trials[0], gain))
        elif self.longer_warmups:
            best = tried(self.gamma, warmup)
            trials.append(best)
        else:
            gain = False if self.gamma == 0 else None
            return Chosen(_weighted(regularised, self.gamma, warmup), self.remark, gain)
        if self.longer_warmups and gain is not False:
            longer = [tried(best.gamma, epochs) for epochs in self.longer_warmups]
            trials += longer
            first, best = best, best_warmup(best, longer)
            shown = f"a warm-up of {_epochs(best.warmup)} gains on one of {_epochs(warmup)}"
            reasons.append(f"no longer warm-up gains on {_epochs(warmup)}" if best is first else shown)
        reason = "; ".join(reasons)
        reporter.line(f"chosen: {best.title}: {reason}")
        return Chosen(_weighted(regularised, best.gamma, best.warmup), reason, gain, trials)

    def _try(self, defence: LayerRegularised, run: Run, judge: Judge) -> Trial:
        gamma, warmup, short = defence.gamma[0], defence.warmup, trial_training(self.training)
        shorter = for_share(defence, short.epochs / self.training.epochs)
        trained = run(f"{TRIAL}{gamma:g}-warmup-{warmup:g}", shorter, _title(gamma, warmup), short)
        clean, robust = judge(trained)
        epochs = len(trained.history)
        return Trial(
            gamma, warmup, epochs, clean, clean if robust is None else robust, passes(shorter, epochs)["passes"]
        )


def best_gamma(trials: Sequence[Trial]) -> tuple[Trial, bool]:
    """The trial to take, and whether it gains on the first, which regularises nothing; see `WeightChoice`."""
    without, *others = trials
    gaining = [trial for trial in others if trial.gains_on(without, len(others))]
    if not gaining:
        return min(others, key=lambda trial: trial.gamma), False
    first = max(gaining, key=lambda trial: int(trial.robust.sum()))
    return min((t for t in gaining if not first.gains_on(t, len(others))), key=lambda trial: trial.gamma), True


def best_warmup(usual: Trial, longer: Sequence[Trial]) -> Trial:
    """The most robust of the longer warm-ups that gain on the usual one; else that one."""
    gaining = [trial for trial in longer if trial.gains_on(usual, len(longer))]
    return max(gaining, key=lambda trial: (int(trial.robust.sum()), -trial.warmup), default=usual)


def trial_training(training: Training) -> Training:
    """How long and how a trial trains: a quarter of the epochs, at least one, and the last weights are kept."""
    return replace(training, epochs=math.ceil(training.epochs / _SHARE), keep="last")


def watched(training: Training, layers: list[str], usual: Mapping[str, float] | None = None) -> Training:
    """The training with a monitor of the layers' collapse, unless the user has given one.

    Args:
        training: of a job.
        layers: that are, or will be, regularised.
        usual: the monitor's figures in a training without regularisation.
    """
    if any(isinstance(monitor, LayerCollapse) for monitor in training.monitors):
        return training
    return replace(training, monitors=[*training.monitors, LayerCollapse(layers=layers, reference=usual or {})])


def usual_figures(history: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The lowest of each figure that the monitor of collapse compares, over the epochs of a watched training."""
    names = [name for name in history[-1] if name.startswith((SPREAD, DIMENSIONS))]
    return {name: min(row[name] for row in history if name in row) for name in names}


def _gamma_reason(best: Trial, without: Trial, gain: bool) -> str:
    inputs = f"{len(without.robust)} validation inputs by McNemar's exact test"
    if gain:
        test = paired(without.robust, best.robust, seed=0)
        return f"it gains on gamma 0 ({test['gained']} inputs gained, {test['lost']} lost) of {inputs}"
    return f"no gamma gains on gamma 0 on {inputs}, so the smallest is taken"


def _weighted(regularised: LayerRegularised, gamma: float, warmup: float) -> LayerRegularised:
    return LayerRegularised(**{**regularised.settings(), "gamma": gamma, "warmup": warmup})


def _title(gamma: float, warmup: float) -> str:
    return f"gamma {gamma:g}, warm-up {_epochs(warmup)}"


def _epochs(count: float) -> str:
    return f"{count:g} epoch{'s' * (count != 1)}"


def _share(right: Tensor) -> float:
    return int(right.sum()) / len(right)
