"""Harden a network: audit it, train a base defence and its layer-regularised form, audit both, compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from buttress import report
from buttress.attacks import Attack
from buttress.audits import Finding, subject
from buttress.audits.base.evaluation.sharing import idle_remark
from buttress.audits.base.finding import Severity, most_serious
from buttress.defences.base.defence import Defence
from buttress.defences.layer_regularised import LayerRegularised
from buttress.defences.standard import Standard
from buttress.engine.fabric import start_processes
from buttress.engine.machine import placed, told
from buttress.engine.runner import Precision
from buttress.errors import UserError
from buttress.jobs.asking import ask
from buttress.jobs.audit import report_facts
from buttress.jobs.compare import changes, headline
from buttress.jobs.first_look import first_look
from buttress.jobs.gate import check_gate, gate
from buttress.jobs.hardening_plan import HardeningPlan
from buttress.jobs.hardening_start import Start, Weights
from buttress.jobs.layer_comparison import with_layers_compared
from buttress.jobs.regularised_training import TRIAL, Chosen, usual_figures, watched
from buttress.jobs.settings import Network, Reporter, Source, Training
from buttress.jobs.threat_resolution import threat_facts
from buttress.jobs.tokens import tokens_remark
from buttress.jobs.vulnerable_layers import vulnerable_layers
from buttress.output_place import claims, entries, taken
from buttress.processes import on_first_process
from buttress.threat import Threat
from buttress.training import Trained
from buttress.training.cost import passes
from buttress.training.monitors.layer_collapse import COLLAPSED
from buttress.training.run_folder import MARK
from buttress.training.token_inputs import embedded_data
from buttress.training.validation import right_inputs
from buttress.validation import not_negative, whole

REPORT = "report"
_OURS = {"original", "base", "hardened", REPORT}  # beside short trainings, what may be in a folder that is resumed
_PUBLISHED = (
    "displaced most on validation data of what can be regularised, the published choice; no measure is shown to "
    "foretell which layer is worth strengthening (claim layer-effects), and --layers names others"
)


@claims("out")
def harden(
    network: str | None = None,
    *,
    out: Path,
    architecture: Network = Network(),
    source: Source = Source(),
    start: Weights = "new",
    threat: Threat | None = None,
    base: Defence | None = None,
    layers: list[str] | None = None,
    eta: float | None = None,
    gamma: float | None = None,
    measure: str | None = None,
    warmup: float | None = None,
    training: Training = Training(),
    attacks: list[Attack] | None = None,
    inputs: int | None = 1000,
    seed: int = 0,
    precision: Precision = "auto",
    audit_batch: int = 256,
    resume: bool = False,
    fail_under: float | None = None,
    dry_run: bool = False,
    command: str = "",
    reporter: Reporter = Reporter(),
) -> dict[str, list[Finding]] | None:
    """Find a network's most vulnerable layers, train a hardened one that regularises them, and compare in one report.

    The steps: audit the network (trained first, by standard training, where none is given); name its most vulnerable
    layers, and those that cannot be told from them, on validation data; train the base defence; choose the weight of
    the regularisation, and how slowly it rises, by short trainings compared on validation data, which take about as
    long as one whole training; train the base once more with those layers regularised (AT-LR), and say where a layer
    collapses; audit both; compare, and say whether the regularisation demonstrably gained robust accuracy.

    Args:
        network: the network to harden, which stays as it is: whatever audit takes; without it, and without --weights,
            one is trained by standard training.
        out: a new folder: a run each for original, base and hardened, and report/ with the comparison.
        architecture: the network, where it is no run's.
        source: the data; a run's own by default.
        start: what base and hardened start from: new weights, or those of the given network (fine-tuning).
        threat: what the network is hardened against, for every attack and defence without a threat of its own.
        base: the base defence; adversarial training with PGD by default.
        layers: the layers to regularise, names or patterns such as relu*; by default those that the audit names.
        eta: cut-off of the most vulnerable layers in standard deviations above the mean of all, 0 or more; by default,
            and where none passes it, at the widest gap.
        gamma: weight of the regularisation; by default 0.03, 0.2 or 1: the smallest of those that are shown to be
            best on validation data, under the attack that validates, after a quarter of the epochs; 0.03 where none is
            shown to be better than 0, which the report says.
        measure: what is regularised: displacement against what a constant layer lacks (between_classes, tolerance,
            margin_direction), or against the layer's size (centred, the paper's relative_error); by default
            between_classes, which came out best (claims layer-regularisers-*), and centred where there are no classes.
        warmup: epochs over which gamma rises from 0, no more than are trained; by default one, or a quarter or half of
            the training where that is shown to be better.
        training: how long and how, for every network that is trained here; monitors observe base and hardened only.
        attacks: attacks of the audits; PGD-20 and FGSM by default.
        inputs: the largest number of test inputs in the audits.
        seed: seed of all random draws.
        precision: precision of the attacks' search in the audits.
        audit_batch: inputs computed at once in the audits.
        resume: continue the job in the folder.
        fail_under: exit with status 3 when the hardened network's robust accuracy, in percent, is lower.
        dry_run: only print what would be done and about how long it takes.
        command: the command, for the report.
        reporter: receives messages and progress.

    Raises:
        UserError: for settings that do not fit the network or the data, and a folder that holds something else.
        GateNotMet: when robust accuracy is below ``fail_under``; the report is written then.
    """
    device = start_processes(training, dry_run=dry_run)
    on_first_process(partial(_check_folder, out, resume))
    whole("audit_batch", audit_batch)
    if inputs is not None:
        whole("inputs", inputs)
    _check_cut_off(eta, layers)
    reporter.line(told(device))
    begin = Start.of(network, architecture, source, seed, start)
    plan = HardeningPlan.of(
        begin,
        threat=threat,
        base=base,
        layers=layers,
        gamma=gamma,
        measure=measure,
        warmup=warmup,
        training=training,
        attacks=attacks,
    )
    check_gate(fail_under, plan.questions)
    test = len(begin.dataset.test)
    idle = idle_remark(test if inputs is None else min(inputs, test))
    remarks = (begin.words, begin.preprocessing, *begin.dataset.notes, plan.remark, plan.choice.remark, idle)
    for remark in filter(None, remarks):
        reporter.line(remark)
    original, warning = placed(begin.original, device), ""
    if begin.given:
        warning = first_look(original, begin.dataset, begin.task, begin.recorded, seed)
    if warning:
        reporter.line(warning)
    if dry_run:
        plan.estimate(inputs, audit_batch, reporter)
        return None
    work = _Work(plan, out, seed, inputs, precision, audit_batch, resume, reporter)
    training = plan.choice.training

    if not begin.given:
        original = work.train("original", Standard(), "original", replace(training, monitors=[])).model
    findings = {"original": work.audit(original, "the original")}
    names = plan.layers or work.vulnerable_layers(original, eta)
    reporter.line(f"regularised: {', '.join(names)}")
    if not plan.layers:
        reporter.line(_PUBLISHED)

    short = plan.base.label().upper()
    unregularised = work.train("base", plan.base, short, watched(training, names))
    findings[short] = work.audit(unregularised.model, short)

    observed = watched(training, names, usual_figures(unregularised.history))
    regularised = LayerRegularised(plan.base, names, measure=plan.regularised.measure)
    chosen = replace(plan.choice, training=observed).choose(regularised, work.train, work.judge, reporter)

    title = f"{short}-LR"
    hardened = work.train("hardened", chosen.defence, title, observed)
    findings[title] = work.audit(hardened.model, title)

    facts = {
        "network": begin.name,
        "start": begin.words,
        **({"preprocessing": begin.preprocessing} if begin.preprocessing else {}),
        **({"first look": warning} if warning else {}),
        "threat": threat_facts(plan.threat),
        "regularised layers": names,
        **chosen.facts,
        "measure": plan.regularised.measure,
        **({"notes on the regularised training": hardened.notes} if hardened.notes else {}),
        "epochs": training.epochs,
        # What a gain has to be set against: the regularised training is the longer one.
        "passes of each input trained on": {
            short: passes(plan.base, training.epochs)["passes"],
            title: passes(chosen.defence, training.epochs)["passes"],
            "choosing gamma": chosen.passes,
        },
        "inputs": inputs,
    }
    _report(out, findings, report_facts(command, begin.dataset, seed, facts, original), chosen, hardened, reporter)
    gate(findings[title], fail_under)
    return findings


def _check_folder(out: Path, resume: bool) -> None:
    """Refuse a folder with something else in it, and one without a job to resume."""
    started = taken(out)
    if started and not resume:
        raise UserError(f"{out} is not empty: resume the job in it (--resume), or choose another output folder")
    if resume and (not started or not out.is_dir()):
        raise UserError(f"there is no job in {out} to resume: leave --resume out to start one")
    if foreign := sorted(name for name in entries(out) if name not in _OURS and not name.startswith(TRIAL)):
        raise UserError(f"{out} holds no job of harden's, but {foreign[0]}: choose another output folder")


def _check_cut_off(eta: float | None, layers: Sequence[str] | None) -> None:
    """Refuse one that layers below the mean would pass, and one that chooses nothing."""
    if eta is None:
        return
    not_negative("eta", eta)
    if layers is not None:
        raise UserError("eta chooses the layers, which --layers names here: give one of the two")


@dataclass(frozen=True)
class _Work:
    """The parts of the job that recur: training and audits, with the settings that they share."""

    plan: HardeningPlan
    out: Path
    seed: int
    inputs: int | None
    precision: Precision
    audit_batch: int
    resume: bool
    reporter: Reporter

    def train(self, folder: str, defence: Defence, title: str, training: Training) -> Trained:
        """Train a fresh network, all from the same initial weights, in a folder of the job's."""
        start = self.plan.start
        self.reporter.line(f"training {folder}" + (f": {title}" if title != folder else ""))
        return training.run(
            start.fresh(),
            start.dataset,
            defence,
            seed=self.seed,
            out=self.out / folder,
            resume=self.resume and on_first_process((self.out / folder / MARK).exists),
            facts={
                "source": start.source,
                "defence": title,
                "output": start.architecture.output,
                "threat": threat_facts(self.plan.threat),
            },
            reporter=self.reporter,
            title=f"training {folder}",
        )

    def audit(self, model: nn.Module, title: str) -> list[Finding]:
        """Ask all questions about a network, on test inputs; of tokens each network has values of its own."""
        dataset = embedded_data(model, self.plan.start.dataset)
        if about_tokens := tokens_remark(model, dataset, self.plan.threat):
            self.reporter.line(f"{title}: {about_tokens}")
        return ask(
            model,
            dataset,
            self.plan.questions,
            title=f"audit of {title}",
            reporter=self.reporter,
            **self._settings(),
        )

    def vulnerable_layers(self, model: nn.Module, eta: float | None) -> list[str]:
        """Those to regularise, chosen on validation data: the test inputs only report."""
        dataset = embedded_data(model, self.plan.start.dataset)
        about = subject(model, dataset.val, classes=dataset.classes, together=True, **self._settings())
        return vulnerable_layers(about, self.plan.questions, eta, self.plan.start.fresh(), self.plan.start.dataset)

    def judge(self, trained: Trained) -> tuple[Tensor, Tensor | None]:
        """(N,) bool which validation inputs are right, clean and under the attack that validates."""
        training, model = self.plan.choice.training, trained.model
        attack = training.validation_attack(self.plan.base)
        device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
        part = embedded_data(model, self.plan.start.dataset).val.stratified(training.validate_on, self.seed)
        return right_inputs(model, part, attack, self.seed, device, training.task)

    def _settings(self) -> dict[str, Any]:
        return {
            "limit": self.inputs,
            "seed": self.seed,
            "precision": self.precision,
            "batch_size": self.audit_batch,
            "task": self.plan.start.task,
        }


