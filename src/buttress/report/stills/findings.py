"""Findings as still pictures, networks side by side: for files that hold no script."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.errors import UserError
from buttress.report.stills.planes import Plane, planes
from buttress.report.stills.svg import FAINT, INK, Box, Canvas, wide
from buttress.report.text import percent

_CELL, _SPACE, _HEAD = 64.0, 8.0, 52.0  # of the images and of the lines above them
_IMAGE = 34.0  # side of an image in a strip
_RIGHT, _WRONG = "#1a7f5a", "#b3261e"

Data = Mapping[str, Mapping[str, Any]]  # of the findings, by network


def still(findings: Mapping[str, Finding], title: str) -> str:
    """The findings of one kind, by network, as an SVG file's text.

    Raises:
        UserError: for a kind that is not drawn, and for a finding that holds nothing to draw.
    """
    kind = next(iter(findings.values())).kind
    if kind not in STILLS:
        raise UserError(f"no still picture of {kind} is drawn; of these it is: {', '.join(STILLS)}")
    needed = "items" if kind == "saliency" else "x"
    for name, finding in findings.items():
        if not finding.data.get(needed):
            raise UserError(f"there is nothing to draw of {name}: {finding.verdict}")
    return STILLS[kind]({name: finding.data for name, finding in findings.items()}, title)


def _saliency(networks: Data, title: str) -> str:
    """A line for each input: the image, and each network's maps and answer."""
    items = {name: data["items"] for name, data in networks.items()}
    inputs = [[item["images"]["input"] for item in found] for found in items.values()]
    shared = all(mine == inputs[0] for mine in inputs)
    maps = ("occlusion", "gradient") if shared else ("input", "occlusion", "gradient")
    every = [item for found in items.values() for item in found]
    side = 30 + max(24.0, *(wide(str(item["truth"])) for item in every))  # where the images begin
    first = side + (_CELL + 2 * _SPACE if shared else 0)
    answers = max(wide(f"✓ {item['answer']}") for item in every)
    panel = max(len(maps) * (_CELL + _SPACE) + max(answers, 44), *(wide(name, 13) for name in networks)) + 20
    lines = max(len(found) for found in items.values())
    canvas = Canvas(first + panel * len(networks), _HEAD + lines * (_CELL + _SPACE) + 4, title)
    canvas.text(16, 42, "true", fill=FAINT)
    if shared:
        canvas.text(side + _CELL / 2, 42, "input", anchor="middle", fill=FAINT)
        for line, address in enumerate(inputs[0]):
            canvas.image(address, (side, _HEAD + line * (_CELL + _SPACE), _CELL, _CELL))
    longest = max(items.values(), key=len)
    for line, item in enumerate(longest):
        canvas.text(16, _HEAD + line * (_CELL + _SPACE) + _CELL / 2 + 4, str(item["truth"]))
    for column, (name, found) in enumerate(items.items()):
        _maps(canvas, first + column * panel, name, found, maps)
    return canvas.render()


def _maps(canvas: Canvas, left: float, name: str, items: Sequence[Mapping[str, Any]], maps: Sequence[str]) -> None:
    """One network's images of every input."""
    end = left + len(maps) * (_CELL + _SPACE)
    canvas.text(left, 20, name, bold=True, size=13)
    canvas.text(end, 42, "answer", fill=FAINT)
    for place, what in enumerate(maps):
        x = left + place * (_CELL + _SPACE)
        canvas.text(x + _CELL / 2, 42, what, anchor="middle", fill=FAINT)
        for line, item in enumerate(items):
            canvas.image(item["images"][what], (x, _HEAD + line * (_CELL + _SPACE), _CELL, _CELL))
    for line, item in enumerate(items):
        sign, colour = ("✓", _RIGHT) if item["truth"] == item["answer"] else ("✗", _WRONG)
        y = _HEAD + line * (_CELL + _SPACE) + _CELL / 2 + 4
        canvas.text(end, y, f"{sign} {item['answer']}", fill=colour)


def _latent_boundary(networks: Data, title: str) -> str:
    """Each network's plane under a strip of decoded images."""
    found = {}
    for name, data in networks.items():
        source, target = (str(side) for side in data["pair"])
        others = data.get("other_classes")
        found[name] = Plane(
            x=data["x"],
            y=data["y"],
            probability=data["probability"],
            axes=(f"along a ∘ w of {data.get('layer', 'a layer')}", "across"),
            classes=(source, target),
            inputs=_inputs(data, str),
            note=f"On {percent(others)} of the plane the answer is neither of the two." if others else "",
            strip=partial(_strip, items=data.get("items") or [], target=target),
        )
    most = max(len(data.get("items") or []) for data in networks.values())
    return planes(found, title, strip=(most * (_IMAGE + 6), _IMAGE + 42 if most else 0.0))


def _strip(canvas: Canvas, box: Box, items: Sequence[Mapping[str, Any]], target: str) -> None:
    """Decoded images with the step that led to each, and the answer."""
    left, top, width, _ = box
    for index, item in enumerate(items):
        middle = left + (index + 0.5) * width / len(items)
        canvas.image(item.get("image"), (middle - _IMAGE / 2, top, _IMAGE, _IMAGE))
        step, answer = float(item.get("step", 0.0)), str(item.get("label", ""))
        told = f"{step:+.2g}".replace("-", "−") if step else "0"
        canvas.text(middle, top + _IMAGE + 13, told, anchor="middle", size=10, fill=FAINT)
        colour = _WRONG if answer == target else INK
        canvas.text(middle, top + _IMAGE + 26, answer, anchor="middle", size=11, fill=colour)


def _boundary(networks: Data, title: str) -> str:
    """Each network's plane of two features."""
    found = {}
    for name, data in networks.items():
        classes = [str(c) for c in data.get("classes", [])] or ["the first class", "the last class"]
        found[name] = Plane(
            x=data["x"],
            y=data["y"],
            probability=data["probability"],
            axes=("feature 1", "feature 2"),
            classes=classes,
            inputs=_inputs(data, partial(_named, classes)),
        )
    return planes(found, title)


def _named(classes: Sequence[str], label: object) -> str:
    return classes[label] if isinstance(label, int) and 0 <= label < len(classes) else str(label)


def _inputs(data: Mapping[str, Any], named: Callable[[Any], str]) -> list[tuple[float, float, str]]:
    points = data.get("points") or {}
    columns = (points.get(key) or [] for key in ("x", "y", "label"))
    return [(x, y, named(label)) for x, y, label in zip(*columns, strict=True)]


STILLS: dict[str, Callable[[Data, str], str]] = {
    "saliency": _saliency,
    "latent-boundary": _latent_boundary,
    "boundary": _boundary,
}
