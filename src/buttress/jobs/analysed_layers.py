"""Which layers of a network the usual audit looks at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from buttress.data.dataset import Dataset
from buttress.engine.input_dtype import suited
from buttress.errors import UserError
from buttress.layers.rows import Layout, layouts
from buttress.layers.select import LayerSelection, user_module
from buttress.report.text import some

_OTHERS = "to look at others type --audits layers --audits.layers NAME,NAME"


@dataclass(frozen=True)
class AnalysedLayers:
    """What there is to be looked at.

    Attributes:
        layers: "activations"; "learnable" where there are none that buttress knows; None where there is neither.
        names: of those layers; of all others where there is neither.
        remark: for the user, on what is analysed in place of activations or why layers are left out; or empty.
    """

    layers: str | None
    names: list[str]
    remark: str = ""


def analysed_layers(model: nn.Module, dataset: Dataset) -> AnalysedLayers:
    """What of a network can be looked at, by passes of a few test inputs; nothing of one that is scripted."""
    try:
        user_module(model)
    except UserError as reason:
        return AnalysedLayers(None, [], f"layers are left out of the audit: {reason}")
    if names := _names(model, dataset, "activations"):
        return AnalysedLayers("activations", names)
    missing = "the network has no activations that buttress knows"
    if names := _names(model, dataset, "learnable"):
        description = f"layers with weights are looked at in their stead ({some(names)})"
        return AnalysedLayers("learnable", names, f"{missing}: {description}; {_OTHERS}")
    names = _names(model, dataset, lambda name, module: True)
    description = f"; {_OTHERS}, of {some(names)}" if names else ""
    return AnalysedLayers(
        None, names, f"{missing}, and no layers with weights: layers are left out of the audit{description}"
    )


def _names(model: nn.Module, dataset: Dataset, layers: LayerSelection) -> list[str]:
    """Those that have a value for each input."""
    x = suited(model, dataset.test.take(torch.arange(min(3, len(dataset.test))))[0])
    return [
        name for name, layout in layouts(model, x, layers).items() if isinstance(layout, Layout) or layout.one_at_a_time
    ]
