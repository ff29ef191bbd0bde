"""One check of a table, as a recipe states it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from buttress.errors import UserError
from buttress.validation import number

_FORMS = (
    "better, than and at or figure; row, figure or at, and above; row, at, attacks and above; "
    "pairs and at; or across, figure and rises"
)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check: rows compared, a figure of one row, how much one row has in appearance, or two figures over rows.

    Args:
        better: the row that is held to be above the other.
        than: that other row.
        row: the row that a check on one row is about.
        at: the budget or R&G at which accuracies are meant.
        figure: the figure that is meant instead.
        under: label of the one attack under which two rows' accuracies are compared; each of the table's unless given.
        by: points that the difference must exceed; negative for what may be lost.
        above: what the figure of one row, its accuracy, or the accuracy that it loses, must exceed.
        attacks: labels of two attacks; accuracy under the first less that under the second is what a row loses.
        across: rows, three or more, over which the ranks of two figures are held to go together.
        rises: the second of these figures; ``figure`` is the first.
        pairs: two or more pairs of rows, [better, than]: the mean of their differences, seed by seed, is held to be
            above 0, as where one method is tried on several networks.
    """

    better: str = ""
    than: str = ""
    row: str = ""
    at: Any = None
    figure: str = ""
    under: str = ""
    by: float = 0.0
    above: float | None = None
    attacks: list[str] = field(default_factory=list)
    across: list[str] = field(default_factory=list)
    rises: str = ""
    pairs: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse values of another type, and settings that belong to different forms."""
        for name in ("better", "than", "row", "figure", "under", "rises"):
            if not isinstance(getattr(self, name), str):
                raise UserError(f"claim: checks: {name} must be a name; got {getattr(self, name)!r}")
        for name, value in (("by", self.by), ("above", 0.0 if self.above is None else self.above)):
            number(f"claim: checks: {name}", value)
        pair = bool(self.better and self.than) and (self.at is None) != (not self.figure) and self.above is None
        alone = bool(self.row) and self.above is not None and not (self.by or self.better or self.than)
        figure = alone and bool(self.figure) and self.at is None and not self.attacks
        accuracy = alone and not self.figure and self.at is not None and (self.attacks == [] or self._two_attacks)
        single = accuracy or figure or (pair and not self.row and not self.attacks)
        if self.under and not (pair and self.at is not None):
            raise UserError(f"claim: checks: under is for the accuracies of better and than; got {self.under!r}")
        several = self._pools if self.pairs else self._correlates
        if not (several if self.pairs or self.across or self.rises else single):
            settings = {name: value for name, value in vars(self).items() if value not in ("", None, 0.0, [])}
            raise UserError(f"claim: checks: each needs {_FORMS}; got {settings}")

    @property
    def _two_attacks(self) -> bool:
        labels = self.attacks
        return isinstance(labels, list) and len(labels) == 2 and all(isinstance(one, str) for one in labels)

    @property
    def _correlates(self) -> bool:
        rows = self.across
        valid_rows = (
            isinstance(rows, list) and len(set(map(str, rows))) >= 3 and all(isinstance(one, str) for one in rows)
        )
        others = (self.better, self.than, self.row, self.by, self.attacks)
        unset = self.at is None and self.above is None and not any(others)
        return valid_rows and bool(self.figure and self.rises) and unset

    @property
    def _pools(self) -> bool:
        shapes = isinstance(self.pairs, list) and len(self.pairs) >= 2
        named = shapes and all(
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(one, str) for one in pair)
            for pair in self.pairs
        )
        others = (self.better, self.than, self.row, self.figure, self.under, self.by, self.attacks, self.across)
        return named and self.at is not None and self.above is None and not any((*others, self.rises))

    @property
    def rows(self) -> list[str]:
        """The rows that it speaks of."""
        if self.pairs:
            return [name for pair in self.pairs for name in pair]
        return self.across or ([self.row] if self.row else [self.better, self.than])
