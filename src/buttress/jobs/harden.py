"""Harden a network: audit it, train a base defence and its layer-regularised form, audit both, compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from buttress import models, report, tasks
from buttress.attacks import Attack
from buttress.audits import Audit, Finding, subject
from buttress.audits.base.finding import Severity, most_serious
from buttress.audits.layers import Layers
from buttress.data.dataset import Dataset
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.base.defence import Defence
from buttress.defences.layer_regularised import LayerRegularised
from buttress.defences.standard import Standard
from buttress.engine.runner import Precision
from buttress.errors import UserError
from buttress.jobs.analysed_layers import analysed_layers
from buttress.jobs.audit import ask, report_facts
from buttress.jobs.compare import changes, headline
from buttress.jobs.estimate import estimate_audits, estimate_training
from buttress.jobs.gate import check_gate, gate
from buttress.jobs.questions import lacks_gradient, usual_audits
from buttress.jobs.regularised_training import WeightChoice, trial_training, watched
from buttress.jobs.settings import Network, Reporter, Source, Training, open_network
from buttress.jobs.threat_resolution import job_threat, threat_facts
from buttress.jobs.tokens import from_embedding, tokens_remark
from buttress.jobs.vulnerable_layers import check_layers, vulnerable_layers
from buttress.layers.measures import MEASURES
from buttress.report.text import some
from buttress.tasks import check_task, task_of
from buttress.threat import Threat
from buttress.training import Trained
from buttress.training.cost import passes
from buttress.training.run_folder import MARK
from buttress.training.token_inputs import embedded_data

REPORT = "report"


def harden(
    network: str | None = None,
    *,
    out: Path,
    architecture: Network = Network(),
    source: Source = Source(),
    threat: Threat | None = None,
    base: Defence | None = None,
    layers: list[str] | None = None,
    eta: float | None = None,
    gamma: float | None = None,
    measure: str = "centred",
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
    the regularisation, and how slowly it rises, by short trainings judged on validation data; train the base once more
    with those layers regularised (AT-LR), and note where a layer collapses; audit both; compare, and say whether the
    regularisation demonstrably gained robust accuracy.

    Args:
        network: a run's folder with the network to harden; without it one is trained by standard training.
        out: a new folder: a run each for original, base and hardened, and report/ with the comparison.
        architecture: the network, where it is trained here.
        source: the data.
        threat: what the network is hardened against, for every attack and defence without a threat of its own.
        base: the base defence; adversarial training with PGD by default.
        layers: the layers to regularise; by default those that the audit names.
        eta: cut-off of the most vulnerable layers in standard deviations; by default at the widest gap.
        gamma: weight of the regularisation; by default 0.03, 0.1, 0.3 or 1, the best on validation data, under the
            attack that validates, after a quarter of the epochs.
        measure: what is regularised: displacement against the layer's size (centred, the paper's relative_error), or
            against what a constant layer lacks (between_classes, tolerance, margin_direction).
        warmup: epochs over which gamma rises from 0; by default one, or a quarter or half of the training, chosen like
            gamma.
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
    started = out.exists() and (not out.is_dir() or any(out.iterdir()))
    if started and not resume:
        raise UserError(f"{out} is not empty: resume the job in it (--resume), or choose another output folder")
    if resume and not started:
        raise UserError(f"there is no job in {out} to resume: leave --resume out to start one")
    run_facts: dict[str, Any] = {}
    if network is not None:
        original, dataset, run_facts = open_network(network, architecture, source, seed)
        architecture = replace(architecture, task=task_of(run_facts))
        where = run_facts["source"]
        # The networks trained here are of its architecture, and start from weights of their own.
        architecture = replace(
            architecture,
            model=architecture.model if "model" in run_facts else network,
            output=architecture.output or run_facts.get("output"),
            weights=None,
        )
    else:
        dataset, where = source.load(seed, task=architecture.task)
        original = architecture.create(dataset, seed)
        dataset = embedded_data(original, dataset)
    task = architecture.task or tasks.classification
    if lacks_gradient(original, dataset, task):
        raise UserError("harden trains networks, and this one gives no gradients: give the torch network itself")
    against = job_threat(threat, dataset)
    chosen = against.resolve(base if base is not None else AdversarialTraining())
    training, analysed = against.resolve(replace(training, task=task)), analysed_layers(original, dataset)
    regularised = LayerRegularised(chosen, layers or ["any"], gamma or 0.0, measure, warmup or 0.0)  # refused now
    questions = [
        # By another measure the largest displacement would not be what training makes smaller; of those that set it
        # against what a layer is there for, the audit has none, and centred cannot be fooled by a constant either.
        replace(question, measure=measure if measure in MEASURES else "centred")
        if isinstance(question, Layers)
        else question
        for question in usual_audits(dataset, against.threat, against.resolve(attacks), analysed.layers, task)
    ]
    check_task([regularised, *questions], task)
    check_gate(fail_under, questions)
    if isinstance(chosen, Standard):
        raise UserError("standard training attacks nothing, and regularisation needs the attack: give another base")
    if layers is not None:
        check_layers(original, dataset, layers)
    elif analysed.layers != "activations":
        of = f": name the layers to regularise by --layers, of {some(analysed.names)}" if analysed.names else ""
        raise UserError(f"harden chooses among activations, and the network has none that buttress knows{of}")
    if analysed.remark:
        reporter.line(analysed.remark)
    choice = WeightChoice(training, gamma, warmup)
    if dry_run:
        _estimate(original, network, dataset, chosen, questions, choice, inputs, audit_batch, reporter)
        return None
    settings: dict[str, Any] = {
        "limit": inputs,
        "seed": seed,
        "precision": precision,
        "batch_size": audit_batch,
        "task": task,
        "reporter": reporter,
    }

    def run(folder: str, defence: Defence, title: str, training: Training = training) -> Trained:
        model = _fresh(run_facts, architecture, dataset, seed)
        facts = {
            "source": where,
            "defence": title,
            "output": architecture.output,
            "threat": threat_facts(against.threat),
        }
        goes_on = resume and (out / folder / MARK).exists()
        reporter.line(f"training: {title}")
        return training.run(
            model,
            dataset,
            defence,
            seed=seed,
            out=out / folder,
            resume=goes_on,
            facts=facts,
            reporter=reporter,
            title=title,
        )

    def audited(model: nn.Module, name: str) -> list[Finding]:
        seen = embedded_data(model, dataset)  # of tokens each network has values of its own
        if about_tokens := tokens_remark(model, seen, against.threat):
            reporter.line(f"{name}: {about_tokens}")
        return ask(model, seen, questions, title=f"audit of {name}", **settings)

    if network is None:
        original = run("original", Standard(), "original", replace(training, monitors=[])).model
    findings = {"original": audited(original, "the original")}
    if layers is not None:
        names = layers
    else:  # chosen on validation data: the test inputs only report
        held_out = {key: value for key, value in settings.items() if key != "reporter"}
        about = subject(original, embedded_data(original, dataset).val, classes=dataset.classes, **held_out)
        names = vulnerable_layers(about, questions, eta)
    reporter.line(f"regularised: {', '.join(names)}")
    short = chosen.label().upper()
    base_model = run("base", chosen, short).model
    findings[short] = audited(base_model, short)
    observed = watched(training, names)
    regularised = LayerRegularised(against.resolve(chosen), names, measure=measure)
    regularised, trials = replace(choice, training=observed).choose(regularised, run, reporter)
    title = f"{short}-LR"
    hardened = run("hardened", regularised, title, observed)
    findings[title] = audited(hardened.model, title)
    facts = report_facts(
        command,
        dataset,
        seed,
        {
            "network": network or architecture.model,
            "threat": threat_facts(against.threat),
            "regularised layers": names,
            "gamma": regularised.gamma[0],
            "warm-up": regularised.warmup,
            **({"chosen from": {trial.title: trial.words() for trial in trials}} if trials else {}),
            "measure": measure,
            **({"notes on the regularised training": hardened.notes} if hardened.notes else {}),
            "epochs": training.epochs,
            # What a gain has to be set against: the regularised training is the longer one.
            "passes of each input trained on": {
                short: passes(chosen, training.epochs)["passes"],
                title: passes(regularised, training.epochs)["passes"],
                "choosing gamma": passes(regularised, sum(trial.epochs for trial in trials))["passes"],
            },
            "inputs": inputs,
        },
        original,
    )
    against_last = facts["robust accuracy against the last"] = changes(findings)
    text = headline(findings)
    # Without a gain over the base, good figures are the base's merit.
    judged: dict[str, Severity] = {"gain": "good", "none": "info", "loss": "warning"}
    last = list(findings.values())[-1]
    severity = most_serious(judged[against_last[-1]["change"]], *(finding.severity for finding in last))
    heading = f"Hardening on {dataset.name}"
    path = report.write(out / REPORT, findings, facts, title=heading, headline=text, severity=severity)
    reporter.line(text)
    reporter.line(f"report: {path}")
    gate(list(findings.values())[-1], fail_under)
    return findings


def _fresh(run_facts: dict[str, Any], architecture: Network, dataset: Dataset, seed: int) -> nn.Module:
    """A network of the same architecture with initial weights from ``seed``."""
    spec = run_facts.get("model")
    if spec is None:
        return architecture.create(dataset, seed)
    model = models.create(spec["name"], mean=spec["mean"], std=spec["std"], seed=seed, **spec["options"])
    return from_embedding(architecture.finish(model), dataset)


def _estimate(
    original: nn.Module,
    network: str | None,
    dataset: Dataset,
    base: Defence,
    questions: Sequence[Audit],
    choice: WeightChoice,
    inputs: int | None,
    batch_size: int,
    reporter: Reporter,
) -> None:
    runs: dict[str, Defence] = {"base": base, "hardened (regularised layers not counted)": base}
    training = choice.training
    if network is None:
        runs = {"original": Standard(), **runs}
    for name, defence in runs.items():
        reporter.line(f"training {name}: {estimate_training(original, dataset, defence, training)}")
    if choice.count:
        trial = trial_training(training)
        time = estimate_training(original, dataset, base, trial)
        length = f"{trial.epochs} epoch{'s' * (trial.epochs != 1)}"
        reporter.line(f"choosing gamma and its warm-up: {choice.count} trainings of {length}, each {time}")
    split = dataset.test if inputs is None else dataset.test.stratified(inputs)
    audits = estimate_audits(original, split, questions, batch_size, training.task)
    reporter.line(f"each of three audits: {audits}")
