"""What a recipe says of a table's experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way of training.

    Args:
        name: its name in the table.
        defence: short form; ``$eps`` stands for a value chosen, ``$AT-PGD`` for the chosen defence of that row.
        setup: on what; the experiment's first setup unless given.
        choose: values to choose from, by name; the combination with the highest score on validation data is taken.
    """

    name: str
    defence: Any
    setup: str = ""
    choose: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """How choices are made.

    Args:
        attack: R&G under it, the mean over seeds, is the score of a choice.
        seeds: networks trained for each choice.
        inputs: validation inputs used; all unless given.
    """

    attack: Any
    seeds: int = 2
    inputs: int | None = None


@dataclass(frozen=True, kw_only=True)
class Match:
    """A setting of the data that the source leaves out.

    Args:
        name: the blank in the setups that it fills.
        values: what to choose from.
        row: the value is taken whose networks of this row come nearest to its published accuracies (mean absolute
            difference, on validation data, under the published attack).
        attack: that attack.
    """

    name: str
    values: list[Any]
    row: str
    attack: Any


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure beside the accuracies, read from what an audit finds.

    Args:
        audit: short form; the threat is that of the table's largest budget unless it says otherwise.
        path: where in the finding's data it is, such as ``verdict`` or ``worst.accuracy``; numbers are averaged over
            seeds, texts are listed.
        times: what numbers are multiplied by; 100 makes percent of shares.
        inputs: test inputs used; all unless given.
    """

    audit: Any
    path: str
    times: float = 1.0
    inputs: int | None = None


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A table's experiment.

    Args:
        setups: by name: source, architecture and training, as on the command line.
        eps: the budgets of the columns.
        attacks: each with ``attack`` and, where not all test inputs are used, ``inputs``.
        rows: the ways of training; see `Row`.
        sweep: how rows choose; see `Sweep`.
        match: see `Match`.
        figures: by name, what else is measured of every network; see `Figure`.
    """

    setups: dict[str, Any]
    eps: list[float]
    attacks: list[dict[str, Any]]
    rows: list[Any]
    sweep: dict[str, Any] | None = None
    match: dict[str, Any] | None = None
    figures: dict[str, Any] = field(default_factory=dict)
