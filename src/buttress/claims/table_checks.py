"""The checks of a table: what each says, whether it can be judged, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from buttress.claims import training_cost, transfer_sources, verified
from buttress.claims.check import Check
from buttress.claims.experiment import Experiment, Row
from buttress.claims.figures import FIRED, detector_figure
from buttress.claims.recipe import Claim, from_mapping
from buttress.claims.seed_statistics import (
    CANNOT_FAIL,
    R_AND_G,
    certain_difference,
    paired_difference,
    row_differences,
    shift,
    verdict,
)
from buttress.claims.training_cost import PASSES
from buttress.config.reading import build
from buttress.errors import UserError
from buttress.jobs.settings import Training
from buttress.registry import nearest


class TableChecks:
    """The checks of one claim.

    Args:
        claim: whose checks and published numbers they are.
        experiment: its experiment.
        rows: of the table.
        seeds: networks trained for each row.
    """

    def __init__(self, claim: Claim, experiment: Experiment, rows: Sequence[Row], seeds: int) -> None:
        self.published, self.experiment, self.seeds = claim.published, experiment, seeds
        self.all = [from_mapping(Check, tree, "claim: checks") for tree in claim.checks]
        self.rows = {row.name: row for row in rows}

    # -- before the first training -----------------------------------------------------------------------------------

    def refuse_wrong(self, setups: Mapping[str, Any]) -> None:
        """Refuse before the first training what would fail after the last.

        Raises:
            UserError: naming what is missing or unknown.
        """
        columns, labels = [R_AND_G, *map(str, self.experiment.eps)], None
        for check in self.all:
            for name in check.rows:
                if name not in self.rows:
                    raise UserError(f"claim: there is no row {name!r}; {nearest(name, list(self.rows))}")
                if len(self.published.get(name, self.experiment.eps)) != len(self.experiment.eps):
                    raise UserError(f"claim: published: {name} needs a number for each of {self.experiment.eps}")
                for figure in filter(None, (check.figure, check.rises)):
                    self._refuse_figure(figure, self.rows[name], setups)
            if not check.figure and str(check.at) not in columns:
                raise UserError(f"claim: checks: at must be one of {', '.join(columns)}; got {check.at!r}")
            if attacks := [*check.attacks, *([check.under] if check.under else [])]:
                labels = labels or [*transfer_sources.labels(self.experiment), *verified.labels(self.experiment)]
                for label in attacks:
                    if label not in labels:
                        raise UserError(f"claim: checks: there is no attack {label!r}; {nearest(label, labels)}")

    def _refuse_figure(self, figure: str, row: Row, setups: Mapping[str, Any]) -> None:
        """Refuse a figure that this row will not have."""
        setup = setups.get(row.setup or next(iter(setups)), {})
        monitors = build(Training, setup.get("training", {})).monitors
        monitor_names = (
            [FIRED, *(detector_figure(name) for monitor in monitors for name in monitor.detectors)] if monitors else []
        )
        names = [*self.experiment.figures, *row.values, *monitor_names, PASSES]
        if figure == FIRED and not monitors:
            raise UserError(f"claim: checks: {FIRED}: nothing watches the training of {row.name!r}: give it monitors")
        if figure not in names:
            raise UserError(f"claim: there is no figure {figure!r}; {nearest(figure, names)}")
        if figure == PASSES:
            choice = training_cost.first_choice(row.name, list(self.rows.values()))
            training_cost.known_passes(row.name, training_cost.cost(setup, choice))
        only = self.experiment.figures.get(figure, {}).get("rows")
        if only and row.name not in only:
            row_names = ", ".join(only)
            raise UserError(f"claim: checks: {figure!r} is not measured of {row.name!r}: its rows are {row_names}")

    # -- after the last ----------------------------------------------------------------------------------------------

    def judge(self, measured: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """By check the ``statement``, the ``published`` difference if any, and the outcome ``under`` each attack.

        Of two rows that are compared, their names (``rows``), so that what else differs can be reported beside, and by
        how much (``by``) the first must exceed the second, where that is not 0.
        """
        rows = {row["name"]: row for row in measured}
        return [self._method(check)(check, rows) for check in self.all]

    def _method(self, check: Check) -> Callable[[Check, Mapping[str, Mapping[str, Any]]], dict[str, Any]]:
        if check.across:
            return self._across
        if check.pairs:
            return self._pooled
        return self._alone if check.row else self._pair

    def _pair(self, check: Check, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        better, than = rows[check.better], rows[check.than]
        what, published, empty = check.figure, None, set[str]()
        if what == PASSES:
            by_label = dict.fromkeys(better["accuracy"], training_cost.difference(better, than, self.seeds))
            empty = {label for label in by_label if by_label[label]["mean"] > check.by}
        elif what:
            pairs = zip(_numbers(better, what), _numbers(than, what), strict=True)
            by_label = dict.fromkeys(
                better["accuracy"], paired_difference([round(mine - theirs, 9) for mine, theirs in pairs])
            )
        else:
            column = str(check.at)
            what = _where(column) + (f", {check.under}" if check.under else "")
            by_label = row_differences(better, than, column)
            ours, theirs = (self._published(name, column) for name in check.rows)
            published = None if ours is None or theirs is None else ours - theirs
            empty = {label for label in by_label if than["accuracy"][label][column]["mean"] < -check.by}  # at the floor
            if check.under:
                empty = set(by_label) if check.under in empty else set()
                by_label = dict.fromkeys(by_label, by_label[check.under])
        size = None if check.by else published
        under = {}
        for label, difference in by_label.items():
            conclusion = CANNOT_FAIL if label in empty else verdict(shift(difference, -check.by), size)
            under[label] = {**difference, "verdict": conclusion}
        words = _words(bool(check.figure), check.by)
        statement = f"{check.better} {words} {check.than} ({what})"
        least = {"by": check.by} if check.by else {}
        return {"statement": statement, "rows": check.rows, **least, "published": published, "under": under}

    def _pooled(self, check: Check, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """The mean difference of several pairs of rows, seed by seed: a seed is one draw for all of them."""
        column, count = str(check.at), len(check.pairs)
        pairs = [(rows[better], rows[than]) for better, than in check.pairs]
        each = [row_differences(better, than, column) for better, than in pairs]
        under = {}
        for label in each[0]:
            seeds = zip(*(differences[label]["seeds"] for differences in each), strict=True)
            difference = paired_difference([round(sum(values) / count, 9) for values in seeds])
            under[label] = {**difference, "verdict": verdict(difference, None)}
        names = (", ".join(pair[k] for pair in check.pairs) for k in (0, 1))
        statement = f"{' better than '.join(names)} ({_where(column)}, the mean of {count} differences)"
        return {"statement": statement, "published": None, "under": under}

    def _alone(self, check: Check, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """How far one row's figure or accuracy, or what it loses from one attack to another, is above a number."""
        row, least, column = rows[check.row], float(check.above or 0.0), str(check.at)
        accuracy = {label: columns[column]["seeds"] for label, columns in row["accuracy"].items() if column in columns}
        if check.attacks:
            pairs = zip(*(accuracy[label] for label in check.attacks), strict=True)
            lost = [one - other for one, other in pairs]
            values = {label: lost for label in accuracy}
            what = f"{_where(column)}, {check.attacks[0]} less {check.attacks[1]}"
        elif not check.figure:
            values, what = accuracy, _where(column)
        else:
            figures, what = self._figures(row, check.figure), check.figure
            values = {label: figures for label in row["accuracy"]}
        under = {}
        for label, numbers in values.items():
            beyond = [round(value - least, 9) for value in numbers]
            certainly = check.figure == PASSES
            difference = certain_difference(beyond[0], self.seeds) if certainly else paired_difference(beyond)
            empty = beyond[0] > 0 if certainly else not (check.figure or check.attacks) and least < 0
            under[label] = {**difference, "verdict": CANNOT_FAIL if empty else verdict(difference, None)}
        statement = f"{check.row} above {least:g} ({what}; differences are from that)"
        return {"statement": statement, "published": None, "under": under}

    def _across(self, check: Check, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Spearman's correlation of two figures over rows, by seed; 0 where one of them is the same in all rows."""
        from scipy.stats import spearmanr

        correlations, columns = [], [self._columns(check, rows, figure) for figure in (check.figure, check.rises)]
        for first, second in zip(*columns, strict=True):
            constant = len(set(first)) == 1 or len(set(second)) == 1
            correlations.append(0.0 if constant else round(float(spearmanr(first, second).statistic), 9))
        difference = paired_difference(correlations)
        outcome = {**difference, "verdict": verdict(difference, None)}
        statement = f"{check.rises} rises with {check.figure} (rank correlation over {len(check.across)} rows)"
        labels = rows[check.across[0]]["accuracy"]
        return {"statement": statement, "published": None, "under": dict.fromkeys(labels, outcome)}

    def _columns(self, check: Check, rows: Mapping[str, Mapping[str, Any]], figure: str) -> list[tuple[float, ...]]:
        """By seed, the figure of each of the rows."""
        return list(zip(*(self._figures(rows[name], figure) for name in check.across), strict=True))

    def _figures(self, row: Mapping[str, Any], figure: str) -> list[float]:
        """One of a row's figures, its passes included, seed by seed."""
        if figure == PASSES:
            return [training_cost.known_passes(row["name"], row["cost"])] * self.seeds
        return _numbers(row, figure)

    def _published(self, name: str, column: str) -> float | None:
        values: list[float] | None = self.published.get(name)
        if values is None:
            return None
        return sum(values) if column == R_AND_G else values[[str(eps) for eps in self.experiment.eps].index(column)]


def _where(column: str) -> str:
    return R_AND_G if column == R_AND_G else f"accuracy at eps {column}"


def _numbers(row: Mapping[str, Any], figure: str) -> list[float]:
    """One of a row's figures, seed by seed."""
    numbers = row["figures"][figure]
    if "seeds" not in numbers:
        raise UserError(f"claim: checks: {figure!r} is no number but a text, and cannot be compared")
    values: list[float] = numbers["seeds"]
    return values


def _words(figure: bool, by: float) -> str:
    """How a row is to compare with another; more of a figure need not be better."""
    if not by:
        return "above" if figure else "better than"
    return f"at least {by:g} above" if by > 0 else f"at most {-by:g} below"
