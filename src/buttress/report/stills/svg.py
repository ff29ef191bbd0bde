"""Still pictures: SVG files that stand alone, on white, without a script or a thing to fetch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree import ElementTree

from buttress.report.kinds.examples import embedded

MARK = "<!-- Drawn by buttress. -->"
INK, FAINT, LINE = "#20242b", "#5d6470", "#d9dce1"
DASHES = ("", "7 4", "2 3", "9 3 2 3", "12 4", "12 3 2 3")
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"

Box = tuple[float, float, float, float]  # left, top, width, height


class Canvas:
    """A picture that is drawn on.

    Args:
        width: in pixels, like all lengths.
        height: likewise.
        title: what it shows, for readers who hear the page.
    """

    def __init__(self, width: float, height: float, title: str) -> None:
        size = {"width": told(width), "height": told(height), "viewBox": f"0 0 {told(width)} {told(height)}"}
        look = {"font-family": _FONT, "font-size": "12", "role": "img"}
        self.root = ElementTree.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", **size, **look})
        ElementTree.SubElement(self.root, "title").text = _readable(title)
        self.rect((0, 0, width, height), "#ffffff")

    def put(self, kind: str, **attributes: object) -> ElementTree.Element:
        """An element; of its attributes' names, underscores are hyphens, and numbers are rounded."""
        plain = {name.replace("_", "-"): told(value) for name, value in attributes.items() if value is not None}
        return ElementTree.SubElement(self.root, kind, plain)

    def text(
        self,
        x: float,
        y: float,
        said: str,
        *,
        anchor: str = "start",
        fill: str = INK,
        size: float = 12,
        bold: bool = False,
        upwards: bool = False,
    ) -> None:
        """A line of text; ``anchor`` (start, middle, end) is what of it lies at (x, y)."""
        turn = f"rotate(-90 {told(x)} {told(y)})" if upwards else None
        settings: dict[str, object] = {"text_anchor": anchor, "fill": fill, "font_size": size, "transform": turn}
        self.put("text", x=x, y=y, **settings, font_weight="600" if bold else None).text = _readable(said)

    def rect(self, box: Box, fill: str, stroke: str | None = None) -> None:
        """A rectangle."""
        left, top, width, height = box
        self.put("rect", x=left, y=top, width=width, height=height, fill=fill, stroke=stroke)

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float = 1, dash: str = "") -> None:
        """A line through points."""
        path = " ".join(f"{told(x)},{told(y)}" for x, y in points)
        look: dict[str, object] = {"stroke_width": width, "stroke_dasharray": dash or None}
        self.put("polyline", points=path, fill="none", stroke=colour, stroke_linejoin="round", **look)

    def image(self, address: object, box: Box, smooth: bool = False) -> None:
        """An embedded PNG, stretched to its box; an empty frame for anything else, so that nothing is fetched."""
        left, top, width, height = box
        if embedded(address) is None:
            self.rect((left + 0.5, top + 0.5, width - 1, height - 1), "#f4f5f6", LINE)
            return
        style = None if smooth else "image-rendering: pixelated"
        place: dict[str, object] = {"x": left, "y": top, "width": width, "height": height}
        self.put("image", href=address, preserveAspectRatio="none", style=style, **place)

    def render(self) -> str:
        """The file's text."""
        return f"{MARK}\n{ElementTree.tostring(self.root, encoding='unicode')}\n"


class Plot:
    """A frame with two axes on a canvas.

    Args:
        canvas: drawn on.
        box: the frame.
        x: lowest and highest value of the horizontal axis.
        y: likewise of the vertical one.
    """

    def __init__(self, canvas: Canvas, box: Box, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.canvas, self.box, self.x, self.y = canvas, box, x, y

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a pair of values lies on the canvas."""
        left, top, width, height = self.box
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1)
        return left + across * width, top + (1 - up) * height

    def axes(self, x_title: str, y_title: str, grid: bool) -> None:
        """The frame, round values along it and what they mean."""
        left, top, width, height = self.box
        for value in ticks(*self.x, 6):
            place, _ = self.at(value, self.y[0])
            self.canvas.line([(place, top + height), (place, top + height + 4)], FAINT)
            self.canvas.text(place, top + height + 17, _tick(value), anchor="middle", fill=FAINT, size=11)
        for value in ticks(*self.y, 5):
            _, place = self.at(self.x[0], value)
            self.canvas.line(
                [(left, place), (left + width, place)] if grid else [(left - 4, place), (left, place)], LINE
            )
            self.canvas.text(left - 7, place + 4, _tick(value), anchor="end", fill=FAINT, size=11)
        self.canvas.put("rect", x=left, y=top, width=width, height=height, fill="none", stroke=FAINT)
        self.canvas.text(left + width / 2, top + height + 34, x_title, anchor="middle", fill=FAINT)
        if y_title:
            self.canvas.text(left - 38, top + height / 2, y_title, anchor="middle", fill=FAINT, upwards=True)


def ticks(low: float, high: float, count: int) -> list[float]:
    """At most ``count`` + 1 round values between two: multiples of 1, 2, 2.5 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) + 0.0 for index in range(first, last + 1)]


def wide(text: str, size: float = 12) -> float:
    """About how wide a text is."""
    return 0.56 * size * len(text)


def told(value: object) -> str:
    """A number with at most two digits after the point, everything else as text."""
    if not isinstance(value, int | float):
        return str(value)
    return f"{round(value, 2) + 0.0:g}" if abs(value) < 1000 else f"{value:.0f}"


def _tick(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _readable(text: str) -> str:
    """Without what XML has no place for."""
    return "".join(letter for letter in text if letter.isprintable())
