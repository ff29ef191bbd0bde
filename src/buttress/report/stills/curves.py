"""Curves over epochs as a still picture, a panel for each network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from buttress.report.figures import COLOURS, pick
from buttress.report.stills.svg import DASHES, FAINT, Box, Canvas, Plot, wide

Run = Sequence[float | None]  # a value for each epoch; None where there is none
_WIDTH, _HEIGHT, _COLUMNS = 270.0, 180.0, 3
_LEFT, _TOP, _GAP = 44.0, 30.0, 26.0


def curves(networks: Mapping[str, Mapping[str, Sequence[Run]]], title: str) -> str:
    """SVG of the mean over runs, with a band from the least to the greatest.

    Args:
        networks: by network and curve, the values of each run.
        title: what it shows.
    """
    labels = list(dict.fromkeys(label for found in networks.values() for label in found))
    columns = min(_COLUMNS, len(networks))
    rows = -(-len(networks) // columns)
    lines = _legend_lines(labels, columns * (_LEFT + _WIDTH + _GAP) - _LEFT)
    head, tall = 14 + 20 * len(lines), _TOP + _HEIGHT + 46
    canvas = Canvas(columns * (_LEFT + _WIDTH + _GAP), head + rows * tall, title)
    _legend(canvas, lines, labels)
    runs = [run for found in networks.values() for several in found.values() for run in several]
    y = reach([value for run in runs for value in run if _known(value)])
    last = max((len(run) for run in runs), default=1)
    for index, (name, found) in enumerate(networks.items()):
        left = _LEFT + index % columns * (_LEFT + _WIDTH + _GAP)
        box = (left, head + index // columns * tall + _TOP, _WIDTH, _HEIGHT)
        canvas.text(left, box[1] - 10, name, bold=True, size=13)
        _panel(canvas, box, {labels.index(label): several for label, several in found.items()}, last, y)
    return canvas.render()


def _panel(canvas: Canvas, box: Box, found: Mapping[int, Sequence[Run]], last: int, y: tuple[float, float]) -> None:
    plot = Plot(canvas, box, (1, max(last, 2)), y)
    plot.axes("epoch", "", grid=True)
    parts = [(index, len(runs), part) for index, runs in found.items() for part in _stretches(summary(runs))]
    for index, runs, part in parts:
        if runs > 1 and len(part) > 1:
            lowest = [plot.at(epoch, low) for epoch, (_, low, _) in part]
            highest = [plot.at(epoch, high) for epoch, (_, _, high) in reversed(part)]
            corners = " ".join(f"{across:.2f},{down:.2f}" for across, down in lowest + highest)
            canvas.put("polygon", points=corners, fill=pick(COLOURS, index), fill_opacity=0.15)
    for index, _, part in parts:
        means, colour = [plot.at(epoch, mean) for epoch, (mean, _, _) in part], pick(COLOURS, index)
        canvas.line(means, colour, 2, pick(DASHES, index))
        if len(means) == 1:
            canvas.put("circle", cx=means[0][0], cy=means[0][1], r=2.5, fill=colour)


def summary(runs: Sequence[Run]) -> list[tuple[float, float, float] | None]:
    """Mean, least and greatest of each epoch, over the runs that have a value there; None where none has."""
    found: list[tuple[float, float, float] | None] = []
    for epoch in range(max((len(run) for run in runs), default=0)):
        values = [value for run in runs if epoch < len(run) and _known(value := run[epoch]) and value is not None]
        found.append((sum(values) / len(values), min(values), max(values)) if values else None)
    return found


def reach(values: Sequence[float | None]) -> tuple[float, float]:
    """The vertical axis: from 0 or below to 1 for shares, and to the greatest value otherwise."""
    known = [value for value in values if value is not None]
    low, high = min([0.0, *known]), max([0.0, *known])
    if low >= -1 and high <= 1:
        # Shares and cosines: figures of different claims can be compared.
        return (math.floor(low * 5) / 5, 1.0)
    return low, high + 0.05 * (high - low)


def _stretches(
    summed: Sequence[tuple[float, float, float] | None],
) -> list[list[tuple[int, tuple[float, float, float]]]]:
    """Epochs (from 1) with values, cut where there are none."""
    parts: list[list[tuple[int, tuple[float, float, float]]]] = [[]]
    for epoch, found in enumerate(summed, 1):
        if found is None:
            parts.append([])
        else:
            parts[-1].append((epoch, found))
    return [part for part in parts if part]


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _legend_lines(labels: Sequence[str], room: float) -> list[list[str]]:
    """The entries, as many to a line as there is room for."""
    lines: list[list[str]] = [[]]
    for label in labels:
        if lines[-1] and sum(wide(known) + 58 for known in [*lines[-1], label]) > room:
            lines.append([])
        lines[-1].append(label)
    return lines


def _legend(canvas: Canvas, lines: Sequence[Sequence[str]], labels: Sequence[str]) -> None:
    for row, line in enumerate(lines):
        x, y = _LEFT, 18.0 + 20 * row
        for label in line:
            index = labels.index(label)
            canvas.line([(x, y - 4), (x + 30, y - 4)], pick(COLOURS, index), 2, pick(DASHES, index))
            canvas.text(x + 36, y, label, fill=FAINT)
            x += wide(label) + 58
