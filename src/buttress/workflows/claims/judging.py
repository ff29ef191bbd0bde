"""A stored result of a claim, told and judged by the recipe as it is now: nothing is measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from buttress.errors import UserError
from buttress.workflows.claims.recipe import Claim, blanks, filled
from buttress.workflows.claims.statistics import overall
from buttress.workflows.claims.table import Table
from buttress.workflows.claims.work import Work
from buttress.workflows.settings import Say


def judged_again(result: Mapping[str, Any], claim: Claim) -> dict[str, Any]:
    """``result`` with texts, checks and verdicts of ``claim``; rows stay as they were measured.

    Checks of claims that are no tables stay, too: they are made of more than the file holds.

    Raises:
        UserError: when the recipe's experiment is no longer the one that was measured.
    """
    settings, note = claim.at_scale(result["scale"])
    told = {"source": claim.source, "statement": claim.statement, "note": note, "silent": claim.silent}
    checks = result["checks"]
    if claim.kind == "table":
        table = Table(claim, settings, result["seeds"], Work(Path(), None, None, Say()))  # which runs nothing
        _refuse_another(table, result)
        checks = table.checks.judged(result["rows"])
    return {**result, **told, **verdicts(claim, checks), "checks": checks}


def verdicts(claim: Claim, checks: list[dict[str, Any]]) -> dict[str, Any]:
    """The claim's verdict under each attack, and that under the attack of the source."""
    labels = list(checks[0]["under"])
    found = {label: overall([check["under"][label]["verdict"] for check in checks]) for label in labels}
    main = claim.attack if claim.attack in found else labels[0]
    return {"verdict": found[main], "verdict_under": main, "verdicts": found}


def _refuse_another(table: Table, result: Mapping[str, Any]) -> None:
    """Refuse rows that the recipe would measure otherwise now."""
    told = [(entry["row"], entry["chosen"]["choice"]) for entry in result["sweeps"]]
    matched = told.pop(0)[1] if table.experiment.match else {}  # made before all other choices
    now = {
        "eps": table.experiment.eps,
        "setups": filled(table.setups, matched),
        "attacks": table.experiment.attacks,
        "figures": table.experiment.figures,
        "rows": {name: _defence(table, name, dict(told)) for name in table.names},
    }
    then = {**result, "rows": {row["name"]: row["defence"] for row in result["rows"]}}
    then.setdefault("figures", now["figures"])  # not told by earlier versions
    for part, asked in now.items():
        if then[part] != asked:
            where = [name for name in asked if then[part].get(name) != asked[name]] if isinstance(asked, dict) else []
            named = f" ({', '.join(where)})" if where else ""
            raise UserError(
                f"{result['recipe']}: the recipe's {part}{named} changed since it was measured: run it again"
            )


def _defence(table: Table, name: str, choices: Mapping[str, Mapping[str, Any]]) -> Any:
    """A row's defence with its blanks filled as they were chosen."""
    row = table.rows[table.names.index(name)]
    only = {option: values[0] for option, values in row.choose.items()}
    defence = filled(row.defence, choices.get(name, only))
    return filled(defence, {base: _defence(table, base, choices) for base in blanks(defence) & set(table.names)})
