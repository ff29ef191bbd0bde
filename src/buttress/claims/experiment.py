"""What a recipe says of a table's experiment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from buttress.claims.recipe import fill_blanks
from buttress.errors import UserError
from buttress.validation import number


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way of training.

    Args:
        name: its name in the table.
        defence: short form; ``$eps`` stands for a value chosen, ``$AT-PGD`` for the chosen defence of that row.
        setup: on what; the experiment's first setup unless given.
        choose: values to choose from, by name; the combination with the highest score on validation data is taken.
        values: numbers by name, for what rows differ in; ``$name`` stands for one in the defence and in the audits of
            figures, and each is a figure of the row, so that a check can say what rises with it.
    """

    name: str
    defence: Any
    setup: str = ""
    choose: dict[str, list[Any]] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fill the defence in.

        Raises:
            UserError: for values that are no numbers, and a name for two things.
        """
        if not isinstance(self.values, Mapping):
            raise UserError(f"claim: row {self.name!r}: values must be numbers by name; got {self.values!r}")
        for name, value in self.values.items():
            number(f"claim: row {self.name!r}: {name}", value)
            if name in self.choose:
                raise UserError(f"claim: row {self.name!r}: {name} is a value and to be chosen: leave out one of them")
        object.__setattr__(self, "defence", fill_blanks(self.defence, self.values))


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
    """A figure beside the accuracies, read from what an audit finds or from the training's history.

    Args:
        path: where in the finding's data it is, such as ``verdict`` or ``worst.accuracy``; numbers are averaged over
            seeds, texts are listed. Of a history ``last``, ``best`` (the largest over the epochs) or ``drop`` (how far
            the last is below the best).
        audit: short form; the threat is that of the table's largest budget unless it says otherwise.
        history: a figure of the history, such as ``train_robust`` of the monitor catastrophic-overfitting.
        times: what numbers are multiplied by; 100 makes percent of shares.
        inputs: test inputs used; all unless given.
        rows: names of the rows that have it; all unless given.
        without: of an audit that takes networks ``without`` a class, as homing does: classes, by name or index; for
            each a network is trained like the row's on the data without it, from the same seed.
    """

    path: str
    audit: Any = None
    history: str = ""
    times: float = 1.0
    inputs: int | None = None
    rows: list[str] = field(default_factory=list)
    without: list[str | int] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class AttackSpec:
    """One entry of a table's attacks.

    Args:
        attack: short form.
        inputs: how many are attacked; all unless given.
        sources: an `Origin` by name, for a transfer without its surrogate.
    """

    attack: Any
    inputs: int | None = None
    sources: Any = None


@dataclass(frozen=True, kw_only=True)
class VerifierSpec:
    """One entry of a table's verifiers.

    Args:
        verifier: short form, such as ibp, crown-ibp or {name: branch-and-bound, ...}.
        inputs: how many are verified; all unless given.
        batch_size: inputs that are bounded at once.
    """

    verifier: Any
    inputs: int | None = None
    batch_size: int = 128


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A network that a transferred attack makes its points on; it is trained in the job that needs it.

    Args:
        setup: the name of one of the experiment's; its data must be like those attacked.
        defence: short form; ``$AT-PGD`` for the chosen defence of that row.
        seed: of its initial weights and of its training; that of the job plus 1000 unless given.
    """

    setup: str
    defence: Any = "standard"
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of some rows side by side: of what an audit finds, or of figures over the epochs.

    Args:
        audit: short form; its finding for the networks of the first seed is drawn. The threat as for a `Figure`.
        inputs: test inputs that the audit has; all unless given.
        history: label of each curve -> the figure of the training's history that it shows, such as ``train_robust`` of
            the monitor catastrophic-overfitting; the mean over the seeds.
        rows: names of rows; all unless given.
        caption: a sentence or two below the picture.
    """

    audit: Any = None
    inputs: int | None = None
    history: dict[str, str] = field(default_factory=dict)
    rows: list[str] = field(default_factory=list)
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A table's experiment.

    Args:
        setups: by name: source, architecture and training, as on the command line.
        eps: the budgets of the columns.
        attacks: see `AttackSpec`; a transfer with ``sources`` is one attack from each: "PGD-40 from mlp".
        verifiers: see `VerifierSpec`; what one verifies is an accuracy as those under attacks are, "verified by ibp",
            for checks and verdicts alike.
        rows: the ways of training; see `Row`.
        sweep: how rows choose; see `Sweep`.
        match: see `Match`.
        figures: by name, what else is measured of every network; see `Figure`. Some names are not for these, since
            rows have such figures by themselves: ``passes`` (of each input trained on, which is the setup's epochs
            times passes, forward and backward, whenever it is trained on), ``monitors fired`` and those of ``values``.
        pictures: by name, what is drawn; see `Picture`.
        errors: whether robust error is split into natural and boundary error; the budgets need 0 then.
    """

    setups: dict[str, Any]
    eps: list[float]
    attacks: list[dict[str, Any]]
    rows: list[Any]
    verifiers: list[dict[str, Any]] = field(default_factory=list)
    sweep: dict[str, Any] | None = None
    match: dict[str, Any] | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, Any] = field(default_factory=dict)
    errors: bool = False
