"""What `harden` is going to do: everything that can be found wrong before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from buttress.attacks import Attack
from buttress.attacks.gradient.pgd import PGD
from buttress.audits import Audit
from buttress.audits.layers import Layers
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.base.defence import Defence
from buttress.defences.base.length import check_length
from buttress.defences.layer_regularised import LayerRegularised
from buttress.defences.standard import Standard
from buttress.errors import UserError
from buttress.jobs.analysed_layers import analysed_layers
from buttress.jobs.duration import duration
from buttress.jobs.estimate import count_steps, estimate_audits, estimate_training, step_time
from buttress.jobs.hardening_start import Start
from buttress.jobs.no_effect import refuse_twice, refuse_unused_search, refuse_unused_threat
from buttress.jobs.questions import usual_audits
from buttress.jobs.regularised_training import WeightChoice, trial_training
from buttress.jobs.settings import Reporter, Training
from buttress.jobs.threat_resolution import job_threat
from buttress.jobs.vulnerable_layers import named_layers
from buttress.layers.measures import MEASURES
from buttress.report.text import some
from buttress.tasks import check_task
from buttress.threat import Threat


@dataclass(frozen=True, kw_only=True)
class HardeningPlan:
    """What is done with it.

    Attributes:
        start: what is hardened.
        threat: what it is hardened against.
        base: the base defence.
        regularised: the regularised form, of no layers yet.
        layers: that the user named; None where the audit names them.
        choice: how gamma and the warm-up are chosen, and how long is trained.
        questions: the audits.
        remark: for the user, on what is analysed in place of activations; or empty.
    """

    start: Start
    threat: Threat
    base: Defence
    regularised: LayerRegularised
    layers: list[str] | None
    choice: WeightChoice
    questions: list[Audit]
    remark: str

    @classmethod
    def of(
        cls,
        start: Start,
        *,
        threat: Threat | None,
        base: Defence | None,
        layers: Sequence[str] | None,
        gamma: float | None,
        measure: str | None,
        warmup: float | None,
        training: Training,
        attacks: Sequence[Attack] | None,
    ) -> HardeningPlan:
        """The plan that `harden`'s options of the same names ask for.

        Raises:
            UserError: for settings that do not fit the network or the data.
        """
        dataset, task, against = start.dataset, start.task, job_threat(threat, start.dataset)
        base = base if base is not None else AdversarialTraining()
        refuse_twice("attacks", attacks or ())
        refuse_twice("monitors", training.monitors)
        refuse_unused_threat([base, *(attacks or [PGD()])], threat, training.monitors)
        refuse_unused_search(training, base)
        base = against.resolve(base)
        if measure is None:
            measure = "between_classes" if task.classes and base.own_classes else "centred"
        regularised = LayerRegularised(base, measure=measure)
        choice = WeightChoice(against.resolve(replace(training, task=task)), gamma, warmup)
        analysed = analysed_layers(start.original, dataset)
        questions = [
            # By another measure the largest displacement would not be what training makes smaller; of those that set it
            # against what a layer is there for, the audit has none, and centred cannot be fooled by a constant either.
            replace(question, measure=measure if measure in MEASURES else "centred")
            if isinstance(question, Layers)
            else question
            for question in usual_audits(dataset, against.threat, against.resolve(attacks), analysed.layers, task)
        ]
        check_task([regularised, *questions], task)
        check_length(base, training.epochs)
        if isinstance(base, Standard):
            raise UserError("standard training attacks nothing, and regularisation needs the attack: give another base")
        if layers is None and analysed.layers is None:
            of = f": name the layers to regularise by --layers, of {some(analysed.names)}" if analysed.names else ""
            raise UserError(f"harden finds no layers to choose among, for {analysed.reason}{of}")
        return cls(
            start=start,
            threat=against.threat,
            base=base,
            regularised=regularised,
            layers=None if layers is None else named_layers(start.fresh(), dataset, layers),
            choice=choice,
            questions=questions,
            remark=analysed.remark,
        )

    def estimate(self, inputs: int | None, batch_size: int, reporter: Reporter) -> None:
        """Say about how long each part takes."""
        original, dataset, training = self.start.original, self.start.dataset, self.choice.training
        steps = count_steps(dataset, training)
        if not self.start.given:
            reporter.line(f"training original: {estimate_training(original, dataset, Standard(), training)}")
        step = step_time(original, dataset, self.base, training)
        for name in ("base", "hardened (regularised layers not counted)"):
            reporter.line(f"training {name}: {step.of_all(steps)}")
        count, more = self.choice.counts
        if count:
            trial = trial_training(training)
            time = step.of_all(count_steps(dataset, trial))
            length = f"{trial.epochs} epoch{'s' * (trial.epochs != 1)}"
            further = f" ({more} more where a gamma shows a gain)" if more else ""
            share = (count + more) * trial.epochs / training.epochs
            times = f"in all up to {share:.2g} times the whole training"
            reporter.line(
                f"choosing gamma and its warm-up: {count} trainings of {length}{further}, {times}; give --gamma and "
                f"--warmup to spare it; each {time}"
            )
        split = dataset.test if inputs is None else dataset.test.stratified(inputs)
        audits = estimate_audits(original, split, self.questions, batch_size, training.task)
        reporter.line(f"each of three audits: {audits}")
        if step.seconds is not None:
            steps = 2 * steps + (count + more) * count_steps(dataset, trial_training(training))
            reporter.line(
                f"from base on all trainings together: about {duration(steps * step.seconds)}; --epochs (now "
                f"{training.epochs}) shortens them"
            )
