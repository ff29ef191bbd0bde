"""A table of accuracies: settings chosen on validation data, networks trained over seeds, measured on test data."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from buttress.claims import error_split as errors
from buttress.claims import training_cost, transfer_sources, verified
from buttress.claims.experiment import Experiment, Figure, Match, Row, Sweep
from buttress.claims.figures import FIRED, HISTORY_PATHS, figure_audit
from buttress.claims.jobs import Job
from buttress.claims.pictures import Pictures
from buttress.claims.recipe import Claim, blanks, fill_blanks, from_mapping
from buttress.claims.seed_statistics import R_AND_G, row_differences, spread, summarise
from buttress.claims.table_checks import TableChecks
from buttress.claims.training_cost import PASSES
from buttress.claims.work import Work
from buttress.config.reading import build
from buttress.defences.base.defence import Defence
from buttress.errors import UserError
from buttress.jobs.settings import Training
from buttress.registry import nearest

_SWEEP_SEED = 1000  # choices are made on networks other than those that are reported


class Table:
    """One run of a table's experiment.

    Args:
        claim: what was published.
        settings: the experiment's settings at one scale.
        seeds: networks trained for each row that is reported.
        work: runs the jobs.
    """

    def __init__(self, claim: Claim, settings: Mapping[str, Any], seeds: int, work: Work) -> None:
        self.claim, self.settings, self.seeds, self.work = claim, dict(settings), seeds, work
        self.experiment = from_mapping(Experiment, settings, "claim: experiment")
        self.rows = [from_mapping(Row, row, "claim: experiment: rows") for row in self.experiment.rows]
        self.names = [row.name for row in self.rows]
        for name in self.names:
            if not isinstance(name, str):
                raise UserError(f"claim: experiment: rows: a name must be a text; got {name!r}")
        self.sweeps: list[dict[str, Any]] = []
        self.setups = dict(self.experiment.setups)
        self.pictures = Pictures(self.experiment.pictures, self.names)
        self.checks = TableChecks(claim, self.experiment, self.rows, seeds)
        self._check()

    def run(self) -> dict[str, Any]:
        """Everything that the claim's file says of the experiment."""
        self._match()
        defences = self._choose()
        jobs = [
            self._job(row, defences[row.name], seed, "test", self._attacks(defences, seed), self._figures(row))
            for seed in range(self.seeds)
            for row in self.rows
        ]
        results = self.work.run(jobs, "the table")
        by_row = {name: results[index :: len(self.rows)] for index, name in enumerate(self.names)}
        rows = [self._row(row, defences[row.name], by_row[row.name]) for row in self.rows]
        pictures = self._pictures(defences, by_row)
        return {
            "experiment": self.settings,
            "eps": self.experiment.eps,
            "setups": self.setups,
            "sweeps": self.sweeps,
            "rows": rows,
            "checks": self.checks.judge(rows),
            "regularised": self._compare_with_bases(rows),
            **({"pictures": pictures} if pictures else {}),
        }

    # -- choices -----------------------------------------------------------------------------------------------------

    def _match(self) -> None:
        if self.experiment.match is None:
            return
        match = from_mapping(Match, self.experiment.match, "claim: experiment: match")
        row = self.rows[self._index(match.row)]
        if row.name not in self.claim.published:
            raise UserError(f"claim: experiment: match: the row {row.name!r} has no published numbers to come near to")
        published = self.claim.published[row.name]
        blank, attacks = self.setups, [{"attack": match.attack}]
        scores = []
        for value in match.values:
            self.setups = fill_blanks(blank, {match.name: value})
            jobs = [self._job(row, row.defence, seed, "val", attacks) for seed in self._sweep_seeds()]
            accuracies = [next(iter(r["accuracy"].values())) for r in self.work.run(jobs, f"{match.name} {value}")]
            columns = [sum(values) / len(values) for values in zip(*accuracies, strict=True)]
            away = [abs(mine - theirs) for mine, theirs in zip(columns, published, strict=False)]
            scores.append({"choice": {match.name: value}, "score": -sum(away) / len(away)})
        best = max(scores, key=lambda entry: entry["score"])
        self.setups = fill_blanks(blank, best["choice"])
        self.sweeps.append({"row": match.row, "by": "distance to the published row", "tried": scores, "chosen": best})

    def _choose(self) -> dict[str, Any]:
        """The defence of each row with its blanks filled; rows wait for the rows that they build on."""
        defences: dict[str, Any] = {}
        while len(defences) < len(self.rows):
            ready = [
                row
                for row in self.rows
                if row.name not in defences and blanks(row.defence) & set(self.names) <= set(defences)
            ]
            if not ready:
                raise UserError("claim: experiment: rows build on each other in a circle")
            defences |= self._best({row.name: fill_blanks(row.defence, defences) for row in ready})
        return defences

    def _best(self, defences: Mapping[str, Any]) -> dict[str, Any]:
        """Each of these rows' best defence, among its choices."""
        options = {name: _combinations(self.rows[self._index(name)].choose) for name in defences}
        open_ = [name for name in defences if len(options[name]) > 1]
        best = {name: fill_blanks(defences[name], options[name][0]) for name in defences}
        if not open_:
            return best
        if self.experiment.sweep is None:
            raise UserError(f"claim: experiment: row {open_[0]!r} has a choice, but no sweep says how to make it")
        sweep = from_mapping(Sweep, self.experiment.sweep, "claim: experiment: sweep")
        attacks = [{"attack": sweep.attack, "inputs": sweep.inputs}]
        tasks = [(name, choice, seed) for name in open_ for choice in options[name] for seed in self._sweep_seeds()]
        jobs = [
            self._job(self.rows[self._index(name)], fill_blanks(defences[name], choice), seed, "val", attacks)
            for name, choice, seed in tasks
        ]
        results = iter(self.work.run(jobs, "choices on validation data"))
        for name in open_:
            tried = []
            for choice in options[name]:
                scores = [sum(next(iter(next(results)["accuracy"].values()))) for _ in self._sweep_seeds()]
                tried.append({"choice": choice, "score": sum(scores) / len(scores), "seeds": scores})
            top = max(tried, key=lambda entry: entry["score"])
            best[name] = fill_blanks(defences[name], top["choice"])
            self.sweeps.append({"row": name, "by": f"{R_AND_G} on validation data", "tried": tried, "chosen": top})
        return best

    def _sweep_seeds(self) -> range:
        count = (
            from_mapping(Sweep, self.experiment.sweep, "claim: experiment: sweep").seeds if self.experiment.sweep else 1
        )
        return range(_SWEEP_SEED, _SWEEP_SEED + count)

    def _job(
        self,
        row: Row,
        defence: Any,
        seed: int,
        split: str,
        attacks: Sequence[Mapping[str, Any]],
        figures: Mapping[str, Any] | None = None,
    ) -> Job:
        return {
            **({"figures": dict(figures)} if figures else {}),
            **({"history": True} if split == "test" and self.pictures.wants_history(row.name) else {}),
            "setup": self._setup(row),
            "defence": defence,
            "seed": seed,
            "split": split,
            "accuracy": {
                "eps": self.experiment.eps,
                "attacks": list(attacks),
                **({"verifiers": verifiers} if split == "test" and (verifiers := self.experiment.verifiers) else {}),
            },
        }

    def _pictures(self, defences: Mapping[str, Any], results: Mapping[str, Sequence[Mapping[str, Any]]]) -> Any:
        histories = {
            name: [result["history"] for result in runs] for name, runs in results.items() if "history" in runs[0]
        }
        first = next(iter(self.setups))
        networks = {
            row.name: {"setup": self.setups[row.setup or first], "defence": defences[row.name]} for row in self.rows
        }
        return self.pictures.draw(networks, histories, max(self.experiment.eps), self.work)

    def _attacks(self, defences: Mapping[str, Any], seed: int) -> list[Mapping[str, Any]]:
        return [
            transfer_sources.resolve_sources(entry, self.setups, defences, seed) for entry in self.experiment.attacks
        ]

    def _figures(self, row: Row) -> dict[str, Any]:
        """What is measured of this row beside its accuracy."""
        figures = self.experiment.figures
        own = {name: figure for name, figure in figures.items() if row.name in (figure.get("rows") or [row.name])}
        return {name: fill_blanks(figure, row.values) for name, figure in own.items()}

    def _setup(self, row: Row) -> dict[str, Any]:
        setup: dict[str, Any] = self.setups[row.setup or next(iter(self.setups))]
        return setup

    # -- results -----------------------------------------------------------------------------------------------------

    def _row(self, row: Row, defence: Any, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        accuracy = {}
        for label in results[0]["accuracy"]:
            runs = [result["accuracy"][label] for result in results]
            columns = {
                str(eps): spread(values)
                for eps, values in zip(self.experiment.eps, zip(*runs, strict=True), strict=True)
            }
            accuracy[label] = {**columns, R_AND_G: spread([sum(run) for run in runs])}
        names = list(results[0].get("figures", {}))
        figures = {name: summarise([value] * len(results)) for name, value in row.values.items()}
        figures |= {name: summarise([result["figures"][name] for result in results]) for name in names}
        return {
            **({"figures": figures} if figures else {}),
            "name": row.name,
            "defence": defence,
            "published": self.claim.published.get(row.name),
            "accuracy": accuracy,
            **({"errors": errors.split(accuracy, self.experiment.eps)} if self.experiment.errors else {}),
            "seconds": spread([result["seconds"]["training"] for result in results]),
            "cost": training_cost.cost(self._setup(row), defence),
            "parameters": results[0].get("parameters"),  # not in results of earlier versions
        }

    def _compare_with_bases(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Each row that regularises layers of another row's training, compared with that row.

        Or with one of the same training that shares its setup: epochs that regularisation has cost show elsewhere.
        """
        comparisons = []
        for row, measured in zip(self.rows, rows, strict=True):
            regularises = isinstance(row.defence, dict) and row.defence.get("name") == "layer-regularised"
            base = row.defence.get("base") if regularises else None
            if not (isinstance(base, str) and base[1:] in self.names):
                continue
            same = self.rows[self._index(base[1:])]
            if same.setup != row.setup:
                alike = (other for other in self.rows if (other.setup, other.defence) == (row.setup, same.defence))
                same = next(alike, same)
            comparisons.append(
                {
                    "row": row.name,
                    "base": same.name,
                    "measure": row.defence.get("measure", "centred"),
                    "under": row_differences(measured, rows[self._index(same.name)], R_AND_G),
                }
            )
        return comparisons

    def _index(self, name: str) -> int:
        if name not in self.names:
            raise UserError(f"claim: there is no row {name!r}; {nearest(name, self.names)}")
        return self.names.index(name)

    def _check(self) -> None:
        """Refuse before the first training what would fail after the last."""
        figures: object = self.experiment.figures
        if not isinstance(figures, Mapping):
            problem = f"a mapping from names to figures was expected; got {figures!r}"
            raise UserError(f"claim: experiment: figures: {problem}")
        for name, figure in self.experiment.figures.items():
            spec = from_mapping(Figure, figure, f"claim: experiment: figures: {name}")
            if not isinstance(spec.history, str):
                raise UserError(f"claim: experiment: figures: {name}: history must be a text; got {spec.history!r}")
            if (spec.audit is None) != bool(spec.history):
                raise UserError(f"claim: experiment: figures: {name}: either audit or history is needed")
            if spec.history and spec.path not in HISTORY_PATHS:
                paths = ", ".join(HISTORY_PATHS)
                raise UserError(f"claim: experiment: figures: {name}: of a history path is {paths}; got {spec.path!r}")
            if not isinstance(spec.path, str):
                raise UserError(f"claim: experiment: figures: {name}: path must be a text; got {spec.path!r}")
            for only in spec.rows:
                self._index(only)
            if name in (FIRED, PASSES) or any(name in row.values for row in self.rows):
                raise UserError(f"claim: experiment: figures: {name!r} is what every row has: choose another name")
        transfer_sources.refuse_wrong(self.experiment, self.names)
        verified.refuse_wrong(self.experiment)
        if self.experiment.errors:
            errors.refuse_wrong(self.experiment.eps)
        match = self.experiment.match or {}
        loose = blanks(self.setups) - {match.get("name")}
        if loose:
            raise UserError(f"claim: experiment: setups have a blank ${min(loose)} that nothing fills")
        for row in self.rows:
            if self.names.count(row.name) > 1:
                raise UserError(f"claim: experiment: rows: two are called {row.name!r}")
            if not all(isinstance(values, list) and values for values in row.choose.values()):
                raise UserError(f"claim: row {row.name!r} has nothing to choose from; got {row.choose!r}")
            if row.setup and row.setup not in self.setups:
                raise UserError(f"claim: there is no setup {row.setup!r}; {nearest(row.setup, list(self.setups))}")
            unknown = blanks(row.defence) - set(self.names) - set(row.choose)
            if unknown:
                raise UserError(f"claim: row {row.name!r} has a blank ${min(unknown)} that nothing fills")
        self._build_all()
        self.checks.refuse_wrong(self.setups)

    def _build_all(self) -> None:
        """Build what jobs will build, so that a wrong name or setting is reported now."""
        for row in self.rows:
            build(Defence, training_cost.first_choice(row.name, self.rows))
            build(Training, self._setup(row).get("training", {}))
            for name, figure in self._figures(row).items():
                if loose := blanks(figure.get("audit")):
                    raise UserError(f"claim: row {row.name!r}: the figure {name!r} has a blank ${min(loose)}")
                if figure.get("audit") is not None:
                    figure_audit(from_mapping(Figure, figure, "claim: experiment: figures"), lambda name: nn.Identity())


def _combinations(choose: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(choose, values, strict=True)) for values in itertools.product(*choose.values())]
