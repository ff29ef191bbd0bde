"""Which layers of a network are looked at where nobody names them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from buttress.audits import Audit
from buttress.audits.layers import Layers
from buttress.data.dataset import Dataset
from buttress.engine.input_dtype import suited
from buttress.errors import UserError
from buttress.layers.rows import Layout, layouts
from buttress.layers.select import LayerSelection, user_module
from buttress.report.text import some

_NO_ACTIVATIONS = "the network has no activations that buttress knows"


@dataclass(frozen=True)
class AnalysedLayers:
    """What there is to be looked at.

    Attributes:
        layers: "activations"; "learnable" where there are none that buttress knows; None where there is neither.
        names: of those layers; of all others where there is neither.
        reason: why it is not activations; or empty.
    """

    layers: str | None
    names: list[str]
    reason: str = ""

    @property
    def remark(self) -> str:
        """For the user, on what is analysed in place of activations or why layers are left out; or empty."""
        if self.layers == "activations":
            return ""
        others = "to look at others type --audits layers --audits.layers NAME,NAME"
        if self.layers is not None:
            return f"{self.reason}: layers with weights are looked at in their stead ({some(self.names)}); {others}"
        described = f"; {others}, of {some(self.names)}" if self.names else ""
        return f"layers are left out of the audit: {self.reason}{described}"


def analysed_layers(model: nn.Module, dataset: Dataset) -> AnalysedLayers:
    """What of a network can be looked at, by passes of a few test inputs; nothing of one that is scripted."""
    try:
        user_module(model)
    except UserError as reason:
        return AnalysedLayers(None, [], str(reason))
    if names := _names(model, dataset, "activations"):
        return AnalysedLayers("activations", names)
    if names := _names(model, dataset, "learnable"):
        return AnalysedLayers("learnable", names, _NO_ACTIVATIONS)
    names = _names(model, dataset, lambda name, module: True)
    return AnalysedLayers(None, names, f"{_NO_ACTIVATIONS}, and no layers with weights")


def fitting(questions: Sequence[Audit], model: nn.Module, dataset: Dataset) -> tuple[list[Audit], str]:
    """The questions, those about activations put to the layers that there are; and a remark where these are others.

    Raises:
        UserError: where there are none.
    """
    chosen = [isinstance(question, Layers) and question.layers == "activations" for question in questions]
    if not any(chosen):
        return list(questions), ""
    analysed = analysed_layers(model, dataset)
    if analysed.layers is None:
        of = f": name some by --audits.layers, of {some(analysed.names)}" if analysed.names else ""
        raise UserError(f"the audit layers finds none, for {analysed.reason}{of}")
    fitted = [
        replace(question, layers=analysed.layers) if about_activations and isinstance(question, Layers) else question
        for question, about_activations in zip(questions, chosen, strict=True)
    ]
    return fitted, analysed.remark


def _names(model: nn.Module, dataset: Dataset, layers: LayerSelection) -> list[str]:
    """Those that have a value for each input."""
    x = suited(model, dataset.test.take(torch.arange(min(3, len(dataset.test))))[0])
    return [
        name for name, layout in layouts(model, x, layers).items() if isinstance(layout, Layout) or layout.one_at_a_time
    ]
