"""Results of claims as JSON that any parser reads: what is no finite number is a text there, and a number when read.

Findings, which are for readers, keep less: there only infinite budgets come back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from buttress.errors import UserError
from buttress.plain_data import read_json

_NAMED = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def to_text(result: Mapping[str, Any]) -> str:
    """The file of a claim's result."""
    return json.dumps(_named(result), indent=1, allow_nan=False) + "\n"


def from_text(text: str) -> Any:
    """What such a file holds, its numbers as numbers.

    Raises:
        ValueError: when it is no JSON.
    """
    return _numbers(read_json(text))


def read_result(path: Path) -> dict[str, Any]:
    """The result of one claim.

    Raises:
        UserError: when the file is none.
    """
    try:
        claim: dict[str, Any] = from_text(path.read_text())
        _ = claim["recipe"], claim["checks"], claim["verdicts"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} is no result of a claim: choose another --out, or take it out of the folder") from None
    return claim


def _named(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _named(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_named(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_numbers(part) for part in value]
    return _NAMED.get(value, value) if isinstance(value, str) else value
