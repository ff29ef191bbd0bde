"""The checks of a table: what each says, whether it can be judged, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from buttress.errors import UserError
from buttress.registry import nearest
from buttress.workflows.claims import spending
from buttress.workflows.claims.experiment import Experiment, Row
from buttress.workflows.claims.jobs import FIRED
from buttress.workflows.claims.recipe import Claim
from buttress.workflows.claims.spending import PASSES
from buttress.workflows.claims.statistics import R_AND_G, differences, paired, shifted, verdict

_PAIR = ("better", "than")  # the rows of a check that compares two
_ALONE = ("row", "figure", "above")  # what a check on one row needs


class Checks:
    """The checks of one claim.

    A check compares two rows, ``better`` and ``than``, ``at`` a budget or R&G or by a ``figure``, and may say ``by``
    how much; or it holds a ``figure`` of one ``row`` to be ``above`` a number.

    Args:
        claim: whose checks and published numbers they are.
        experiment: its experiment.
        rows: of the table.
        seeds: networks trained for each row.
    """

    def __init__(self, claim: Claim, experiment: Experiment, rows: Sequence[Row], seeds: int) -> None:
        self.claim, self.experiment, self.seeds = claim, experiment, seeds
        self.rows = {row.name: row for row in rows}

    # -- before the first training -----------------------------------------------------------------------------------

    def refuse_wrong(self, setups: Mapping[str, Any]) -> None:
        """Refuse before the first training what would fail after the last.

        Raises:
            UserError: naming what is missing or unknown.
        """
        for check in self.claim.checks:
            for name in self._named(check):
                self._known(name)
                if len(self.claim.published.get(name, self.experiment.eps)) != len(self.experiment.eps):
                    raise UserError(f"claim: published: {name} needs a number for each of {self.experiment.eps}")
            for key in ("by", "above"):
                value = check.get(key, 0)
                if isinstance(value, bool) or not isinstance(value, int | float):
                    raise UserError(f"claim: checks: {key} must be a number; got {value!r}")
            self._refuse_what(check)
            self._refuse_unmeasured(check, setups)

    def _named(self, check: Mapping[str, Any]) -> list[str]:
        """The rows that a check speaks of."""
        alone = "row" in check
        wanted, told = (_ALONE, "row, figure and above") if alone else (_PAIR, "better, than and at or figure")
        if any(key not in check for key in wanted) or (alone and any(key in check for key in (*_PAIR, "at", "by"))):
            raise UserError(f"claim: checks: each needs {told}; got {dict(check)}")
        return [check["row"]] if alone else [check[key] for key in _PAIR]

    def _known(self, name: str) -> Row:
        if name not in self.rows:
            raise UserError(f"claim: there is no row {name!r}; {nearest(name, list(self.rows))}")
        return self.rows[name]

    def _refuse_what(self, check: Mapping[str, Any]) -> None:
        """Refuse a column or a figure that the table does not have."""
        columns = [R_AND_G, *map(str, self.experiment.eps)]
        known = [*self.experiment.figures, FIRED, PASSES]
        if "figure" not in check:
            if str(check.get("at")) not in columns:
                raise UserError(f"claim: checks: at must be one of {', '.join(columns)}; got {check.get('at')!r}")
        elif check["figure"] not in known:
            raise UserError(f"claim: there is no figure {check['figure']!r}; {nearest(check['figure'], known)}")

    def _refuse_unmeasured(self, check: Mapping[str, Any], setups: Mapping[str, Any]) -> None:
        """Refuse a figure that some row named here will not have."""
        figure = check.get("figure")
        for name in self._named(check):
            row = self.rows[name]
            setup = setups.get(row.setup or next(iter(setups)), {})
            if figure == FIRED and not setup.get("training", {}).get("monitors"):
                raise UserError(f"claim: checks: {FIRED}: nothing watches the training of {name!r}: give it monitors")
            if figure == PASSES:
                choice = spending.first_choice(name, list(self.rows.values()))
                spending.known(name, spending.cost(setup, choice))
            asked = self.experiment.figures.get(figure) if isinstance(figure, str) else None
            only = asked.get("rows") if isinstance(asked, Mapping) else None
            if only and name not in only:
                raise UserError(
                    f"claim: checks: {figure!r} is not measured of {name!r}: its rows are {', '.join(only)}"
                )

    # -- after the last ----------------------------------------------------------------------------------------------

    def judged(self, check: Mapping[str, Any], measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """``statement``, the ``published`` difference if any, and under each attack the difference and its verdict."""
        rows = {row["name"]: row for row in measured}
        if "row" in check:
            return self._alone(check, rows[check["row"]])
        better, than = (rows[check[key]] for key in _PAIR)
        by, published = float(check.get("by", 0.0)), None
        if check.get("figure") == PASSES:
            what, found = PASSES, dict.fromkeys(better["accuracy"], spending.difference(better, than, self.seeds))
        elif "figure" in check:
            what = check["figure"]
            pairs = zip(_numbers(better, what), _numbers(than, what), strict=True)
            found = dict.fromkeys(better["accuracy"], paired([round(mine - theirs, 9) for mine, theirs in pairs]))
        else:
            column = str(check["at"])
            what = R_AND_G if column == R_AND_G else f"accuracy at eps {column}"
            found = differences(better, than, column)
            ours, theirs = (self._published(check[key], column) for key in _PAIR)
            published = None if ours is None or theirs is None else ours - theirs
        under = {
            label: {**difference, "verdict": verdict(shifted(difference, -by), None if by else published)}
            for label, difference in found.items()
        }
        statement = f"{check['better']} {_words(what, by)} {check['than']} ({what})"
        return {"statement": statement, "published": published, "under": under}

    def _alone(self, check: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
        """How far one row's figure is above a number."""
        name, least = check["figure"], float(check["above"])
        values = [row["cost"][PASSES]] * self.seeds if name == PASSES else _numbers(row, name)
        difference = paired([round(value - least, 9) for value in values])
        found = {**difference, "verdict": verdict(difference, None)}
        statement = f"{row['name']} above {least:g} ({name}; differences are from that)"
        return {"statement": statement, "published": None, "under": dict.fromkeys(row["accuracy"], found)}

    def _published(self, name: str, column: str) -> float | None:
        values: list[float] | None = self.claim.published.get(name)
        if values is None:
            return None
        return sum(values) if column == R_AND_G else values[[str(eps) for eps in self.experiment.eps].index(column)]


def _numbers(row: Mapping[str, Any], figure: str) -> list[float]:
    """One of a row's figures, seed by seed."""
    found = row["figures"][figure]
    if "seeds" not in found:
        raise UserError(f"claim: checks: {figure!r} is no number but a text, and cannot be compared")
    values: list[float] = found["seeds"]
    return values


def _words(what: str, by: float) -> str:
    """How a row is to stand to another."""
    if not by:
        return "above" if what == PASSES else "better than"
    return f"at least {by:g} above" if by > 0 else f"at most {-by:g} below"
