"""What the answers hang on: inputs with their occlusion and gradient maps, and how well the two agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.report.figures import fill
from buttress.report.kinds import Section, renderer
from buttress.report.kinds.examples import embedded_png
from buttress.report.text import number

_LABELS = {
    "correlation": "Correlation of gradient and occlusion map",
    "energy_inside": "Share of the gradient on the salient part",
    "salient_area": "The salient part's share of the image",
    "deletion_gradient": "Deletion area, by the gradient",
    "deletion_occlusion": "Deletion area, by the occlusion map",
    "deletion_chance": "Deletion area, by chance",
}
_PICTURES = ("input", "occlusion", "gradient")


@renderer("saliency")
def saliency(findings: Mapping[str, Finding]) -> Section:
    """One table for all networks, then a gallery of each."""
    known = {name: finding.data for name, finding in findings.items() if finding.data.get("measures")}
    rows = [
        [label, *(_figure(data["measures"].get(key, {})) for data in known.values())] for key, label in _LABELS.items()
    ]
    galleries = {name: [_item(item) for item in data.get("items", [])] for name, data in known.items()}
    first = next(iter(known.values()), {})
    html = fill(
        "saliency.html",
        networks=list(known),
        rows=rows if known else [],
        galleries={name: items for name, items in galleries.items() if items},
        several=len(findings) > 1,
        threshold=f"{first.get('threshold', 0.1):.3g}",
        window=number(first.get("window")),
    )
    return Section(html)


def _figure(measure: Mapping[str, Any]) -> str:
    """A mean with its interval: "0.412 (0.391 to 0.44)"."""
    if measure.get("mean") is None:
        return "–"
    interval = [measure.get("low"), measure.get("high")]
    text = "" if None in interval else f" ({number(interval[0])} to {number(interval[1])})"
    return number(measure["mean"]) + text


def _item(item: Mapping[str, Any]) -> dict[str, Any]:
    images = {what: embedded_png(item.get("images", {}).get(what)) for what in _PICTURES}
    return {
        "truth": item["truth"],
        "answer": item["answer"],
        "right": item["truth"] == item["answer"],
        "images": images,
    }
