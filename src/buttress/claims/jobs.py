"""One job of a reproduction: train a network from one seed, and measure it. Plain data in, plain data out."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from buttress import audits, layers
from buttress.attacks import Perturbation
from buttress.audits import Audit, Finding
from buttress.audits.robustness import Robustness
from buttress.claims.build import build
from buttress.claims.experiment import Figure
from buttress.claims.history import finite, of_history
from buttress.claims.recipe import typed
from buttress.claims.snapshots import snapshot
from buttress.claims.sources import attacks_of
from buttress.claims.train_rows import load, trained
from buttress.data.dataset import Dataset, Split
from buttress.engine.threat_resolution import resolve_threats
from buttress.errors import UserError
from buttress.registry import nearest
from buttress.threat import Threat
from buttress.training import Trained

FIRED = "monitors fired"  # a figure of rows whose training is monitored: 1 where one had something to say
_BATCH = 512  # inputs attacked at once


def fired(detector: str) -> str:
    """The figure that tells whether a monitor's detector ever found what it looks for."""
    return f"fired: {detector}"


def run_job(job: Mapping[str, Any], data_dir: str | None) -> dict[str, Any]:
    """Train and measure.

    Args:
        job: ``setup`` (source, architecture, training), ``defence``, ``seed``, ``split``, and one of ``accuracy``
            (eps, attacks), ``profile`` (eps, perturbations, measures, inputs) and ``picture`` (see `snapshot`);
            ``figures``, where there are any; ``history``, whether that of the training is wanted.
        data_dir: where original data files are, for data sets that have such.

    Returns:
        ``accuracy``: label of the attack -> percent at each eps; or ``profile``: ``layers`` and, by measure and
        perturbation, their mean displacement; or ``picture``. ``figures`` by name, where asked for. With accuracies the
        number of ``parameters``, and the ``history`` where asked for. And ``seconds`` of training and of measuring, in
        which sources are trained that this process does not have yet.
    """
    setup, seed = job["setup"], int(job["seed"])
    dataset = load(setup["source"], data_dir, seed)
    done, spent = trained(setup, job["defence"], dataset, seed)
    model, ended = done.model, time.perf_counter()
    split: Split = dataset.splits[job["split"]]
    if "picture" in job:
        seen = snapshot(done, dataset, split, job["picture"], seed)
        return {"picture": seen, "seconds": {"training": spent, "measuring": time.perf_counter() - ended}}
    if "profile" in job:
        found: dict[str, Any] = {"profile": _profile(model, dataset, split, job["profile"], seed)}
    else:
        count = sum(weight.numel() for weight in model.parameters())
        found = {"accuracy": _accuracy(model, dataset, split, job["accuracy"], seed, data_dir), "parameters": count}
    if job.get("figures"):
        threat = Threat(eps=max(job["accuracy"]["eps"]), box=dataset.box)
        asked = {name: typed(Figure, tree, "claim: experiment: figures") for name, tree in job["figures"].items()}
        audited = {name: figure for name, figure in asked.items() if not figure.history}
        measured = _figures(model, dataset, split, audited, threat, seed)
        past = {name: of_history(figure, done.history) for name, figure in asked.items() if figure.history}
        found["figures"] = {name: {**measured, **past}[name] for name in asked}
    if job.get("history"):
        found["history"] = finite(done.history)
    if setup.get("training", {}).get("monitors"):
        found.setdefault("figures", {}).update(_fired(done))
    return {**found, "seconds": {"training": spent, "measuring": time.perf_counter() - ended}}


def _fired(done: Trained) -> dict[str, float | str]:
    """Whether any monitor had something to say, and which of its detectors ever did, where it tells them apart."""
    detectors = sorted({name for row in done.history for name in row if name.startswith("fired_")})
    ever = {name: max(row.get(name, 0.0) for row in done.history) for name in detectors}
    by_name = {fired(name.removeprefix("fired_").replace("_", "-")): value for name, value in ever.items()}
    return {FIRED: float(bool(done.notes)), **by_name}


def _accuracy(
    model: nn.Module, dataset: Dataset, split: Split, asked: Mapping[str, Any], seed: int, data_dir: str | None
) -> dict[str, list[float]]:
    """Percent of inputs that stand, by attack and budget; an attack from several sources is one for each."""
    budgets: Sequence[float] = asked["eps"]
    threat = Threat(eps=max(budgets), box=dataset.box)
    found = {}
    for entry in asked["attacks"]:
        for name, attack in attacks_of(entry, dataset, seed, data_dir):
            # Each budget as published.
            question = Robustness(attacks=[attack.within(usual=threat)], eps=budgets, reuse=False)
            settings: dict[str, Any] = {"classes": dataset.classes, "seed": seed, "batch_size": _BATCH}
            (finding,) = audits.run(model, split, [question], limit=entry.get("inputs"), **settings)
            row = finding.data["attacks"][0]
            stands = {point["eps"]: 100 * point["accuracy"] for point in row["curve"]}
            found[str(row["label"]) if name is None else name] = [stands[eps] for eps in budgets]
    return found


def _figures(
    model: nn.Module, dataset: Dataset, split: Split, figures: Mapping[str, Figure], threat: Threat, seed: int
) -> dict[str, float | str]:
    """By name, entries of what audits find; those that are of one audit share its answer."""
    found: dict[str, float | str] = {}
    findings: dict[str, Finding] = {}
    settings: dict[str, Any] = {"classes": dataset.classes, "seed": seed, "batch_size": _BATCH}
    for name, asked in figures.items():
        key = json.dumps([asked.audit, asked.inputs], sort_keys=True)
        if key not in findings:
            question: Audit = resolve_threats(build(Audit, asked.audit), usual=threat)
            (findings[key],) = audits.run(model, split, [question], limit=asked.inputs, **settings)
        found[name] = _figure(asked, findings[key])
    return found


def _figure(asked: Figure, finding: Finding) -> float | str:
    """One entry of a finding."""
    value: Any = finding.data
    for part in asked.path.split("."):
        if isinstance(value, Sequence) and not isinstance(value, str):
            value = {str(index): entry for index, entry in enumerate(value)}
        known = value if isinstance(value, Mapping) else {}
        if part not in known:
            raise UserError(f"claim: figures: {finding.kind} has no {asked.path!r}; {nearest(part, list(known))}")
        value = known[part]
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise UserError(f"claim: figures: {asked.path!r} of {finding.kind} is no number or text but {value!r}")
    return value if isinstance(value, str) else asked.times * value


def _profile(model: nn.Module, dataset: Dataset, split: Split, asked: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Mean displacement by measure and perturbation, along the activations."""
    threat = Threat(eps=asked["eps"], box=dataset.box)
    built = {name: build(Perturbation, tree) for name, tree in asked["perturbations"].items()}
    chosen = {name: perturbation.within(usual=threat) for name, perturbation in built.items()}
    inputs = split.stratified(asked["inputs"], seed)
    found: dict[str, Any] = {}
    for measure in asked["measures"]:
        profile = layers.sustainability(model, inputs, chosen, "activations", measure, seed=seed)
        found["layers"] = profile.layers
        found[measure] = dict(zip(profile.perturbations, profile.mean.tolist(), strict=True))
    return found
