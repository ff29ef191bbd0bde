"""Adversarial examples of each network tried on every other: a matrix for each attack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.report.figures import SHADES, figure, fill
from buttress.report.kinds import Section, renderer
from buttress.report.text import escape_label, interval, number, percent

Matrix = Mapping[str, Mapping[str, Any]]  # by the network crafted on, that attack's row of its finding

_WRITTEN = 12  # networks of whose matrix each cell's share can be read in the picture


@renderer("transfer")
def transfer(findings: Mapping[str, Finding]) -> Section:
    """A heat map of each attack, crafted on (down) and tried on (across), and the same as a table."""
    panels = [
        {"attack": attack, "threat": threat, "plot": _heat_map(attack, matrix), "rows": list(_rows(matrix))}
        for attack, threat, matrix in _matrices(findings)
    ]
    return Section(fill("transfer.html", panels=panels))


def _matrices(findings: Mapping[str, Finding]) -> Iterator[tuple[str, str, Matrix]]:
    """Each attack with its threat and its matrix; all networks were attacked by the same, in the same order."""
    rows = {name: finding.data["attacks"] for name, finding in findings.items()}
    for k, one in enumerate(next(iter(rows.values()))):
        yield one["attack"], one["threat"], {name: own[k] for name, own in rows.items()}


def _heat_map(attack: str, matrix: Matrix) -> str:
    names = [escape_label(name) for name in matrix]
    cells = [[row["cells"].get(target, {}) for target in matrix] for row in matrix.values()]
    shade = {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": [[cell.get("share") for cell in row] for row in cells],
        "zmin": 0,
        "zmax": 1,
        "colorscale": SHADES,
        "colorbar": {"tickformat": ".0%", "thickness": 12, "title": {"text": "wrong", "side": "right"}},
        "text": [[percent(cell.get("share")) for cell in row] for row in cells],
        "texttemplate": "%{text}" if len(names) <= _WRITTEN else "",
        "hoverinfo": "text",
        "hovertext": [
            [_hover(source, target, cell) for target, cell in zip(names, row, strict=True)]
            for source, row in zip(names, cells, strict=True)
        ],
        "xgap": 2,
        "ygap": 2,
    }
    layout = {
        "xaxis": {"type": "category", "title": {"text": "tried on"}},
        "yaxis": {"type": "category", "title": {"text": "crafted on"}, "autorange": "reversed"},
        "showlegend": False,
    }
    label = f"{attack}: the share of inputs that are wrong for each network, by the network that they are crafted on"
    return figure([shade], layout, label, height=max(320, 160 + 44 * len(names)))


def _hover(source: str, target: str, cell: Mapping[str, Any]) -> str:
    if cell.get("share") is None:
        return f"crafted on {source}, tried on {target}: not tried"
    shares = (
        f"<b>{percent(cell['share'])}</b> ({interval(cell['low'], cell['high'])}) of {number(cell['inputs'])} inputs"
    )
    return f"crafted on {source}, tried on {target}<br>{shares} that both get right"


def _rows(matrix: Matrix) -> Iterator[dict[str, Any]]:
    """A line for each pair of networks, the examples' own first."""
    for source, row in matrix.items():
        if "left_out" in row:
            yield {"source": source, "left_out": row["left_out"]}
            continue
        for target, cell in sorted(row["cells"].items(), key=lambda pair: pair[0] != source):
            carried = cell["carried"] / cell["successful"] if cell["successful"] else None
            yield {
                "source": source,
                "target": target,
                "own": source == target,
                "share": percent(cell["share"]),
                "interval": interval(cell["low"], cell["high"]),
                "inputs": number(cell["inputs"]),
                "carried": "–" if carried is None else f"{percent(carried)} of {number(cell['successful'])}",
                "kept": "kept" if row.get("kept") else "new",
            }
