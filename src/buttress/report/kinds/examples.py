"""A gallery: each input before and after, and what changed, magnified."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Mapping
from typing import Any

from buttress.audits.base.finding import Finding
from buttress.report.figures import fill
from buttress.report.kinds import Section, renderer
from buttress.report.text import percent

_PNG = "data:image/png;base64,"
_SMALL = 96  # pixels of width below which an image is enlarged pixel by pixel


@renderer("examples")
def examples(findings: Mapping[str, Finding]) -> Section:
    """One gallery per network."""
    galleries = {
        name: {
            "attack": finding.data.get("attack", "the attack"),
            "magnification": f"{finding.data.get('magnification', 1.0):.3g}",
            "items": [_item(item) for item in finding.data.get("items", [])],
        }
        for name, finding in findings.items()
        if finding.data.get("items")
    }
    return Section(fill("examples.html", galleries=galleries, several=len(findings) > 1))


def _item(item: Mapping[str, Any]) -> dict[str, Any]:
    answers = {
        what: {
            "label": item[what]["label"],
            "confidence": percent(item[what].get("confidence")),
            "right": item[what].get("right", item[what]["label"] == item["truth"]),
        }
        for what in ("clean", "adversarial")
    }
    images = {what: embedded_png(item.get("images", {}).get(what)) for what in ("clean", "adversarial", "difference")}
    return {"truth": item["truth"], "images": images, **answers}


def embedded_png(address: object) -> dict[str, Any] | None:
    """An embedded PNG and whether it is small; None for anything else, so that no page of ours fetches a thing."""
    if not isinstance(address, str) or not address.startswith(_PNG):
        return None
    try:
        head = base64.b64decode(address[len(_PNG) :], validate=True)[:24]
        width = struct.unpack(">I", head[16:20])[0]
    except (binascii.Error, struct.error):
        return None
    return {"address": address, "small": width < _SMALL}
