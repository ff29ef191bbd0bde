"""What a training took, over all the parts of a run that was interrupted, in a file beside the run's other ones."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from buttress.defences.base.defence import Defence
from buttress.plain_data import read_json
from buttress.safe_files import write_text

FILE = "cost.json"


class Clock:
    """Seconds of a run, counted on from its file.

    Args:
        folder: the run's, or None for one that is kept nowhere.
    """

    def __init__(self, folder: Path | None) -> None:
        self.file = None if folder is None else folder / FILE
        before = read_cost(folder).get("seconds", 0.0) if folder is not None else 0.0
        self.began = time.monotonic() - before

    @property
    def seconds(self) -> float:
        """So far, with all that was done between the steps."""
        return time.monotonic() - self.began

    def write(self, **facts: Any) -> None:
        """Write the time so far, and further facts."""
        if self.file is not None:
            write_text(self.file, json.dumps({**facts, "seconds": round(self.seconds, 3)}, indent=2))


def read_cost(folder: Path) -> dict[str, Any]:
    """What the run in ``folder`` took; empty where there is no such file or it is damaged."""
    try:
        cost = read_json((folder / FILE).read_text())
    except (OSError, ValueError):
        return {}
    valid = isinstance(cost, dict) and isinstance(cost.get("seconds"), int | float)
    return cost if valid else {}


def passes(defence: Defence, epochs: float) -> dict[str, float | None]:
    """Passes for each training input over so many epochs, and their multiple of standard training's."""
    cost = defence.cost
    if cost is None:
        return {"passes": None, "relative": None}
    return {"passes": epochs * (cost.crafting + cost.training), "relative": cost.relative}
