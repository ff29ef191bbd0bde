"""Train a network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from buttress.defences.base.defence import Defence
from buttress.defences.base.length import check_length
from buttress.defences.layer_regularised import LayerRegularised
from buttress.defences.standard import Standard
from buttress.engine.fabric import start_processes
from buttress.engine.machine import told
from buttress.errors import UserError
from buttress.jobs.estimate import estimate_training
from buttress.jobs.no_effect import refuse_twice, refuse_unused_search, refuse_unused_threat
from buttress.jobs.settings import Network, Reporter, Source, Training
from buttress.jobs.threat_resolution import job_threat, threat_facts
from buttress.output_place import claims
from buttress.processes import on_first_process
from buttress.threat import Threat
from buttress.training.fit import Trained
from buttress.training.monitoring import threat_of
from buttress.training.run_folder import MARK
from buttress.training.token_inputs import embedded_data


@claims("out")
def train(
    out: Path,
    *,
    source: Source = Source(),
    architecture: Network = Network(),
    defence: Defence | None = None,
    threat: Threat | None = None,
    training: Training = Training(),
    half: int | None = None,
    seed: int = 0,
    resume: bool = False,
    dry_run: bool = False,
    reporter: Reporter = Reporter(),
) -> Trained | None:
    """Train a network by any defence and keep the best weights by robust accuracy on validation data.

    Args:
        out: the run's folder, new or empty: weights, logs, checkpoints.
        source: the data.
        architecture: the network.
        defence: the training method; standard by default.
        threat: what the network is trained against, for every attack and defence without a threat of its own.
        training: how long and how.
        half: train on a random half of the training inputs, as a reference network of the audit privacy: halves 0 and
            1 are each other's rest, so are 2 and 3, and so on.
        seed: seed of all random draws.
        resume: continue the run in the folder.
        dry_run: only print what would be done and about how long it takes.
        reporter: receives messages and progress.

    Raises:
        UserError: also when there is no run to resume, or one that would be overwritten.
    """
    device = start_processes(training, dry_run=dry_run)
    if resume and not on_first_process((out / MARK).exists):
        raise UserError(f"there is no run in {out} to resume: leave --resume out to start one")
    reporter.line(told(device))
    task = architecture.task or training.task
    dataset, where = architecture.load_data(source, seed, task)
    if half is not None:
        dataset, where = dataset.halved(half), {**where, "half": half}
    model = replace(architecture, task=task).create(dataset, seed)
    dataset = embedded_data(model, dataset)
    method = defence or Standard()
    refuse_unused_threat([method], threat, training.monitors)
    refuse_unused_search(training, method)
    refuse_twice("monitors", training.monitors)
    resolve = job_threat(threat, dataset).resolve
    chosen = resolve(method)
    check_length(chosen, training.epochs)
    training = resolve(replace(training, task=task))
    name = chosen.label()
    reporter.line(
        f"{architecture.model} on {dataset.name} ({len(dataset.train)} inputs), {name}, {training.epochs} epochs"
    )
    for remark in filter(None, (*dataset.notes, architecture.preprocessing(model, dataset))):
        reporter.line(remark)
    for part in chosen.modules():
        if isinstance(part, LayerRegularised) and part.remark:
            reporter.line(part.remark)
    if dry_run:
        reporter.line(estimate_training(model, dataset, chosen, training))
        return None
    against = threat_of(chosen)
    facts = {"source": where, "defence": name, "output": architecture.output}
    facts |= {} if against is None else {"threat": threat_facts(against)}
    trained = training.run(
        model,
        dataset,
        chosen,
        seed=seed,
        out=out,
        resume=resume,
        facts=facts,
        reporter=reporter,
        title=f"training by {name}",
    )
    epoch = trained.best_epoch if training.keep == "best" else len(trained.history)
    figures = trained.history[epoch - 1]
    robust = f", robust {figures['robust']:.1%}" if "robust" in figures else ""
    accuracies = f"clean {figures['clean']:.1%}{robust} on validation data"
    reporter.line(f"{training.keep} epoch, {epoch}: {accuracies}; the network is in {out}")
    return trained
