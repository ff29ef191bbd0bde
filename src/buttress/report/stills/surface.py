"""The loss around inputs as a still picture: a row of planes for each network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from buttress.report.kinds.surface import axis_titles, item_name
from buttress.report.stills.picture import INK
from buttress.report.stills.planes import SHADES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_surfaces(figure: Figure, networks: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw the loss that decides around each input of each network, with the budget and where the answer turns."""
    columns = max(len(data["items"]) for data in networks.values())
    figure.set_size_inches(3.6 * columns, 3.4 * len(networks))
    grid = figure.subplots(len(networks), columns, squeeze=False)
    for row, (network, data) in zip(grid, networks.items(), strict=True):
        for axes, item in zip(row, data["items"], strict=False):
            _draw(axes, data, item)
            axes.set_title(f"{network}\n{item_name(item)}", fontsize=8)
        for axes in row[len(data["items"]) :]:
            axes.set_axis_off()


def _draw(axes: Axes, data: Mapping[str, Any], item: Mapping[str, Any]) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    loss, places = data["deciding"], data["axis"]
    values = item["surfaces"][loss]
    shades = LinearSegmentedColormap.from_list("loss", SHADES)
    bands = axes.contourf(places, places, values, 24, cmap=shades, antialiased=False)
    bands.set_rasterized(True)
    axes.figure.colorbar(bands, ax=axes, aspect=25)
    flat = [value for line in values for value in line]
    if loss == "margin" and min(flat) < 0 < max(flat):
        axes.contour(places, places, values, [0], colors=INK, linewidths=1.6)
    axes.plot(*item["budget"], color=INK, linestyle="dashed", linewidth=1)
    axes.plot([0], [0], color=INK, marker="o", markersize=4, linestyle="")
    axes.set(xlim=(places[0], places[-1]), ylim=(places[0], places[-1]))
    along, side = axis_titles(data)
    axes.set_xlabel(along, fontsize=7)
    axes.set_ylabel(side, fontsize=7)
