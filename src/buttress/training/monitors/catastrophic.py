"""Catastrophic overfitting, the sudden collapse of single-step training, seen as it happens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from buttress.defences.base.defence import Batch
from buttress.errors import UserError
from buttress.registry import monitor
from buttress.threat import Threat
from buttress.training.monitors.base import Action, Kind, Moment, Monitor
from buttress.training.monitors.probe import Probe, accuracy, pgd
from buttress.validation import number, one_of, whole

Restore = Literal["previous", "best-on-train"]
_ERRORS = 3  # standard errors of the difference between two batches that chance may make
_WAYS = {"previous": "of the epoch before", "best-on-train": "that were most robust on training inputs"}


@monitor("catastrophic-overfitting")
@dataclass(frozen=True, kw_only=True)
class CatastrophicOverfitting(Monitor):
    """Watches for catastrophic overfitting by three detectors, each of which is reported by name when it fires.

    In single-step adversarial training, accuracy under several steps can fall to 0 within an epoch while accuracy under
    the single step rises. A detector that has fired is silent until what it saw is over.

    first-batch (Wong, Rice and Kolter, ICLR 2020): accuracy under PGD-5 on the epoch's first training batch, at the
    epoch's end, has fallen by more than ``fall`` since the epoch before. As these are other inputs each time, the fall
    must also exceed 3 standard errors, which is ours and decides nothing from 113 inputs a batch on. On batches of 64
    it still has false alarms now and then, also in training by PGD, whose other two detectors stay silent. Cost: 5
    gradients of one batch per epoch.

    best-on-train (Andriushchenko and Flammarion, NeurIPS 2020, who choose weights by it): accuracy under PGD-10 on
    fixed training inputs, every ``every`` steps and at each end of an epoch. That a fall by more than ``fall`` below
    its best counts as firing is ours. Cost: 10 gradients of ``inputs`` inputs each time.

    diagnostics: on the same inputs at the epoch's end, accuracy under FGSM is more than ``gap`` above that under
    PGD-10, which has fallen by more than ``drop`` from its best; or the mean cosine between the gradients at an input
    and at a random point of its threat (their local linearity) has shrunk below ``shrink`` times that of the epoch
    before. The cosine between the perturbations of FGSM and PGD is logged, too, and decides nothing. The figures are
    those of GradAlign's authors, the rule is ours. Cost: 3 more gradients per epoch, and those of best-on-train.

    All attacks step by eps/4 from random starts. The history has ``first_batch_robust``, ``train_robust``,
    ``train_fgsm``, ``gradient_cosine``, ``perturbation_cosine`` and, for each detector that is on, ``fired_``...: 1 as
    long as what it looks for is there.

    Args:
        threat: that the attacks have; that of the defence's attack unless given.
        then: what follows when a detector fires; "rollback" goes back to other weights and stops.
        restore: where to go back to: the weights of the "previous" epoch's end (in the first epoch, those below), or
            those that best-on-train found best.
        first_batch: whether this detector is on.
        best_on_train: whether this detector is on.
        diagnostics: whether this detector is on.
        fall: of accuracy, for the first two detectors.
        every: steps between measurements of best-on-train.
        inputs: training inputs, classes in proportion, not augmented, for the last two detectors.
        gap: between accuracies under FGSM and PGD, for the diagnostics.
        drop: of accuracy, for the diagnostics.
        shrink: of the cosine, for the diagnostics.
    """

    threat: Threat | None = None
    then: Kind = "note"
    restore: Restore = "previous"
    first_batch: bool = True
    best_on_train: bool = True
    diagnostics: bool = True
    fall: float = 0.2
    every: int = 200
    inputs: int = 256
    gap: float = 0.25
    drop: float = 0.15
    shrink: float = 0.5

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        for name, kinds in (("then", Kind), ("restore", Restore)):
            one_of(name, getattr(self, name), get_args(kinds))
        for name in ("fall", "gap", "drop", "shrink"):
            number(name, getattr(self, name), "(0, 1)")
        whole("every", self.every)
        whole("inputs", self.inputs)
        if not (self.first_batch or self.best_on_train or self.diagnostics):
            raise UserError("at least one of first_batch, best_on_train and diagnostics must be on")
        if self.then == "rollback" and self.restore == "best-on-train" and not self.best_on_train:
            raise UserError("going back to the best on train needs the detector best_on_train on")

    @property
    def detectors(self) -> tuple[str, ...]:
        """Those that are on."""
        every = {"first-batch": self.first_batch, "best-on-train": self.best_on_train, "diagnostics": self.diagnostics}
        return tuple(name for name, on in every.items() if on)

    def check(self, threat: Threat | None) -> None:
        """Refuse to watch without a threat."""
        if self.threat is None and threat is None:
            raise UserError("catastrophic-overfitting needs a threat: the defence trains against none, so give it one")

    def after_step(self, moment: Moment) -> Action | None:
        """Keep the epoch's first batch; measure on training inputs when it is time."""
        memory = moment.memory
        if self.first_batch and (moment.step - 1) % moment.per_epoch == 0:
            batch = moment.batch
            memory["batch"] = {"x": batch.x.detach().clone(), "y": batch.y.clone(), "ids": batch.ids.clone()}
        if not self.best_on_train or moment.step % self.every or moment.step % moment.per_epoch == 0:
            return None
        return self._answer(moment, [self._best_on_train(moment, self._probe(moment))])

    def after_epoch(self, moment: Moment) -> Action | None:
        """Ask all detectors, and remember the epoch's weights."""
        texts = []
        if self.first_batch:
            texts.append(self._first_batch(moment))
        if self.best_on_train or self.diagnostics:
            probe = self._probe(moment)
            if self.diagnostics:  # first: it compares with the best so far
                texts.append(self._diagnostics(moment, probe))
            if self.best_on_train:
                texts.append(self._best_on_train(moment, probe))
        action = self._answer(moment, texts)
        if self.then == "rollback" and self.restore == "previous":
            moment.memory["previous"] = moment.snapshot()
        return action

    def _first_batch(self, moment: Moment) -> str:
        memory = moment.memory
        batch, threat = Batch(**memory["batch"]), self._threat(moment)
        now = accuracy(pgd(threat, 5), moment.model, batch, moment.seed, moment.task)
        before = memory.get("first_batch", now)
        moment.figures["first_batch_robust"] = memory["first_batch"] = now
        text = f"accuracy under PGD-5 on the epoch's first batch fell from {before:.1%} to {now:.1%}"
        middle = (before + now) / 2
        chance = _ERRORS * math.sqrt(2 * middle * (1 - middle) / len(batch.y))
        return self._fired(moment, "first-batch", before - now > max(self.fall, chance), text)

    def _best_on_train(self, moment: Moment, probe: Probe) -> str:
        memory, now = moment.memory, probe.robust
        best = memory.get("best_on_train", now)
        moment.figures["train_robust"] = now
        if now >= best:
            memory["best_on_train"] = now
            if self.then == "rollback":
                memory["best"] = moment.snapshot()
        text = f"accuracy under PGD-10 on training inputs is {now:.1%}, its best was {best:.1%}"
        return self._fired(moment, "best-on-train", best - now > self.fall, text)

    def _diagnostics(self, moment: Moment, probe: Probe) -> str:
        memory, robust = moment.memory, probe.robust
        single, linearity, alike = probe.single_step()
        best = max(memory.get("best_robust", robust), memory.get("best_on_train", robust), robust)
        before = memory.get("gradient_cosine", linearity)
        memory["best_robust"], memory["gradient_cosine"] = best, linearity
        moment.figures.update(train_robust=robust, train_fgsm=single)
        moment.figures.update(gradient_cosine=linearity, perturbation_cosine=alike)
        apart = single - robust > self.gap and best - robust > self.drop
        text = f"accuracy on training inputs is {single:.1%} under FGSM, {robust:.1%} under PGD-10 and was {best:.1%}"
        if not apart:
            text = f"the cosine of gradients at an input and near it fell from {before:.2f} to {linearity:.2f}"
        return self._fired(moment, "diagnostics", apart or (before > 0 and linearity < self.shrink * before), text)

    def _fired(self, moment: Moment, name: str, there: bool, text: str) -> str:
        """A detector's report: empty where it has not fired, or had fired before."""
        key = f"fired_{name.replace('-', '_')}"
        new = there and not moment.memory.get(key, False)
        moment.memory[key] = there
        moment.figures[key] = float(there)
        return f"{name} ({text})" if new else ""

    def _answer(self, moment: Moment, texts: list[str]) -> Action | None:
        fired = [text for text in texts if text]
        if not fired:
            return None
        text, memory = f"catastrophic overfitting by {' and '.join(fired)}", moment.memory
        if self.then != "rollback":
            return Action(self.then, text + ("; training stops" if self.then == "stop" else ""))
        way: Restore = "previous" if self.restore == "previous" and "previous" in memory else "best-on-train"
        snapshot = memory["previous" if way == "previous" else "best"]  # to fall, something must have been measured
        return Action("rollback", f"{text}; training stops with the weights {_WAYS[way]}", snapshot)

    def _probe(self, moment: Moment) -> Probe:
        threat = self._threat(moment)
        return Probe(moment.model, moment.data.train, self.inputs, threat, moment.seed, moment.batch.x, moment.task)

    def _threat(self, moment: Moment) -> Threat:
        threat = self.threat or moment.threat
        assert threat is not None
        return threat
