"""Craft adversarial examples and write them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from buttress import processes
from buttress.attacks import Perturbation
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base.evaluation import Evaluation, evaluate
from buttress.audits.base.evaluation.groups import GROUP, Group
from buttress.audits.base.evaluation.joining import save_file
from buttress.audits.base.evaluation.manifest import check_same
from buttress.data.dataset import Split
from buttress.engine.fabric import start_processes
from buttress.engine.fingerprint import digest, digest_of, plain
from buttress.engine.machine import Machine, placed, told
from buttress.engine.runner import Precision
from buttress.errors import UserError
from buttress.jobs.audit import new_folder
from buttress.jobs.estimate import estimate_attacks
from buttress.jobs.first_look import first_look, recorded
from buttress.jobs.no_effect import refuse_unused_threat
from buttress.jobs.settings import Network, Reporter, Source, open_network
from buttress.jobs.surrogates import with_surrogates
from buttress.jobs.threat_resolution import job_threat
from buttress.jobs.tokens import tokens_remark
from buttress.output_place import claims, entries
from buttress.plain_data import read_json
from buttress.safe_files import full_disk_reported, write_text
from buttress.tasks import check_task, task_facts, task_of
from buttress.threat import Threat
from buttress.training import versions
from buttress.validation import whole

_KEPT = ("x_adv", "y", "ids", "beaten", "distance")  # beaten: where it is successful
_OURS = {"groups", *(dot for name in ("examples.safetensors", "examples.json") for dot in (name, f".{name}.tmp"))}


@claims("out")
def attack(
    network: str,
    *,
    out: Path,
    architecture: Network = Network(),
    source: Source = Source(),
    threat: Threat | None = None,
    by: Perturbation | None = None,
    inputs: int | None = None,
    seed: int = 0,
    precision: Precision = "fp32",
    batch_size: int = 256,
    group: int = GROUP,
    machine: Machine = Machine(),
    dry_run: bool = False,
    resume: bool = False,
    reporter: Reporter = Reporter(),
) -> Path | None:
    """Perturb the test inputs of a network and write them as tensors.

    Args:
        network: a run's folder; or a model's name, package.module:function or file.py:function, with --weights.
        out: a new folder for examples.safetensors (x_adv, y, ids, beaten, distance) and examples.json; more than one
            group of inputs is kept there group by group until all are done.
        architecture: for a network that is no run's: its options and weights.
        source: the data; a run's own by default.
        threat: what the attacker may do, if the attack has no threat of its own.
        by: the attack or noise; PGD-20 by default.
        inputs: the largest number of test inputs, classes in proportion.
        seed: seed of the attack.
        precision: precision of the search, the same when it is resumed; verdicts are float32.
        batch_size: inputs computed at once.
        group: inputs attacked and written together; the most that an interruption loses.
        machine: on what; the devices share the groups.
        dry_run: only print what would be done and about how long it takes, on one device.
        resume: continue with what is in the output folder, with the same settings; start if there is nothing yet.
        reporter: receives messages and progress.

    Raises:
        UserError: for a folder that holds something else, and for other settings than those it was begun with.
    """
    device = start_processes(machine, dry_run=dry_run)
    for name, value in (("batch_size", batch_size), ("group", group), ("inputs", 1 if inputs is None else inputs)):
        whole(name, value)
    rank, count = processes.rank_and_count()
    first = rank == 0
    reporter = reporter if first else Reporter()
    reporter.line(told(device))
    path = out / "examples.safetensors"
    going_on = processes.on_first_process(lambda: _claim(out, resume))
    if by is not None:
        refuse_unused_threat([by], threat)
    model, dataset, facts = open_network(network, architecture, source, seed, trained=True)
    chosen = with_surrogates(job_threat(threat, dataset).resolve(by or PGD(steps=20)), dataset, device, task_of(facts))
    check_task(chosen, task_of(facts))
    split = dataset.test if inputs is None else dataset.test.stratified(inputs, seed)
    placed(model, device)
    for remark in filter(None, (*dataset.notes, facts["preprocessing"], tokens_remark(model, dataset, chosen.threat))):
        reporter.line(remark)
    if dry_run:
        reporter.line(f"{chosen.label()} on {network}, {len(split)} test inputs of {dataset.name}")
        if first:
            reporter.line(estimate_attacks(model, split, [chosen], batch_size, task_of(facts)))
        return None
    settings = {**_settings(model, split, chosen, seed, precision), **task_facts(task_of(facts))}
    if processes.on_first_process(lambda: _finished(out, settings)):
        reporter.line(f"{out} is finished already; written to {path}")
        return path
    known = recorded(network, architecture.weights, facts, source.data is None)
    if first and (warning := first_look(model, dataset, task_of(facts), known, seed)):
        reporter.line(warning)
    # A single group is whole or not at all, and needs no files of its own.
    folder = out / "groups" if going_on or len(split) > group or count > 1 else None
    groups: list[Group] = []
    try:
        result = evaluate(
            model,
            split,
            chosen,
            out=folder,
            resume=folder is not None,
            group=group,
            task=task_of(facts),
            seed=seed,
            search="full",
            precision=precision,
            batch_size=batch_size,
            each=groups.append if folder is None else None,
            watch=_watch(reporter),
        )
    except KeyboardInterrupt:
        if folder is not None:
            reporter.line(f"finished groups are kept in {folder}; go on with --resume")
        raise
    if first:
        out.mkdir(parents=True, exist_ok=True)
        with full_disk_reported(path):
            save_file(path, groups if folder is None else result.parts(), result.inputs, _KEPT)
        about = {"network": network, "data": dataset.name, **_facts(result, chosen), "seed": seed, "run": settings}
        about |= {"preprocessing": facts["preprocessing"]}
        write_text(out / "examples.json", json.dumps({**about, "versions": versions(device)}, indent=2))
        if folder is not None:
            shutil.rmtree(folder)
        summary = f"{chosen.label()} is successful on {result.successes} of {result.inputs} inputs"
        reporter.line(f"{summary}; written to {path}")
    processes.on_first_process(lambda: None)  # nobody leaves before all is written
    return path


def _claim(out: Path, resume: bool) -> bool:
    """Whether groups of an earlier run are in ``out``; refuses a folder in which something would be overwritten."""
    if resume and out.is_dir() and entries(out) <= _OURS:
        return (out / "groups").is_dir()
    new_folder(out)
    return False


def _finished(out: Path, settings: dict[str, Any]) -> bool:
    """Whether all has been done before, with the same settings."""
    facts = out / "examples.json"
    if not facts.exists():
        return False
    try:
        before = read_json(facts.read_text(encoding="utf-8"))["run"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{facts} cannot be read: choose another output folder, or remove this one") from None
    check_same(before, settings, out)
    examples = out / "examples.safetensors"
    try:
        with safe_open(examples, "pt") as held:
            whole = "x_adv" in held.keys()  # noqa: SIM118  (no mapping)
    except (SafetensorError, OSError):
        whole = False
    if not whole:
        raise UserError(f"{examples} is damaged or gone: choose another output folder, or remove this one")
    shutil.rmtree(out / "groups", ignore_errors=True)  # stopped just before that
    return True


def _settings(model: nn.Module, split: Split, chosen: Perturbation, seed: int, precision: Precision) -> dict[str, Any]:
    return {
        "attack": chosen.label(),
        "fingerprint": chosen.fingerprint(),
        "model": digest(model),
        "inputs": len(split),
        "data": digest_of(split.sample.x, split.y, split.ids),
        "seed": seed,
        "precision": precision,
    }


def _facts(result: Evaluation, chosen: Perturbation) -> dict[str, Any]:
    return {
        "attack": chosen.label(),
        "fingerprint": chosen.fingerprint(),
        "settings": plain(chosen),
        "precision": result.precision,
        "inputs": result.inputs,
        "beaten": result.successes,
        "forwards": result.forwards / result.inputs,
        "backwards": result.backwards / result.inputs,
        "seconds": result.seconds,
        "stages": [stage.facts() for stage in result.stages],
    }


def _watch(reporter: Reporter) -> Callable[[str, float], None] | None:
    progress = reporter.watch("attack")
    return None if progress is None else lambda what, done: progress(done, {what: done})
