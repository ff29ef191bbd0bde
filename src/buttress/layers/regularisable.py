"""Which layers can be regularised in training, and why others cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from buttress.ambient_state import in_usual_state
from buttress.layers.places import Place
from buttress.layers.rows import PART, Layout, Unaligned, layouts
from buttress.layers.told_apart import Origins, another_meaning, look, look_in_training

CONSTANT = (
    "its value carries no gradient (it is computed in a reentrant checkpoint, an autograd.Function or a frozen part)"
)
NOT_RUN = "it does not run in training passes for every input"
RESIZED = "in training its value is of another size for each input than in evaluation, or of some inputs alone"


class ComparedModes(NamedTuple):
    """What passes in evaluation and in training show of layers.

    Attributes:
        layouts: where the inputs are in the value of those that can be regularised.
        reasons: why others cannot.
        places: where each layer of the network is called in evaluation.
        skipped: those that some training passes do not run.
    """

    layouts: dict[str, Layout]
    reasons: dict[str, str]
    places: Mapping[str, Place]
    skipped: set[str]


@in_usual_state
def compared_modes(model: nn.Module, x: Tensor, layers: Sequence[str]) -> ComparedModes:
    """Look at layers in a pass in evaluation and in some in training, which leave no trace.

    Args:
        model: the network.
        x: (N, ...) inputs, 2 or more.
        layers: names.
    """
    where = layouts(model, x, list(layers))
    usual = look(model, x, layers, "eval")
    found, origins = ComparedModes({}, {}, usual.places, set()), Origins(usual)
    for layer in layers:
        layout = where.get(layer, PART)
        if isinstance(layout, Unaligned):
            found.reasons[layer] = f"it {layout.reason}"
        else:
            found.layouts[layer] = layout
    ran: set[str] = set()
    for training in look_in_training(model, x, layers):
        origins.note(training)
        for layer, layout in found.layouts.items():
            value = training.values.get(layer)
            reason = another_meaning(layer, found.places, training.places) if layer in found.places else None
            if reason is not None:
                found.reasons.setdefault(layer, reason)
            elif value is None and layer not in training.places:
                found.skipped.add(layer)
            elif value is None or not layout.fits(value, len(x)):
                found.reasons.setdefault(layer, NOT_RUN if value is None else RESIZED)
            elif not value.requires_grad:
                found.reasons.setdefault(layer, CONSTANT)
            else:
                ran.add(layer)
    for layer in found.layouts.keys() - ran:
        found.reasons.setdefault(layer, NOT_RUN)
    for layer, reason in origins.reasons(model, x).items():
        found.reasons.setdefault(layer, reason)
    return found


def not_regularisable(model: nn.Module, x: Tensor, layers: Sequence[str]) -> dict[str, str]:
    """Those of the layers that AT-LR refuses, each with the reason; told by passes in evaluation and in training.

    Args:
        model: the network; it comes back as it was.
        x: (N, ...) inputs, 2 or more.
        layers: names.
    """
    reasons = compared_modes(model, x, layers).reasons
    return {layer: reasons[layer] for layer in layers if layer in reasons}
