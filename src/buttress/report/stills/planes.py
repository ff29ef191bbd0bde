"""Planes that a network's answers divide, as still pictures: shades, the boundary, inputs, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from buttress.report.figures import COLOURS, pick
from buttress.report.stills.picture import FAINT, INK, show_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

SHADES = ("#6ea8e6", "#e9eaec", "#eda25c")  # for 0, 1/2 and 1; those of the page
_COLUMNS = 2
_WRONG = "#b3261e"


@dataclass(frozen=True, kw_only=True)
class Plane:
    """Two-class probabilities around inputs.

    Attributes:
        x: places along the horizontal axis, ascending.
        y: places along the vertical one, ascending.
        probability: of the second class, a row for each of y.
        axes: what the axes mean.
        classes: names of the two.
        inputs: places and names of inputs.
        note: a line below.
        images: above it, each with a caption, an embedded image and its answer.
    """

    x: Sequence[float]
    y: Sequence[float]
    probability: Sequence[Sequence[float]]
    axes: tuple[str, str]
    classes: Sequence[str]
    inputs: Sequence[tuple[float, float, str]] = ()
    note: str = ""
    images: Sequence[tuple[str, object, str]] = ()


def draw_planes(figure: Figure, networks: Mapping[str, Plane]) -> None:
    """Draw a plane for each network, by name."""
    columns = min(_COLUMNS, len(networks))
    rows = -(-len(networks) // columns)
    most = max(len(plane.images) for plane in networks.values())
    figure.set_size_inches(columns * max(5.4, 0.6 * most + 0.9), rows * (5.3 if most else 4.3))
    parts = figure.subfigures(rows, columns, squeeze=False).flat
    for part, (network, plane) in zip(parts, networks.items(), strict=False):
        part.suptitle(network, x=0.02, ha="left", fontweight="bold", fontsize=10)
        _draw(part, plane)


def _draw(part: SubFigure, plane: Plane) -> None:
    count = max(len(plane.images), 1)
    grid = part.add_gridspec(2, count, height_ratios=(1, 5)) if plane.images else part.add_gridspec(1, 1)
    for column, (caption, image, answer) in enumerate(plane.images):
        axes = part.add_subplot(grid[0, column])
        show_image(axes, image)
        axes.set_title(caption, loc="center", fontsize=7.5, fontweight="normal", color=FAINT)
        axes.set_xlabel(answer, color=_WRONG if answer == plane.classes[-1] else INK)
    axes = part.add_subplot(grid[-1, :])
    shade(part, axes, plane)
    mark_inputs(axes, plane)
    axes.set(xlabel=f"{plane.axes[0]}\n{plane.note}", ylabel=plane.axes[1])


def shade(part: SubFigure, axes: Axes, plane: Plane) -> None:
    """Bands of probability, a bar that explains them, and the boundary, where both classes have one half."""
    import numpy as np
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.ticker import PercentFormatter

    values = np.clip(np.asarray(plane.probability, float), 0, 1)
    shades = LinearSegmentedColormap.from_list("probability", SHADES)
    levels = np.linspace(0, 1, 21)
    bands = axes.contourf(plane.x, plane.y, values, levels, cmap=shades, vmin=0, vmax=1, antialiased=False)
    bands.set_rasterized(True)
    bar = part.colorbar(bands, ax=axes, format=PercentFormatter(1), ticks=[0, 0.25, 0.5, 0.75, 1], aspect=25)
    bar.set_label(f"P({plane.classes[-1]})")
    if values.min() < 0.5 <= values.max():
        axes.contour(plane.x, plane.y, values, [0.5], colors=INK, linewidths=1.6)


def mark_inputs(axes: Axes, plane: Plane) -> None:
    """The inputs on the plane: discs for the first class, squares for others; and a legend of them."""
    # The two classes first, so that their marks are the same in all panels.
    names = list(dict.fromkeys([*plane.classes, *(name for _, _, name in plane.inputs)]))
    left, right, bottom, top = plane.x[0], plane.x[-1], plane.y[0], plane.y[-1]
    look: dict[str, Any] = {"linestyle": "", "markersize": 5, "markeredgecolor": INK, "markeredgewidth": 0.7}
    for index, name in enumerate(names):
        places = [(x, y) for x, y, other in plane.inputs if other == name]
        if places:
            inside = [(x, y) for x, y in places if left <= x <= right and bottom <= y <= top]
            marker = "s" if index else "o"
            axes.plot(
                *zip(*inside, strict=True) if inside else ([], []),
                marker=marker,
                label=name,
                color=pick(COLOURS, index),
                **look,
            )
    if plane.inputs:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2, handletextpad=0.2)
