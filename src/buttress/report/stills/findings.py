"""Findings as still pictures, networks side by side: for files that hold no script."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from buttress.audits.base.finding import Finding
from buttress.errors import UserError
from buttress.report.stills.picture import style, to_svg
from buttress.report.stills.planes import Plane, draw_planes
from buttress.report.stills.saliency import draw_saliency
from buttress.report.stills.surface import draw_surfaces
from buttress.report.text import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Data = Mapping[str, Mapping[str, Any]]  # of the findings, by network


def still(findings: Mapping[str, Finding], title: str) -> str:
    """The findings of one kind, by network, as an SVG file's text.

    Raises:
        UserError: for a kind that is not drawn, and for a finding that holds nothing to draw.
    """
    kind = next(iter(findings.values())).kind
    if kind not in STILLS:
        raise UserError(f"no still picture of {kind} is drawn; of these it is: {', '.join(STILLS)}")
    needed = "items" if kind in ("saliency", "surface") else "x"
    for name, finding in findings.items():
        if not finding.data.get(needed):
            raise UserError(f"there is nothing to draw of {name}: {finding.verdict}")
    from matplotlib.figure import Figure

    with style():
        figure = Figure(layout="constrained")
        STILLS[kind](figure, {name: finding.data for name, finding in findings.items()})
        return to_svg(figure, title)


def _latent_boundary(figure: Figure, networks: Data) -> None:
    """Each network's plane under a row of decoded images."""
    planes = {}
    for name, data in networks.items():
        source, target = (str(side) for side in data["pair"])
        others = data.get("other_classes")
        planes[name] = Plane(
            x=data["x"],
            y=data["y"],
            probability=data["probability"],
            axes=(f"along a ∘ w of {data.get('layer', 'a layer')}", "across"),
            classes=(source, target),
            inputs=_inputs(data, str),
            note=f"On {percent(others)} of the plane the answer is neither of the two." if others else "",
            images=[
                (_step(item.get("step", 0.0)), item.get("image"), str(item.get("label", "")))
                for item in data.get("items") or []
            ],
        )
    draw_planes(figure, planes)


def _step(step: float) -> str:
    """How far a decoded image lies from where it began."""
    return f"{float(step):+.2g}".replace("-", "−") if step else "0"


def _boundary(figure: Figure, networks: Data) -> None:
    """Each network's plane of two features."""
    planes = {}
    for name, data in networks.items():
        classes = [str(c) for c in data.get("classes", [])] or ["the first class", "the last class"]
        planes[name] = Plane(
            x=data["x"],
            y=data["y"],
            probability=data["probability"],
            axes=("feature 1", "feature 2"),
            classes=classes,
            inputs=_inputs(data, partial(_class_name, classes)),
        )
    draw_planes(figure, planes)


def _class_name(classes: list[str], label: object) -> str:
    return classes[label] if isinstance(label, int) and 0 <= label < len(classes) else str(label)


def _inputs(data: Mapping[str, Any], name_of: Callable[[Any], str]) -> list[tuple[float, float, str]]:
    points = data.get("points") or {}
    columns = (points.get(key) or [] for key in ("x", "y", "label"))
    return [(x, y, name_of(label)) for x, y, label in zip(*columns, strict=True)]


STILLS: dict[str, Callable[[Figure, Data], None]] = {
    "saliency": draw_saliency,
    "latent-boundary": _latent_boundary,
    "boundary": _boundary,
    "surface": draw_surfaces,
}
