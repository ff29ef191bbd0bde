"""Pictures beside a table: what an audit draws of some of its rows, and how figures went over the epochs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from buttress.audits import Audit
from buttress.audits.base.finding import Finding
from buttress.claims.experiment import Picture
from buttress.claims.figures import History
from buttress.claims.recipe import from_mapping
from buttress.config.reading import build
from buttress.errors import UserError
from buttress.registry import nearest
from buttress.report.stills.curves import curves
from buttress.report.stills.findings import STILLS, still
from buttress.report.stills.picture import MARK
from buttress.safe_files import write_text
from buttress.validation import whole

if TYPE_CHECKING:
    from buttress.claims.work import Work

_WHERE = "claim: experiment: pictures"


class Pictures:
    """The pictures that a table asks for.

    Args:
        trees: by name, see `Picture`.
        rows: names of the table's rows.

    Raises:
        UserError: for what could not be drawn once the networks are trained.
    """

    def __init__(self, trees: Mapping[str, Any], rows: Sequence[str]) -> None:
        if not isinstance(trees, Mapping):
            raise UserError(f"{_WHERE}: a mapping from names to pictures was expected; got {trees!r}")
        self.pictures = {str(name): from_mapping(Picture, tree, f"{_WHERE}: {name}") for name, tree in trees.items()}
        for name, picture in self.pictures.items():
            _check(picture, rows, f"{_WHERE}: {name}")
        slugs = [slug(name) for name in self.pictures]
        for name, short in zip(self.pictures, slugs, strict=True):
            if not short or slugs.count(short) > 1:
                raise UserError(f"{_WHERE}: {name!r} makes no file name of its own: name it by other letters or digits")

    def wants_history(self, row: str) -> bool:
        """Whether a curve of this row is drawn."""
        return any(picture.history and row in (picture.rows or [row]) for picture in self.pictures.values())

    def draw(
        self,
        networks: Mapping[str, Mapping[str, Any]],
        histories: Mapping[str, Sequence[History]],
        eps: float,
        work: Work,
    ) -> dict[str, Any]:
        """Draw; networks that an audit looks at are trained for that.

        Args:
            networks: ``setup`` and ``defence`` by row.
            histories: those of the table's trainings by row, seed by seed, of rows that have a curve.
            eps: budget of the audits' threat.
            work: runs the jobs.

        Returns:
            By name: ``svg``, ``rows`` and ``told``, a line on what is drawn.

        Raises:
            UserError: for a figure that the training does not write, and where a finding holds nothing to draw.
        """
        drawings = {}
        for name, picture in self.pictures.items():
            selection = {row: networks[row] for row in picture.rows or networks}
            if picture.history:
                svg, text = _curves(picture, {row: histories[row] for row in selection}, name)
            else:
                svg, text = _still(picture, selection, eps, work, name)
            text = f"{picture.caption} {text}".strip()
            drawings[name] = {"svg": svg, "rows": list(selection), "told": text}
        return drawings


def _check(picture: Picture, rows: Sequence[str], where: str) -> None:
    if bool(picture.audit) == bool(picture.history):
        raise UserError(f"{where}: either audit or history is needed")
    names = picture.rows
    if not isinstance(names, list) or len({str(row) for row in names}) < len(names):
        raise UserError(f"{where}: rows must be a list of different rows; got {names!r}")
    for row in names:
        if row not in rows:
            raise UserError(f"{where}: there is no row {row!r}; {nearest(str(row), list(rows))}")
    if picture.history:
        history: Any = picture.history
        if not isinstance(history, Mapping) or not all(isinstance(key, str) for key in history.values()):
            raise UserError(f"{where}: history must say which figure each label shows; got {history!r}")
        if picture.inputs is not None:
            raise UserError(f"{where}: inputs are for an audit; a history has none")
        return
    if picture.inputs is not None:
        whole(f"{where}: inputs", picture.inputs)
    build(Audit, picture.audit)
    kind = str(picture.audit.get("name") if isinstance(picture.audit, Mapping) else picture.audit)
    if kind not in STILLS:
        raise UserError(f"{where}: no still picture of the audit {kind!r} is drawn; {nearest(kind, list(STILLS))}")


def _still(
    picture: Picture, networks: Mapping[str, Mapping[str, Any]], eps: float, work: Work, name: str
) -> tuple[str, str]:
    question = {"audit": picture.audit, "inputs": picture.inputs, "eps": eps}
    jobs = [_job(network, 0, question) for network in networks.values()]
    results = work.run(jobs, f"picture: {name}")
    findings = {row: Finding(**result["finding"]) for row, result in zip(networks, results, strict=True)}
    return still(findings, f"{name}: {', '.join(networks)}"), "Networks of the first seed."


def _curves(picture: Picture, histories: Mapping[str, Sequence[History]], name: str) -> tuple[str, str]:
    lines: dict[str, dict[str, list[list[float | None]]]] = {}
    for row, runs in histories.items():
        keys = sorted({key for epoch in runs[0] for key in epoch})
        for key in picture.history.values():
            if key not in keys:
                raise UserError(f"{_WHERE}: {name}: no {key!r} in the history of {row}; {nearest(key, keys)}")
        lines[row] = {label: [[e.get(key) for e in run] for run in runs] for label, key in picture.history.items()}
    seeds = len(next(iter(histories.values())))
    text = f"Mean over {seeds} seeds; the band goes from the least to the greatest." if seeds > 1 else "One seed."
    return curves(lines, f"{name}: {', '.join(histories)}"), text


def _job(network: Mapping[str, Any], seed: int, picture: Mapping[str, Any]) -> dict[str, Any]:
    return {**network, "seed": seed, "split": "test", "finding": dict(picture)}


# -- files -----------------------------------------------------------------------------------------------------------


def slug(name: str) -> str:
    """A name as a part of a file name: small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def place(out: Path, recipe: str, name: str) -> Path:
    """Where a recipe's picture of that name is kept."""
    return out / f"{recipe}.{slug(name)}.svg"


def refuse_foreign(names: Iterable[str], out: Path, recipe: str) -> None:
    """Refuse to write over a file that is no such picture.

    Raises:
        UserError: naming the file.
    """
    for path in (place(out, recipe, str(name)) for name in names):
        try:
            foreign = path.exists() and not path.read_text(encoding="utf-8").startswith(MARK)
        except (OSError, UnicodeDecodeError):
            foreign = True
        if foreign:
            raise UserError(f"{path} exists and is no picture of a claim: choose another --out")


def write_pictures(pictures: Mapping[str, Mapping[str, Any]], out: Path, recipe: str) -> dict[str, dict[str, Any]]:
    """Write each picture's file; the same entries with ``file``, its name, in place of ``svg``.

    Raises:
        UserError: when the disk is full.
    """
    entries = {}
    for name, picture in pictures.items():
        path = place(out, recipe, name)
        write_text(path, picture["svg"])
        entries[name] = {"file": path.name, **{key: value for key, value in picture.items() if key != "svg"}}
    return entries
