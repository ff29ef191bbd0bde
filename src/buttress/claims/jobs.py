"""One job of a reproduction: train a network from one seed, and measure it. Plain data in, plain data out."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from buttress import audits, layers
from buttress.attacks import Perturbation
from buttress.audits import Audit
from buttress.audits.base.finding import to_json
from buttress.audits.robustness import Robustness
from buttress.claims.figures import finite_history, measure_figures, monitor_figures
from buttress.claims.setup_training import load, train
from buttress.claims.transfer_sources import attacks_of
from buttress.claims.verified import verified_accuracy
from buttress.config.reading import build
from buttress.data import without_classes
from buttress.data.dataset import Dataset, Split
from buttress.engine.machine import Accelerator
from buttress.engine.threat_resolution import resolve_threats
from buttress.threat import Threat
from buttress.training import versions

Job = dict[str, Any]  # plain data, of which JSON can be made
Result = dict[str, Any]  # likewise

_BATCH = 512  # inputs attacked at once


def run_job(job: Mapping[str, Any], data_dir: str | None, accelerator: Accelerator = "auto") -> dict[str, Any]:
    """Train and measure.

    Args:
        job: ``setup`` (source, architecture, training), ``defence``, ``seed``, ``split``, and any of ``accuracy``
            (eps, attacks, perhaps verifiers), ``profile`` (eps, perturbations, measures, inputs) and ``finding``
            (audit, inputs, eps); ``figures``, where there are any; ``history``, whether that of the training is wanted.
        data_dir: where original data files are, for data sets that have such.
        accelerator: that the network is trained and measured on.

    Returns:
        ``accuracy``: label of the attack -> percent at each eps; or ``profile``: ``layers`` and, by measure and
        perturbation, their mean displacement; or ``finding``: what the audit finds. ``figures`` by name, where the job
        has them. With accuracies the number of ``parameters``, and the ``history`` where it is wanted. The name
        of the ``device`` that the network was on. And ``seconds`` of training and of measuring, in which sources are
        trained that this process does not have yet.
    """
    setup, seed = job["setup"], int(job["seed"])
    dataset = load(setup["source"], data_dir, seed)
    trained, seconds = train(setup, job["defence"], dataset, seed, accelerator)
    model, start = trained.model, time.perf_counter()
    split: Split = dataset.splits[job["split"]]
    settings: dict[str, Any] = {"classes": dataset.classes, "seed": seed, "batch_size": _BATCH}
    settings["training"] = dataset.train
    weight = next(model.parameters(), None)
    device = versions("cpu" if weight is None else weight.device)["device"]
    result: dict[str, Any] = {}
    if "finding" in job:
        result["finding"] = _finding(model, dataset, split, job["finding"], settings)
    if "profile" in job:
        result["profile"] = _profile(model, dataset, split, job["profile"], seed)
    if "accuracy" in job:
        result["accuracy"] = _accuracy(model, dataset, split, job["accuracy"], settings, data_dir, accelerator)
        result["parameters"] = sum(weight.numel() for weight in model.parameters())
    if job.get("figures"):
        threat = Threat(eps=max(job["accuracy"]["eps"]), box=dataset.box)

        def train_without(name: str | int) -> nn.Module:
            rest = without_classes(dataset, [name])
            return train(setup, job["defence"], rest, seed, accelerator)[0].model

        result["figures"] = measure_figures(trained, split, job["figures"], threat, settings, train_without)
    if job.get("history"):
        result["history"] = finite_history(trained.history)
    if "accuracy" in job and setup.get("training", {}).get("monitors"):
        result.setdefault("figures", {}).update(monitor_figures(trained))
    return {**result, "device": device, "seconds": {"training": seconds, "measuring": time.perf_counter() - start}}


def _accuracy(
    model: nn.Module,
    dataset: Dataset,
    split: Split,
    experiment: Mapping[str, Any],
    settings: Mapping[str, Any],
    data_dir: str | None,
    accelerator: Accelerator,
) -> dict[str, list[float]]:
    """Accuracy in percent by attack or verifier and budget; an attack from several sources is one for each."""
    budgets: Sequence[float] = experiment["eps"]
    threat = Threat(eps=max(budgets), box=dataset.box)
    accuracy = {}
    for entry in experiment["attacks"]:
        for name, attack in attacks_of(entry, dataset, settings["seed"], data_dir, accelerator):
            # Each budget as published.
            audit = Robustness(attacks=[attack.within(usual=threat)], eps=budgets, reuse=False)
            (finding,) = audits.run(model, split, [audit], limit=entry.get("inputs"), **settings)
            row = finding.data["attacks"][0]
            by_budget = {point["eps"]: 100 * point["accuracy"] for point in row["curve"]}
            accuracy[str(row["label"]) if name is None else name] = [by_budget[eps] for eps in budgets]
    verified = (verified_accuracy(model, split, e, budgets, threat, settings) for e in experiment.get("verifiers", ()))
    return accuracy | dict(verified)


def _finding(
    model: nn.Module, dataset: Dataset, split: Split, entry: Mapping[str, Any], settings: Mapping[str, Any]
) -> Any:
    """The finding of one audit, as plain data."""
    threat = Threat(eps=entry["eps"], box=dataset.box)
    audit: Audit = resolve_threats(build(Audit, entry["audit"]), usual=threat)
    (finding,) = audits.run(model, split, [audit], limit=entry["inputs"], **settings)
    return json.loads(to_json({"network": [finding]}, {}))["networks"]["network"][0]


def _profile(model: nn.Module, dataset: Dataset, split: Split, entry: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Mean displacement by measure and perturbation, along the activations."""
    threat = Threat(eps=entry["eps"], box=dataset.box)
    built = {name: build(Perturbation, tree) for name, tree in entry["perturbations"].items()}
    perturbations = {name: perturbation.within(usual=threat) for name, perturbation in built.items()}
    inputs = split.stratified(entry["inputs"], seed)
    result: dict[str, Any] = {}
    for measure in entry["measures"]:
        profile = layers.sustainability(model, inputs, perturbations, "activations", measure, seed=seed)
        result["layers"] = profile.layers
        result[measure] = dict(zip(profile.perturbations, profile.mean.tolist(), strict=True))
    return result
