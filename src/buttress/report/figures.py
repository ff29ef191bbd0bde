"""Interactive figures as data: plotly draws them in the reader's browser, in the colours of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from buttress.report.text import escape_label

# Distinct for colour-blind readers too, and of a lightness that is visible on white and on near-black.
COLOURS = ("#2f7ed8", "#e07b1a", "#1a9e82", "#b457c9", "#d9486e", "#8a7f2d", "#5b6ee1", "#6f7885")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "cross", "star")
GREY = "#868d98"
SHADES = [[0.0, "#f4f6f9"], [1.0, "#2f7ed8"]]  # of shares from 0 to 1

Trace = dict[str, Any]
_BUTTONS = 3  # in a row; more are a list that opens


@cache
def _environment() -> Any:
    """The page's templates; whatever they are given is escaped."""
    import jinja2

    here = Path(__file__).parent / "templates"
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(here, encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def fill(template: str, **values: Any) -> str:
    """The HTML of a template of ours."""
    return str(_environment().get_template(template).render(**values))


def figure(traces: Sequence[Trace], layout: Mapping[str, Any], label: str, height: int = 400) -> str:
    """HTML of a figure; texts in it are escaped by `escape_label` already.

    Args:
        traces: plotly traces as plain data.
        layout: plotly's layout; fonts and colours of axes come from the page.
        label: what it shows, for readers who hear the page.
        height: in pixels.
    """
    content = {"data": list(traces), "layout": {**layout, "height": height}}
    return fill("figure.html", content=content, label=label)


def buttons(names: Sequence[str], groups: Sequence[int | None], titles: Sequence[str] = ()) -> dict[str, Any]:
    """The part of a layout by which the reader chooses one group of the traces; the first is shown until then.

    The traces of the other groups must have ``visible`` False.

    Args:
        names: of the groups, on the buttons.
        groups: of each trace, the number of its group; None for one that is always shown.
        titles: of the vertical axis, one for each group, where it changes with them.
    """
    entries = []
    for k, name in enumerate(names):
        shown = {"visible": [group is None or group == k for group in groups]}
        entries.append(
            {
                "label": escape_label(name),
                "method": "update",
                "args": [shown, {"yaxis.title.text": escape_label(titles[k])} if titles else {}],
            }
        )
    place = {"x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "pad": {"t": 0, "b": 6}}
    look = {"type": "buttons", "direction": "right"} if len(names) <= _BUTTONS else {"type": "dropdown"}
    return {"updatemenus": [{**look, "buttons": entries, **place}]}


def pick(choices: Sequence[str], index: int) -> str:
    """One of a few colours, dashes or symbols, starting over when they run out."""
    return choices[index % len(choices)]


def rgba(colour: str, alpha: float) -> str:
    """A "#rrggbb" colour, seen through."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def line_name(network: str, what: str, several: bool) -> str:
    """A legend entry: the network is named only where there are several."""
    return escape_label(f"{network} · {what}" if several else what)
