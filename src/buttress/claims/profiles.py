"""Layer profiles: how far each layer of a normally trained network is displaced by noises and attacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from buttress.claims.recipe import Claim, from_mapping
from buttress.claims.seed_statistics import paired_difference, spread, verdict
from buttress.claims.work import Work
from buttress.errors import UserError
from buttress.registry import nearest

_PUBLISHED = "relative_error"  # the measure in which profiles were published
_FORMS = ({"setup", "above", "over"}, {"setup", "peak", "perturbation"})


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """An experiment on layer profiles.

    Args:
        setups: by name: source, architecture, training, eps (of the attacks) and perturbations by name.
        measures: of displacement; checks read the published one, relative_error.
        inputs: test inputs per profile.
    """

    setups: dict[str, Any]
    measures: list[str]
    inputs: int = 500


def run_profiles(claim: Claim, settings: Mapping[str, Any], seeds: int, work: Work) -> dict[str, Any]:
    """Everything that the claim's file says of the experiment.

    A check has one of two forms. ``above`` over ``over``, both lists of perturbations: each of the first displaces
    every layer further than each of the second; its value for a seed is the smallest such difference. ``peak`` under a
    ``perturbation``: the layer at that position (from 0; -1 is the last) is displaced furthest; its value is the
    difference from the next.
    """
    experiment = from_mapping(Experiment, settings, "claim: experiment")
    for check in claim.checks:
        _refuse_wrong(check, experiment)
    names = list(experiment.setups)
    entries: dict[str, Any] = {}
    jobs = []
    for name in names:
        setup = dict(experiment.setups[name])
        profile_job = {"eps": setup.pop("eps"), "perturbations": setup.pop("perturbations")}
        profile_job |= {"measures": experiment.measures, "inputs": experiment.inputs}
        whole = {"setup": setup, "defence": "standard", "split": "test", "profile": profile_job}
        jobs += [{**whole, "seed": seed} for seed in range(seeds)]
    results = work.run(jobs, "profiles")
    profiles = {name: [r["profile"] for r in results[i * seeds : (i + 1) * seeds]] for i, name in enumerate(names)}
    for name, runs in profiles.items():
        by_measure = {
            measure: {
                perturbation: [
                    spread(values) for values in zip(*(run[measure][perturbation] for run in runs), strict=True)
                ]
                for perturbation in runs[0][measure]
            }
            for measure in experiment.measures
        }
        entries[name] = {
            "layers": runs[0]["layers"],
            "displacement": by_measure,
            "published": claim.published.get(name, {}),
        }
    checks = [_judge(check, profiles[check["setup"]], claim) for check in claim.checks]
    return {"setups": experiment.setups, "profiles": entries, "checks": checks}


def _judge(check: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], claim: Claim) -> dict[str, Any]:
    setup, published = check["setup"], claim.published.get(check["setup"], {})
    if "peak" in check:
        name = check["perturbation"]
        statement = f"{setup}: layer {check['peak']} is displaced furthest under {name}"
        if check["peak"] == -1:
            statement = f"{setup}: the last hidden layer is displaced furthest under {name}"
        values = [_lead(run[_PUBLISHED][name], check["peak"]) for run in runs]
        theirs = _lead(published[name], check["peak"]) if name in published else None
    else:
        above, over = check["above"], check["over"]
        statement = f"{setup}: {' and '.join(above)} above {', '.join(over)} in every layer"
        values = [_smallest(run[_PUBLISHED], above, over) for run in runs]
        has_published = all(name in published for name in (*above, *over))
        theirs = _smallest(published, above, over) if has_published else None
    difference = paired_difference(values)
    return {
        "statement": statement,
        "published": theirs,
        "under": {_PUBLISHED: {**difference, "verdict": verdict(difference, theirs)}},
    }


def _lead(values: Sequence[float], position: int) -> float:
    """How far the layer at ``position`` is above the highest of the others."""
    position %= len(values)
    return values[position] - max(value for k, value in enumerate(values) if k != position)


def _smallest(profile: Mapping[str, Sequence[float]], above: Sequence[str], over: Sequence[str]) -> float:
    return min(
        high - low for one in above for other in over for high, low in zip(profile[one], profile[other], strict=True)
    )


def _refuse_wrong(check: Mapping[str, Any], experiment: Experiment) -> None:
    if set(check) not in _FORMS:
        forms = " or ".join(", ".join(sorted(form)) for form in _FORMS)
        raise UserError(f"claim: checks: each has the entries {forms}; got {', '.join(sorted(check))}")
    if check["setup"] not in experiment.setups:
        known = nearest(str(check["setup"]), list(experiment.setups))
        raise UserError(f"claim: checks: there is no setup {check['setup']!r}; {known}")
    known_names = list(experiment.setups[check["setup"]]["perturbations"])
    for name in [check["perturbation"]] if "peak" in check else [*check["above"], *check["over"]]:
        if name not in known_names:
            raise UserError(f"claim: checks: there is no perturbation {name!r}; {nearest(name, known_names)}")
    if _PUBLISHED not in experiment.measures:
        raise UserError(f"claim: experiment: measures must include {_PUBLISHED}; got {experiment.measures}")
