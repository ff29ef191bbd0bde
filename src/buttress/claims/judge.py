"""A stored result of a claim, with texts and verdicts by the recipe as it is now: nothing is measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from buttress.claims.engine import NO_ENGINE
from buttress.claims.recipe import Claim
from buttress.claims.seed_statistics import overall
from buttress.claims.table import Table
from buttress.claims.training_cost import cost
from buttress.claims.work import Work
from buttress.errors import UserError
from buttress.jobs.settings import Reporter


def judge_again(result: Mapping[str, Any], claim: Claim) -> dict[str, Any]:
    """A table's ``result`` with texts, published numbers, passes, checks and verdicts of ``claim``.

    What was measured stays as it was. A check that was not there before is marked as one that came ``later``.

    Raises:
        UserError: when that is no table's, or when the recipe's experiment is no longer the one that was measured.
            Settings are compared, so that a default that the code has changed since is not noticed.
    """
    name = result["recipe"]
    if not result.get("kind") == claim.kind == "table":
        raise UserError(f"{name}: only the rows of a table can be judged again: run it again")
    if not {"experiment", "rows", "scale", "seeds"} <= set(result):
        raise UserError(f"{name}: the result does not tell how it was measured: run it again")
    settings, note = claim.at_scale(result["scale"])
    refuse_another(result["experiment"], settings, name)
    table = Table(claim, settings, result["seeds"], Work(Path(), NO_ENGINE, Reporter()))  # which runs nothing
    setups = {row.name: result["setups"][row.setup or next(iter(result["setups"]))] for row in table.rows}
    rows = []
    for row in result["rows"]:
        changes = {"published": claim.published.get(row["name"]), "cost": cost(setups[row["name"]], row["defence"])}
        rows.append({**row, **changes})
    before = {check["statement"]: check for check in result["checks"]}
    checks = []
    for check in table.checks.judge(rows):
        same = before.get(check["statement"])
        later = same is None or same.get("later", False)
        checks.append({**check, **({"later": True} if later else {})})
    texts = {"source": claim.source, "statement": claim.statement, "note": note, "silent": claim.silent}
    return {**result, **texts, **verdicts(claim, checks), "rows": rows, "checks": checks}


def verdicts(claim: Claim, checks: list[dict[str, Any]]) -> dict[str, Any]:
    """The claim's verdict under each attack, and that under the attack of the source."""
    labels = list(checks[0]["under"])
    by_label = {label: overall([check["under"][label]["verdict"] for check in checks]) for label in labels}
    main = claim.attack if claim.attack in by_label else labels[0]
    return {"verdict": by_label[main], "verdict_under": main, "verdicts": by_label}


def refuse_another(then: Mapping[str, Any], now: Mapping[str, Any], name: str) -> None:
    """Refuse an experiment that is not the one that was measured, naming the parts that differ.

    Captions of pictures are texts, not measurements.
    """
    then, now = _bare(then), _bare(now)
    parts = sorted(part for part in {*then, *now} if then.get(part) != now.get(part))
    if parts:
        raise UserError(f"{name}: the recipe's {', '.join(parts)} changed since it was measured: run it again")


def _bare(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON keeps them, without captions."""
    tree: dict[str, Any] = json.loads(json.dumps(settings))
    for picture in tree.get("pictures", {}).values():
        picture.pop("caption", None)
    return tree
