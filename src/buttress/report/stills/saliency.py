"""Saliency maps as a still picture: a row for each input, with each network's maps and answer."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from buttress.report.stills.picture import FAINT, INK, show_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CELL = 0.95  # inches
_CORRECT, _WRONG = "#1a7f5a", "#b3261e"

Items = Sequence[Mapping[str, Any]]


def draw_saliency(figure: Figure, networks: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw the inputs once, at the left, where the networks share them; otherwise beside each network's maps."""
    items = {name: data["items"] for name, data in networks.items()}
    inputs = [[item["images"]["input"] for item in rows] for rows in items.values()]
    shared = all(mine == inputs[0] for mine in inputs)
    maps = ("occlusion", "gradient") if shared else ("input", "occlusion", "gradient")
    longest: Items = max(items.values(), key=len)
    columns = shared + len(maps) * len(items)
    figure.set_size_inches(_CELL * columns + 1.1 * len(items), _CELL * len(longest) + 0.5)
    axes: Any = figure.subplots(len(longest), columns, squeeze=False)
    for row, item in zip(axes, longest, strict=True):
        row[0].set_ylabel(str(item["truth"]), rotation=0, ha="right", va="center", color=INK)
    _beside(axes[0, 0], "true", (0, 1), (-6, 6), color=FAINT, ha="right")
    if shared:
        _column(axes[:, 0], "input", inputs[0])
    for index, (name, rows) in enumerate(items.items()):
        first = shared + index * len(maps)
        axes[0, first].set_title(textwrap.fill(name, 11 * len(maps)))
        for column, what in enumerate(maps, first):
            _column(axes[:, column], what, [item["images"][what] for item in rows])
        _answers(axes[:, first + len(maps) - 1], rows)


def _column(axes: Sequence[Axes], name: str, images: Sequence[object]) -> None:
    axes[0].xaxis.set_label_position("top")
    axes[0].set_xlabel(name)
    for cell, image in zip(axes, images, strict=False):
        show_image(cell, image)
    for cell in axes[len(images) :]:  # another network was shown more inputs
        cell.set_box_aspect(1)
        cell.set(xticks=[], yticks=[])
        cell.spines[:].set_visible(False)


def _answers(axes: Sequence[Axes], items: Items) -> None:
    """At the right of a network's last map: its answers, and whether they are correct."""
    _beside(axes[0], "answer", (1, 1), (6, 6), color=FAINT)
    for cell, item in zip(axes, items, strict=False):
        sign, colour = ("✓", _CORRECT) if item["truth"] == item["answer"] else ("✗", _WRONG)
        _beside(cell, f"{sign} {item['answer']}", (1, 0.5), (6, 0), color=colour, va="center")


def _beside(axes: Axes, text: str, place: tuple[float, float], points: tuple[float, float], **look: Any) -> None:
    """Text next to an image, so many points from a place that is given in shares of it."""
    axes.annotate(text, place, points, xycoords="axes fraction", textcoords="offset points", **look)
