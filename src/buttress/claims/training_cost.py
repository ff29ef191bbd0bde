"""What the training of a table's rows costs, known without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from buttress.claims.experiment import Row
from buttress.claims.recipe import blanks, fill_blanks
from buttress.claims.seed_statistics import certain_difference
from buttress.config.reading import build
from buttress.defences.base.defence import Defence
from buttress.errors import UserError
from buttress.jobs.settings import Training
from buttress.training.cost import passes

PASSES = "passes"  # a figure that every row has whose method declares its cost


def cost(setup: Mapping[str, Any], defence: Any) -> dict[str, float | None]:
    """``passes`` of each input trained on over all epochs of the setup, and ``relative``.

    The first are the epochs times the passes, forward and backward alike, that an input costs whenever it is trained
    on, without those of what the method trains beforehand. They are what checks compare, since methods that replay
    batches have fewer epochs. They ignore epochs that a monitor spares, and that a method trains on other inputs than
    those of the data: cost.json of a run has what was done. The second is what an input costs whenever it is trained
    on, as a multiple of standard training. Both are None where they are unknown.
    """
    method: Defence = build(Defence, defence)
    return passes(method, build(Training, setup.get("training", {})).epochs)


def first_choice(name: str, rows: Sequence[Row], within: tuple[str, ...] = ()) -> Any:
    """The defence of a row with the first of its choices, and those of the rows that it builds on.

    Args:
        name: of the row.
        rows: of the table.
        within: the rows that build on this one.

    Raises:
        UserError: when rows build on each other in a circle.
    """
    if name in within:
        raise UserError("claim: experiment: rows build on each other in a circle")
    row = next(row for row in rows if row.name == name)
    below = blanks(row.defence) & {other.name for other in rows}
    bases = {other: first_choice(other, rows, (*within, name)) for other in below}
    return fill_blanks(row.defence, {**bases, **{blank: values[0] for blank, values in row.choose.items()}})


def known_passes(name: str, cost: Mapping[str, float | None]) -> float:
    """The passes of a row.

    Raises:
        UserError: where they are unknown.
    """
    passes = cost[PASSES]
    if passes is None:
        raise UserError(f"claim: checks: the passes of {name!r} are unknown, so no check can be made of them")
    return passes


def difference(better: Mapping[str, Any], than: Mapping[str, Any], seeds: int) -> dict[str, Any]:
    """How many passes more one row has than another: the same for every seed, and therefore known for one, too."""
    more = known_passes(better["name"], better["cost"]) - known_passes(than["name"], than["cost"])
    return certain_difference(more, seeds)
