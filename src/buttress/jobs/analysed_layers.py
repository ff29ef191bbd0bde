"""Which layers of a network the usual audit looks at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from buttress.data.dataset import Dataset
from buttress.errors import UserError
from buttress.layers.capture import layer_names
from buttress.layers.select import LayerSelection, user_module
from buttress.model_call import input_dtype
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
    """What of a network can be looked at, by passes of one test input; nothing of one that is compiled."""
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
    x = dataset.test.take(torch.arange(1))[0]
    try:
        return layer_names(model, x.to(input_dtype(model)), layers)
    except UserError:  # none
        return []
