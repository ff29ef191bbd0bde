"""Curves over epochs as a still picture, a panel for each network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from buttress.report.figures import COLOURS
from buttress.report.stills.picture import DASHES, style, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Run = Sequence[float | None]  # a value for each epoch; None where there is none
Networks = Mapping[str, Mapping[str, Sequence[Run]]]  # by network and curve, the values of each run
_COLUMNS = 3


def curves(networks: Networks, title: str) -> str:
    """SVG of the mean over runs, with a band from the smallest to the largest value.

    Args:
        networks: by network and curve, the values of each run.
        title: what it shows.
    """
    from matplotlib.figure import Figure

    with style():
        figure = Figure(layout="constrained")
        draw_curves(figure, networks)
        return to_svg(figure, title)


def draw_curves(figure: Figure, networks: Networks) -> None:
    """Draw the panels, which share their axes, and one legend above them."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    columns = min(_COLUMNS, len(networks))
    rows = -(-len(networks) // columns)
    labels = list(dict.fromkeys(label for lines in networks.values() for label in lines))
    looks = {label: _look(index) for index, label in enumerate(labels)}
    figure.set_size_inches(4.3 * columns, 2.9 * rows + 0.22 * math.ceil(len(labels) / columns))
    panels = figure.subplots(rows, columns, squeeze=False).flat
    runs = [run for lines in networks.values() for several in lines.values() for run in several]
    bottom, top = limits([value for run in runs for value in run if _is_number(value)])
    last = max((len(run) for run in runs), default=1)
    for axes, (network, lines) in zip(panels, networks.items(), strict=False):
        axes.set(title=network, xlabel="epoch", xlim=(1, max(last, 2)), ylim=(bottom, top if top > bottom else None))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(axis="y")
        for label, several in lines.items():
            _draw(axes, several, looks[label])
    for axes in list(figure.axes)[len(networks) :]:
        axes.remove()
    handles = [Line2D([], [], **look) for look in looks.values()]
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, handlelength=3.2)


def _look(index: int) -> dict[str, Any]:
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)], "linewidth": 1.8}


def _draw(axes: Axes, runs: Sequence[Run], look: Mapping[str, Any]) -> None:
    """The mean, interrupted where no run has a value, and the band; a dot for an epoch without neighbours."""
    summaries = summary(runs)
    epochs = range(1, len(summaries) + 1)
    mean, low, high = ([row[column] if row else math.nan for row in summaries] for column in range(3))
    if len(runs) > 1:
        axes.fill_between(epochs, low, high, color=look["color"], alpha=0.15, linewidth=0)
    axes.plot(epochs, mean, **look)
    padded = [None, *summaries, None]
    alone = [e for e in epochs if padded[e] and not padded[e - 1] and not padded[e + 1]]
    if alone:
        axes.plot(alone, [mean[epoch - 1] for epoch in alone], "o", color=look["color"], markersize=4, clip_on=False)


def summary(runs: Sequence[Run]) -> list[tuple[float, float, float] | None]:
    """Mean, minimum and maximum of each epoch, over the runs that have a value there; None where none has."""
    rows: list[tuple[float, float, float] | None] = []
    for epoch in range(max((len(run) for run in runs), default=0)):
        values = [cast(float, run[epoch]) for run in runs if epoch < len(run) and _is_number(run[epoch])]
        rows.append((sum(values) / len(values), min(values), max(values)) if values else None)
    return rows


def limits(values: Sequence[float | None]) -> tuple[float, float]:
    """The vertical axis: from 0 or below to 1 for shares, and to the largest value otherwise."""
    numbers = [value for value in values if value is not None]
    low, high = min([0.0, *numbers]), max([0.0, *numbers])
    if low >= -1 and high <= 1:
        # Shares and cosines: figures of different claims can be compared.
        return (math.floor(low * 5) / 5, 1.0)
    return low, high + 0.05 * (high - low)


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
