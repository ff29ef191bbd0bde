"""Audit a network and write the report."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import nn

from buttress import audits as audit_room
from buttress import report
from buttress.attacks import Attack
from buttress.audits import Audit, Finding
from buttress.audits.base.audit import put
from buttress.audits.base.evaluation.sharing import idle_remark
from buttress.data.dataset import Dataset
from buttress.engine.fabric import start_processes
from buttress.engine.machine import Machine, placed, told
from buttress.engine.runner import Precision
from buttress.errors import UserError
from buttress.jobs.analysed_layers import analysed_layers, fitting
from buttress.jobs.asking import Telling
from buttress.jobs.audit_plan import AuditPlan, tiers
from buttress.jobs.audit_times import AuditTimes
from buttress.jobs.duration import seconds_of
from buttress.jobs.every_audit import ALL, LeftOut, applying, every_audit, named_audits
from buttress.jobs.first_look import first_look, recorded
from buttress.jobs.gate import check_gate, gate
from buttress.jobs.no_effect import refuse_twice, refuse_unused_attacks, refuse_unused_threat
from buttress.jobs.questions import (
    given_audits,
    gradient_free_attacks,
    lacks_gradient,
    proposed,
    usual_audits,
    usual_trust,
)
from buttress.jobs.reopened import opened_as
from buttress.jobs.settings import Network, Reporter, Source, open_network
from buttress.jobs.surrogates import with_surrogates
from buttress.jobs.threat_resolution import job_threat, threat_facts
from buttress.jobs.tokens import tokens_remark
from buttress.jobs.training_inputs import training_inputs
from buttress.output_place import claims, entries, taken
from buttress.processes import on_first_process, rank_and_count
from buttress.tasks import check_task, task_of
from buttress.threat import Threat
from buttress.training import versions
from buttress.training.cost import read_cost
from buttress.validation import whole

CRAFTED = "crafted"  # of an audit's output folder, the folder of what it has crafted
# What may be in the output folder of a job that is resumed, half-written files among it.
_OURS = {CRAFTED, *(dot for name in ("report.html", "findings.json") for dot in (name, f".{name}.tmp"))}


def new_folder(out: Path) -> None:
    """Refuse a folder in which something would be overwritten.

    Raises:
        UserError: naming it.
    """
    if taken(out):
        raise UserError(f"{out} exists and is not empty: choose another output folder")


def _claim(out: Path, crafted_folder: Path | None) -> None:
    if crafted_folder is None or not crafted_folder.is_dir() or entries(out) - _OURS:
        new_folder(out)


def report_facts(
    command: str, dataset: Dataset, seed: int, settings: Mapping[str, Any], model: nn.Module
) -> dict[str, Any]:
    """What the foot of a report says of how it was made; ``model`` is one that was audited, where it ran."""
    weight = next(model.parameters(), None)
    return {
        "command": command,
        "seed": seed,
        "versions": versions("cpu" if weight is None else weight.device),
        "data": dataset.name,
        "provenance": dataset.provenance,
        **({"remarks on the data": list(dataset.notes)} if dataset.notes else {}),
        "settings": dict(settings),
    }


@claims("out")
def audit(
    network: str,
    *,
    out: Path,
    architecture: Network = Network(),
    source: Source = Source(),
    threat: Threat | None = None,
    attacks: list[Attack] | None = None,
    audits: list[Audit | Literal["all"]] | None = None,
    without: list[str] | None = None,
    budget: str | None = None,
    inputs: int | None = 1000,
    seed: int = 0,
    precision: Precision = "auto",
    batch_size: int = 256,
    machine: Machine = Machine(),
    fail_under: float | None = None,
    dry_run: bool = False,
    resume: bool = False,
    keep_examples: bool = False,
    command: str = "",
    reporter: Reporter = Reporter(),
) -> list[Finding] | None:
    """Audit a trained network: robust accuracy, vulnerable layers, adversarial examples; write a report.

    Args:
        network: a run's folder; or a model's name, package.module:function or file.py:function, with --weights.
        out: a new folder for report.html and findings.json.
        architecture: for a network that is no run's: its options and weights.
        source: the data; a run's own by default.
        threat: what the attacker may do, for every attack without a threat of its own; by default the threat of the
            run's training, else linf 8/255.
        attacks: PGD-20 and FGSM by default, Square and HopSkipJump for a network without gradients; the first one's
            eps is the main budget. Each norm is scored by itself.
        audits: by default robustness, layers (activations, else layers with weights), examples or the decision
            boundary, and, for classes, masking; those without attacks of their own take the ones above. An attack that
            masking proposes is run as well, once the report on the others is written. "all" asks every registered audit
            that is for this network, these data and this threat, the cheapest first, and says why others are not; one
            that is named beside it is asked with its options.
        without: audits to leave out of all.
        budget: a time such as 90s, 10m or 1.5h: asks what fits, by estimate, first what was named, then the usual
            audits, then others, the cheapest first; after each the rest is planned anew, and what was left out is told.
        inputs: the largest number of test inputs, classes in proportion.
        seed: seed of all attacks.
        precision: precision of the attacks' search; auto times fp32, bf16 and folded copies; verdicts are float32.
        batch_size: inputs computed at once.
        machine: on what; processes that torchrun or srun started share the inputs of each attack.
        fail_under: exit with status 3 when robust accuracy, in percent, is lower: a gate for CI.
        dry_run: only print what would be done and about how long it takes.
        resume: keep crafted examples in the output folder until the report is written, and continue from those there.
        keep_examples: keep them for good, in its folder crafted, where compare --transfer finds them.
        command: the command, for the report.
        reporter: receives messages and progress.

    Raises:
        UserError: for settings that do not fit the network or the data, and a folder that holds something else.
        GateNotMet: when robust accuracy is below ``fail_under``; the report is written then.
    """
    device = start_processes(machine, dry_run=dry_run)
    crafted_folder = out / CRAFTED if resume or keep_examples else None
    on_first_process(partial(_claim, out, crafted_folder if resume else None))
    refuse_twice("attacks", attacks or ())
    refuse_twice("audits", audits or ())
    named, every = named_audits(audits, without), ALL in (audits or ())
    seconds = None if budget is None else seconds_of("--budget", budget)
    if named and not every:
        refuse_unused_attacks(named, attacks)
        refuse_unused_threat(given_audits(named, attacks), threat)
    whole("batch_size", batch_size)
    reporter.line(told(device))
    model, dataset, facts = open_network(network, architecture, source, seed, trained=True)
    placed(model, device)
    task, against = task_of(facts), job_threat(threat, dataset, facts.get("threat"))
    if not attacks and lacks_gradient(model, dataset, task):
        attacks = gradient_free_attacks(against.threat)
        reporter.line(f"the network gives no gradients; attacks: {', '.join(attack.label() for attack in attacks)}")
    attacks = against.resolve(attacks) if attacks else None

    def prepared(questions: Sequence[Audit]) -> tuple[list[Audit], str]:
        fitted, about = fitting(against.resolve(given_audits(questions, attacks)), model, dataset)
        return with_surrogates(fitted, dataset, device, task), about

    named, remark = prepared(named)
    questions, usual, left_out = named, list[Audit](), list[LeftOut]()
    if every or not named:
        analysed = analysed_layers(model, dataset)
        remark = remark or analysed.remark
        usual = [*usual_audits(dataset, against.threat, attacks, analysed.layers, task)]
        usual += usual_trust(against.threat, attacks) if task.classes else []
        questions = usual = with_surrogates(usual, dataset, device, task)
    if every:
        questions, left_out = every_audit(usual, named, without, lambda question: prepared([question])[0][0])
    if not every:
        check_task(questions, task)
    check_gate(fail_under, questions)
    count = len(dataset.test) if inputs is None else min(whole("inputs", inputs), len(dataset.test))
    known = recorded(network, architecture.weights, facts, source.data is None)
    about_training = [question for question in questions if question.needs_training]
    try:
        training = training_inputs(network, dataset) if about_training else None
    except UserError as reason:
        if not every or any(question.needs_training for question in named):
            raise
        training, questions = None, [question for question in questions if not question.needs_training]
        left_out += [LeftOut(question.label(), str(reason)) for question in about_training]
    warning = first_look(model, dataset, task, known, seed)
    if warning:
        reporter.line(warning)
    reporter.line(f"audit of {network} on {count} test inputs of {dataset.name}")
    about_tokens = tokens_remark(model, dataset, against.threat)
    notes = (*dataset.notes, facts["preprocessing"], about_tokens, remark, idle_remark(count))
    for line in filter(None, notes):
        reporter.line(line)
    telling = Telling(reporter, "audit")
    subject = audit_room.subject(
        model,
        dataset.test,
        limit=inputs,
        classes=dataset.classes,
        task=task,
        seed=seed,
        precision=precision,
        batch_size=batch_size,
        watch=None if dry_run else telling.watch,
        folder=None if dry_run else crafted_folder,
        training=training,
        together=not dry_run,
    )
    times = AuditTimes(subject, against.threat)
    if every:
        questions, unfit = applying(questions, named, subject, times)
        left_out = sorted([*left_out, *unfit], key=lambda one: one.name)
    for question in questions:
        question.check(subject)
    plan = None
    if every or seconds is not None:
        plan = AuditPlan(questions, tiers(questions, named, usual), times, left_out, seconds, reporter.line)
        plan.announce()
    if dry_run:
        if plan is None:
            reporter.line(times.text(questions))
        return None
    description = {"network": network, "threat": threat_facts(against.threat), "inputs": count, "precision": precision}
    description |= {"opened as": how} if (how := opened_as(network, architecture, source)) else {}
    description |= {"preprocessing": facts["preprocessing"]} if facts["preprocessing"] else {}
    description |= {"first look": warning} if warning else {}
    description |= {"analysed": about_tokens} if about_tokens else {}
    description |= {"defence": facts["defence"]} if "defence" in facts else {}
    description |= {"training": spent} if (spent := read_cost(Path(network))) else {}
    name = Path(network).resolve().name if Path(network).is_dir() else network
    about = report_facts(command, dataset, seed, description, model)

    def write(findings: list[Finding], headline: str) -> Path:
        content = partial(report.write, out, {name: findings}, about, title=f"Audit of {name}", headline=headline)
        return on_first_process(content)

    try:
        findings = put(subject, questions, telling.answered) if plan is None else plan.ask(subject, telling.answered)
    except BaseException:  # the findings so far are valid
        if plan is not None and plan.findings:
            path = write([*plan.findings, plan.finding()], _headline(plan.findings, warning))
            reporter.line(f"report of what was answered: {path}")
        raise
    asked, record = (questions, []) if plan is None else (plan.answered, [plan.finding()])
    path = write([*findings, *record], _headline(findings, warning))
    further = proposed(asked, findings)
    if further and plan is not None and not plan.has_time_for(further):
        reporter.line("the attack proposed by masking is left out for time: give more --budget")
        further = []
    if further:
        telling = Telling(reporter, "proposed by masking")
        subject.watch = telling.watch
        try:
            after = put(subject, further, telling.answered)
        except BaseException:  # the findings so far are valid
            reporter.line(f"report, without the attack proposed by masking: {path}")
            raise
        findings += [replace(finding, title=f"{finding.title}, attack proposed by masking") for finding in after]
        path = write([*findings, *record], _headline(after[-1:], warning))  # the lower figure is the one that counts
    findings += record
    if crafted_folder is not None and rank_and_count()[0] == 0 and not keep_examples:
        shutil.rmtree(crafted_folder, ignore_errors=True)
    if keep_examples:
        reporter.line(f"crafted examples are kept in {crafted_folder}")
    reporter.line(f"report: {path}")
    gate(findings, fail_under)
    return findings


def _headline(findings: Sequence[Finding], warning: str) -> str:
    """The verdict on robustness, else the first one, behind the warning."""
    robustness = [finding for finding in findings if finding.kind == "robustness"]
    return f"{warning} {(robustness or findings)[0].verdict}".lstrip()