def _report(
    out: Path,
    findings: Mapping[str, Sequence[Finding]],
    facts: dict[str, Any],
    chosen: Chosen,
    hardened: Trained,
    reporter: Reporter,
) -> None:
    """Write the report; its headline says what was gained, what validation showed, and whether a layer collapsed."""
    title = list(findings)[-1]
    against_last = facts["robust accuracy against the last"] = changes(findings)
    collapses = [note for note in hardened.notes if COLLAPSED in note]
    sentences = [
        headline(findings),
        f"{title} was trained with {chosen.title}: {chosen.reason}." if chosen.gain is False else "",
        *(f"Training {title}, {note}." for note in collapses),
    ]
    text = " ".join(sentence for sentence in sentences if sentence)
    # Without a gain over the base, good figures are the base's merit.
    judged: dict[str, Severity] = {"gain": "good", "none": "info", "loss": "warning"}
    severity = most_serious(
        "warning" if collapses else judged[against_last[-1]["change"]],
        *(finding.severity for finding in findings[title]),
    )
    heading = f"Hardening on {facts['data']}"
    shown = with_layers_compared(findings)
    written = partial(report.write, out / REPORT, shown, facts, title=heading, headline=text, severity=severity)
    path = on_first_process(written)
    reporter.line(text)
    reporter.line(f"report: {path}")
