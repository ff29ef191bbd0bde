"""Robust error in two parts: what is wrong without an attack, and what an attack adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from buttress.claims.seed_statistics import spread
from buttress.errors import UserError

PARTS = ("natural", "boundary", "robust")


def split(accuracy: Mapping[str, Mapping[str, Any]], eps: Sequence[float]) -> dict[str, dict[str, Any]]:
    """Errors in percent by attack: ``natural``, ``boundary`` and ``robust``, their sum (Zhang et al., ICML 2019).

    The natural error is what is wrong at eps 0; the boundary error is what is right there and not at the largest eps.

    Args:
        accuracy: of one row, by attack and budget, in percent.
        eps: the budgets, 0 among them.
    """
    clean, robust = (str(next(e for e in eps if e == wanted)) for wanted in (0, max(eps)))
    errors = {}
    for label, columns in accuracy.items():
        pairs = list(zip(columns[clean]["seeds"], columns[robust]["seeds"], strict=True))
        parts = ([100 - c for c, _ in pairs], [c - r for c, r in pairs], [100 - r for _, r in pairs])
        errors[label] = {name: spread(values) for name, values in zip(PARTS, parts, strict=True)}
    return errors


def refuse_wrong(eps: Sequence[float]) -> None:
    """Refuse budgets that do not tell the two errors apart.

    Raises:
        UserError: without eps 0, or with nothing above it.
    """
    if 0 not in eps or max(eps) <= 0:
        raise UserError(f"claim: experiment: errors need eps 0 and one above; got {list(eps)}")
