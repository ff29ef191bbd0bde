"""Gains announced apart from the tables: read off the results of other claims, and looked for in published cells."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from buttress.claims.recipe import Claim, find
from buttress.claims.result_files import from_text
from buttress.claims.seed_statistics import R_AND_G, row_differences, verdict
from buttress.errors import UserError

_CLOSE = 0.005  # half of the last printed digit
_SHOWN = 3  # nearest differences of the published table that are told


def run_gains(claim: Claim, out: Path) -> dict[str, Any]:
    """Everything that the claim's file says: each gain in the published table and in ours.

    A check names ``recipe``, the rows ``better`` and ``than``, the column ``at``, and the ``gain`` announced.

    Raises:
        UserError: when one of the other claims has not been reproduced into ``out``.
    """
    checks, cells, sources = [], [], {}
    for check in claim.checks:
        name = check["recipe"]
        rows, sources[name] = _results(out / f"{name}.json", name)
        published = find(name).claim
        assert published is not None
        for key in ("better", "than"):
            if check[key] not in rows:
                raise UserError(f"claim: checks: {name} has no row {check[key]!r}")
        column = str(check["at"])
        what = R_AND_G if column == R_AND_G else f"accuracy at eps {column}"
        under = {
            label: {**difference, "verdict": verdict(difference, check["gain"])}
            for label, difference in row_differences(rows[check["better"]], rows[check["than"]], column).items()
        }
        statement = f"{name}: {check['better']} better than {check['than']} ({what})"
        checks.append({"statement": statement, "published": check["gain"], "under": under})
        near = nearest_cells(published.published, sources[name]["eps"], check["gain"])
        cells.append(
            {
                "gain": check["gain"],
                "recipe": name,
                "found": [cell for cell in near if abs(cell["difference"] - check["gain"]) <= _CLOSE],
                "nearest": near[:_SHOWN],
            }
        )
    facts = {
        name: {key: source[key] for key in ("scale", "seeds", "commit", "date")} for name, source in sources.items()
    }
    return {"checks": checks, "cells": cells, "derived_from": facts}


def nearest_cells(published: Mapping[str, Sequence[float]], eps: Sequence[float], gain: float) -> list[dict[str, Any]]:
    """Differences of two rows of a published table in one column, those nearest to ``gain`` first."""
    columns = [*map(str, eps), R_AND_G]
    cells = []
    for better, than in itertools.permutations(published, 2):
        one, other = ([*published[name], sum(published[name])] for name in (better, than))
        for column, high, low in zip(columns, one, other, strict=True):
            cells.append({"better": better, "than": than, "at": column, "difference": round(high - low, 2)})
    return sorted(cells, key=lambda cell: (round(abs(cell["difference"] - gain), 4), cell["better"], cell["than"]))


def _results(path: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        claim = from_text(path.read_text())
        return {row["name"]: row for row in claim["rows"]}, claim
    except FileNotFoundError:
        raise UserError(f"{path} is not there: run buttress reproduce {name} first") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read as the result of a claim: {error}") from None
