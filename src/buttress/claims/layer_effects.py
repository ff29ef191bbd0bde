"""Layer effects: which measure of a layer foretells what patching it, or strengthening it in training, does."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch

from buttress.audits.layer_ranks import RANKS
from buttress.claims.jobs import Job
from buttress.claims.recipe import Claim, fill_blanks, from_mapping
from buttress.claims.seed_statistics import paired_difference, spread, verdict
from buttress.claims.work import Work
from buttress.errors import UserError
from buttress.layers.correlation import spearman
from buttress.registry import nearest
from buttress.validation import whole

ALL = "all"  # the networks of every architecture
STRENGTHENING = "strengthening"

Numbers = Mapping[str, float | None]  # a figure for each layer


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """An experiment on layer effects.

    Args:
        setups: by name: source, architecture, training, ``eps``, the ``layers`` that are measured, and those of them
            that are ``strengthened``.
        trainings: defences by name, in short form; ``$eps`` stands for the setup's.
        audit: further settings of the audit `layers`; ``ranks`` there are the measures and the effects of patching.
        measures: what may foretell an effect, by the names that ``ranks`` has.
        effects: those of patching, likewise.
        strengthen: the training, one of ``trainings``, that regularises one layer, and with what: ``training`` and
            arguments of the defence `layer-regularised`; seeds, the first of which are used.
        attack: what robust accuracy is measured under, in short form.
        inputs: test inputs of the audit.
        attacked: test inputs of robust accuracy.
    """

    setups: dict[str, Any]
    trainings: dict[str, Any]
    audit: dict[str, Any]
    measures: list[str]
    effects: list[str]
    strengthen: dict[str, Any]
    attack: Any
    inputs: int = 300
    attacked: int = 500


def run_layer_effects(claim: Claim, settings: Mapping[str, Any], seeds: int, work: Work) -> dict[str, Any]:
    """Everything that the claim's file says of the experiment.

    Each network gives one rank correlation (Spearman) over its layers for each measure and effect; its layers are
    ranked most vulnerable first, and by effect those first of which patching needs least and strengthening gives most.
    A check ``measure`` and ``foretells`` (an effect; ``among`` one architecture, else all) is on the mean over the
    networks of a seed, and holds where this is above 0 over the seeds. Networks without a correlation, since a measure
    or an effect is the same at all layers, are left out and counted.
    """
    experiment = from_mapping(Experiment, settings, "claim: experiment")
    for name in (*experiment.measures, *experiment.effects):
        if name not in RANKS:
            raise UserError(f"claim: experiment: layers have no ranks by {name!r}; {nearest(name, list(RANKS))}")
    for check in claim.checks:
        _refuse_wrong(check, experiment)
    runs = _Runs(experiment, seeds, work)
    groups = list(dict.fromkeys(runs.architectures.values()))
    found = {
        effect: {
            measure: {group: runs.summary(measure, effect, group) for group in (ALL, *groups)}
            for measure in experiment.measures
            if measure != effect
        }
        for effect in (*experiment.effects, STRENGTHENING)
    }
    checks = []
    for check in claim.checks:
        measure, effect, group = check["measure"], check["foretells"], check.get("among", ALL)
        difference = found[effect][measure][group]
        among = "" if group == ALL else f", {group}"
        statement = f"{measure} foretells {effect}{among} (mean rank correlation above 0)"
        entry = {**difference, "verdict": verdict(difference, None)}
        checks.append({"statement": statement, "published": None, "under": {runs.attack: entry}})
    return {
        "setups": experiment.setups,
        "experiment": dict(settings),
        "networks": runs.networks(),
        "strengthened": runs.strengthened(),
        "correlations": found,
        "checks": checks,
    }


class _Runs:
    """The jobs of an experiment and their results."""

    def __init__(self, experiment: Experiment, seeds: int, work: Work) -> None:
        self.experiment, self.seeds = experiment, range(seeds)
        strengthen = dict(experiment.strengthen)
        self.base, few = strengthen.pop("training"), strengthen.pop("seeds", seeds)
        self.few = range(min(seeds, whole("seeds", few)))
        self.arguments = strengthen
        self.architectures = {name: s["architecture"]["model"] for name, s in experiment.setups.items()}
        networks = [*product(self.seeds, experiment.setups, experiment.trainings)]
        alone = [(s, n, layer) for s, n in product(self.few, experiment.setups) for layer in self._strong(n)]
        jobs = [self._network(*key) for key in networks] + [self._strengthened(*key) for key in alone]
        # By seed, so that what an interruption leaves is whole for the first seeds.
        order = sorted(range(len(jobs)), key=lambda k: jobs[k]["seed"])
        results = dict(zip(order, work.run([jobs[k] for k in order], "networks"), strict=True))
        self.results = {key: results[k] for k, key in enumerate(networks)}
        self.alone = {key: results[len(networks) + k] for k, key in enumerate(alone)}
        self.attack = next(iter(next(iter(self.results.values()))["accuracy"]))

    def summary(self, measure: str, effect: str, group: str) -> dict[str, Any]:
        """The mean correlation over the networks of a group, seed by seed, with its interval.

        And of how many networks there is one, of how many it is positive, and how many have none.
        """
        trained_again = effect == STRENGTHENING
        seeds, trainings = (self.few, [self.base]) if trained_again else (self.seeds, self.experiment.trainings)
        names = [name for name, model in self.architectures.items() if group in (ALL, model)]
        by_seed = [
            [
                _correlation(self._measure(seed, name, training, measure), self._effect(seed, name, training, effect))
                for name, training in product(names, trainings)
            ]
            for seed in seeds
        ]
        defined = [[value for value in values if not math.isnan(value)] for values in by_seed]
        every = [value for values in defined for value in values]
        return {
            **paired_difference([sum(values) / len(values) for values in defined if values] or [math.nan]),
            "networks": len(every),
            "positive": sum(value > 0 for value in every),
            "undefined": sum(map(len, by_seed)) - len(every),
        }

    def networks(self) -> dict[str, Any]:
        """By setup and training: accuracies, and the mean place of each layer by measure and effect."""
        entries: dict[str, Any] = {}
        for name, training in product(self.experiment.setups, self.experiment.trainings):
            mine = [self.results[seed, name, training] for seed in self.seeds]
            clean, robust = (spread([run["accuracy"][self.attack][k] for run in mine]) for k in (0, 1))
            beaten = spread([run["finding"]["data"]["patching_inputs"] for run in mine])
            kinds = (*self.experiment.measures, *self.experiment.effects)
            places = {kind: self._mean_places(name, training, kind) for kind in kinds}
            entry = {"clean": clean, "robust": robust, "beaten": beaten, "places": places}
            entries.setdefault(name, {})[training] = entry
        return entries

    def _mean_places(self, name: str, training: str, kind: str) -> dict[str, float | None]:
        runs = [self._measure(seed, name, training, kind) for seed in self.seeds]
        layers = dict.fromkeys(layer for run in runs for layer in run)
        return {layer: _mean([run.get(layer) for run in runs]) for layer in layers}

    def strengthened(self) -> dict[str, Any]:
        """By setup and layer: how much robust accuracy, in points, regularising that layer alone adds to the base."""
        return {
            name: {
                layer: paired_difference([self._change(seed, name, layer) for seed in self.few])
                for layer in self._strong(name)
            }
            for name in self.experiment.setups
        }

    def _measure(self, seed: int, name: str, training: str, measure: str) -> Numbers:
        data = self.results[seed, name, training]["finding"]["data"]
        ranks = data["ranks"]["by"].get(measure)
        return {} if ranks is None else dict(zip(data["layers"], ranks["rank"], strict=True))

    def _effect(self, seed: int, name: str, training: str, effect: str) -> Numbers:
        if effect != STRENGTHENING:
            return self._measure(seed, name, training, effect)
        return {layer: -self._change(seed, name, layer) for layer in self._strong(name)}  # the largest gain first

    def _strong(self, name: str) -> list[str]:
        layers: list[str] = self._setup(name)["strengthened"]
        return layers

    def _change(self, seed: int, name: str, layer: str) -> float:
        base, alone = self.results[seed, name, self.base], self.alone[seed, name, layer]
        return float(alone["accuracy"][self.attack][1] - base["accuracy"][self.attack][1])

    def _network(self, seed: int, name: str, training: str) -> Job:
        setup, defence = self._setup(name), self._defence(name, training)
        audit = {"name": "layers", "layers": setup["layers"], **self.experiment.audit}
        finding = {"audit": audit, "inputs": self.experiment.inputs, "eps": setup["eps"]}
        return {**self._job(setup, defence, seed), "finding": finding}

    def _strengthened(self, seed: int, name: str, layer: str) -> Job:
        base = self._defence(name, self.base)
        defence = {"name": "layer-regularised", "base": base, "layers": [layer], **self.arguments}
        return self._job(self._setup(name), defence, seed)

    def _setup(self, name: str) -> dict[str, Any]:
        setup: dict[str, Any] = self.experiment.setups[name]
        return setup

    def _defence(self, name: str, training: str) -> Any:
        return fill_blanks(self.experiment.trainings[training], {"eps": self._setup(name)["eps"]})

    def _job(self, setup: Mapping[str, Any], defence: Any, seed: int) -> Job:
        whole_setup = {key: setup[key] for key in ("source", "architecture", "training")}
        attacks = [{"attack": self.experiment.attack, "inputs": self.experiment.attacked}]
        accuracy = {"eps": [0, setup["eps"]], "attacks": attacks}
        return {"setup": whole_setup, "defence": defence, "seed": seed, "split": "test", "accuracy": accuracy}


def _correlation(one: Numbers, other: Numbers) -> float:
    """Spearman's, over the layers that both have."""
    pairs = [(a, b) for layer, b in other.items() if (a := one.get(layer)) is not None and b is not None]
    return spearman(*torch.tensor(pairs, dtype=torch.float64).view(-1, 2).T)


def _mean(values: Iterable[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def _refuse_wrong(check: Mapping[str, Any], experiment: Experiment) -> None:
    if not {"measure", "foretells"} <= set(check) <= {"measure", "foretells", "among"}:
        got = ", ".join(sorted(check))
        raise UserError(f"claim: checks: each has the entries measure, foretells and perhaps among; got {got}")
    models = [setup["architecture"]["model"] for setup in experiment.setups.values()]
    known = {
        "measure": experiment.measures,
        "foretells": [*experiment.effects, STRENGTHENING],
        "among": list(dict.fromkeys(models)),
    }
    if check["measure"] == check["foretells"]:
        raise UserError(f"claim: checks: {check['measure']} foretells itself: name another effect")
    for entry, name in check.items():
        if name not in known[entry]:
            raise UserError(f"claim: checks: {entry}: there is no {name!r}; {nearest(str(name), known[entry])}")
