"""Planes that a network's answers divide, as still pictures: shades, the edge, inputs, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from buttress.audits.base.png import png
from buttress.report.figures import COLOURS, pick
from buttress.report.stills.svg import FAINT, INK, LINE, Box, Canvas, Plot, wide

_WIDTH, _HEIGHT, _COLUMNS = 340.0, 280.0, 2
_SHADES = ((0x6E, 0xA8, 0xE6), (0xE9, 0xEA, 0xEC), (0xED, 0xA2, 0x5C))  # for 0, 1/2 and 1; those of the page
_BAND = 0.05  # of probability that has one shade
_FINER = 6  # pixels from one value to the next

Place = tuple[float, float]


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
        strip: draws what lies above, in a box.
    """

    x: Sequence[float]
    y: Sequence[float]
    probability: Sequence[Sequence[float]]
    axes: tuple[str, str]
    classes: Sequence[str]
    inputs: Sequence[tuple[float, float, str]] = ()
    note: str = ""
    strip: Callable[[Canvas, Box], None] | None = None


def planes(networks: Mapping[str, Plane], title: str, strip: tuple[float, float] = (0.0, 0.0)) -> str:
    """SVG of a plane for each network.

    Args:
        networks: by name.
        title: what the picture shows.
        strip: width and height of what is above each plane.
    """
    left, gap, head = 58.0, 18.0, 34.0
    width, above = max(_WIDTH, strip[0]), strip[1]
    across, down = left + width + gap, head + above + _HEIGHT + 96
    columns = min(_COLUMNS, len(networks))
    canvas = Canvas(columns * across, -(-len(networks) // columns) * down, title)
    for index, (name, plane) in enumerate(networks.items()):
        x, top = left + index % columns * across, index // columns * down
        canvas.text(x, top + 20, name, bold=True, size=13)
        if plane.strip is not None:
            plane.strip(canvas, (x, top + head, width, above))
        box = (x, top + head + above, width, _HEIGHT)
        _plane(canvas, box, plane)
        canvas.text(x, box[1] + _HEIGHT + 54, plane.note, fill=FAINT, size=11)
        _legend(canvas, x, box[1] + _HEIGHT + 78, plane)
    return canvas.render()


def _plane(canvas: Canvas, box: Box, plane: Plane) -> None:
    plot = Plot(canvas, box, (plane.x[0], plane.x[-1]), (plane.y[0], plane.y[-1]))
    canvas.image(png(_pixels(plane.probability)), box, smooth=True)
    pieces = [(plot.at(*start), plot.at(*end)) for start, end in edge(plane.x, plane.y, plane.probability)]
    path = " ".join(f"M{a:.1f} {b:.1f}L{c:.1f} {d:.1f}" for (a, b), (c, d) in pieces)
    canvas.put("path", d=path, stroke=INK, stroke_width=1.8, stroke_linecap="round", fill="none")
    for x, y, name in plane.inputs:
        if plane.x[0] <= x <= plane.x[-1] and plane.y[0] <= y <= plane.y[-1]:
            _mark(canvas, *plot.at(x, y), _names(plane).index(name))
    plot.axes(*plane.axes, grid=False)


def _pixels(probability: Sequence[Sequence[float]]) -> torch.Tensor:
    """(H, W, 3) colours, the first row at the bottom; the outermost values lie on the outermost pixels."""
    grid = torch.tensor(probability, dtype=torch.float64).flip(0)[None, None]
    size = [_FINER * (length - 1) + 1 for length in grid.shape[2:]]
    fine = torch.nn.functional.interpolate(grid, size, mode="bilinear", align_corners=True)[0, 0].clamp(0, 1)
    middle = ((fine / _BAND).floor() * _BAND + _BAND / 2).clamp(max=1 - _BAND / 2)
    return shade(middle)


def shade(probability: torch.Tensor) -> torch.Tensor:
    """(..., 3) uint8 colours of probabilities in [0, 1], by way of the colour for one half."""
    low, half, high = (torch.tensor(colour, dtype=torch.float64) for colour in _SHADES)
    share = 2 * probability.double()[..., None]
    colours = torch.where(share < 1, low + share * (half - low), half + (share - 1) * (high - half))
    return colours.round().to(torch.uint8)


def edge(
    x: Sequence[float], y: Sequence[float], z: Sequence[Sequence[float]], at: float = 0.5
) -> list[tuple[Place, Place]]:
    """Straight pieces of the line where values on a grid are ``at``, by marching squares.

    Args:
        x: places of the columns.
        y: places of the rows.
        z: the values, by row.
        at: the value of the line.
    """
    pieces = []
    for row, (low, high) in enumerate(pairwise(y)):
        for column, (left, right) in enumerate(pairwise(x)):
            corners = [(left, low), (right, low), (right, high), (left, high)]
            values = [z[row][column], z[row][column + 1], z[row + 1][column + 1], z[row + 1][column]]
            crossed = [
                _between(corners[i], corners[i - 3], (values[i] - at) / (values[i] - values[i - 3]))
                for i in range(4)
                if (values[i] >= at) != (values[i - 3] >= at)
            ]
            # Four are a saddle: which two belong together depends on the side that the middle is on.
            if len(crossed) == 4 and (sum(values) / 4 >= at) != (values[0] >= at):
                crossed = [crossed[3], *crossed[:3]]
            pieces += [(crossed[i], crossed[i + 1]) for i in range(0, len(crossed), 2)]
    return pieces


def _between(one: Place, other: Place, share: float) -> Place:
    return one[0] + share * (other[0] - one[0]), one[1] + share * (other[1] - one[1])


def _names(plane: Plane) -> list[str]:
    """The names that inputs have: the two classes first, so that their marks are the same in all panels."""
    return list(dict.fromkeys([*plane.classes, *(name for _, _, name in plane.inputs)]))


def _mark(canvas: Canvas, x: float, y: float, index: int) -> None:
    """An input: a disc for the first class, a square for others."""
    look: dict[str, object] = {"fill": pick(COLOURS, index), "stroke": INK, "stroke_width": 0.7}
    if index == 0:
        canvas.put("circle", cx=x, cy=y, r=3, **look)
    else:
        canvas.put("rect", x=x - 2.7, y=y - 2.7, width=5.4, height=5.4, **look)


def _legend(canvas: Canvas, x: float, y: float, plane: Plane) -> None:
    """The marks' names, and the shades' probabilities."""
    right = x + _WIDTH
    for name in dict.fromkeys(name for _, _, name in plane.inputs):
        _mark(canvas, x + 4, y - 4, _names(plane).index(name))
        canvas.text(x + 12, y, name, fill=FAINT)
        x += wide(name) + 28
    bar: Box = (right - 130, y - 10, 100, 10)
    canvas.image(png(shade(torch.linspace(0, 1, 101)).expand(2, -1, -1)), bar, smooth=True)
    canvas.put("rect", x=bar[0], y=bar[1], width=bar[2], height=bar[3], fill="none", stroke=LINE)
    canvas.text(bar[0] - 5, y - 1, f"P({plane.classes[-1]})  0%", anchor="end", fill=FAINT, size=11)
    canvas.text(bar[0] + 105, y - 1, "100%", fill=FAINT, size=11)
