"""Which layers can be regularised in training, and why others cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from buttress.ambient_state import in_usual_state
from buttress.layers.capture import layer_names
from buttress.layers.places import Place
from buttress.layers.rows import PART, Layout, Unaligned, layouts
from buttress.layers.select import merge
from buttress.layers.told_apart import Origins, another_meaning, look, look_in_training

_SAMPLE, _BATCHES = 32, 4  # inputs of a batch that shows whether layers can be regularised, and how many of these

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
        places: for each layer, where every layer is called in a pass in evaluation that runs it.
        skipped: those that some passes in training, or some batches, do not run.
    """

    layouts: dict[str, Layout]
    reasons: dict[str, str]
    places: dict[str, Mapping[str, Place]]
    skipped: set[str]


def sampled_rows(count: int) -> list[Tensor]:
    """Which of so many inputs to look at, in batches: by one alone a network that takes routes may hide some."""
    rows = torch.linspace(0, count - 1, min(count, _BATCHES * _SAMPLE)).long()
    batches = [batch for batch in torch.split(rows, _SAMPLE) if len(batch) > 1]
    return batches or [rows]


def names_in(model: nn.Module, batches: Sequence[Tensor], layers: Sequence[str]) -> list[str]:
    """The layers that names and patterns mean, each once; those of one pattern in order of execution.

    Args:
        model: the network.
        batches: (N, ...) inputs in each.
        layers: names and patterns.

    Raises:
        UserError: for one that no batch has a layer of, with the nearest names there are.
    """
    found: list[str] = []
    for layer in layers:
        matching: list[str] = []
        for batch in batches:
            merge(matching, layer_names(model, batch, [layer], check=False))
        found += matching or layer_names(model, torch.cat([*batches]), [layer])
    return [*dict.fromkeys(found)]


@in_usual_state
def compared_modes(model: nn.Module, batches: Sequence[Tensor], layers: Sequence[str]) -> ComparedModes:
    """Look at layers in passes in evaluation and in training, which leave no trace; at each in the first that runs it.

    Args:
        model: the network.
        batches: (N, ...) inputs, 2 or more in each.
        layers: names.
    """
    found, runs = ComparedModes({}, {}, {}, set()), [look(model, batch, (), "eval").places for batch in batches]
    left = list(layers)
    for batch, places in zip(batches, runs, strict=True):
        if called := [layer for layer in left if layer in places]:
            _compare(model, batch, called, found)
            left = [layer for layer in left if layer not in called]
    found.reasons.update(dict.fromkeys(left, f"it {PART.reason}"))
    found.skipped.update(layer for layer in layers if any(layer not in places for places in runs))
    return found


def _compare(model: nn.Module, x: Tensor, layers: Sequence[str], found: ComparedModes) -> None:
    """Add what one batch shows of layers that it runs."""
    where = layouts(model, x, list(layers))
    usual = look(model, x, layers, "eval")
    origins = Origins(usual)
    for layer in layers:
        found.places[layer] = usual.places
        layout = where.get(layer, PART)
        if isinstance(layout, Unaligned):
            found.reasons[layer] = f"it {layout.reason}"
        else:
            found.layouts[layer] = layout
    ran: set[str] = set()
    known = [layer for layer in layers if layer in found.layouts]
    for training in look_in_training(model, x, layers):
        origins.note(training)
        for layer in known:
            value = training.values.get(layer)
            reason = another_meaning(layer, usual.places, training.places) if layer in usual.places else None
            if reason is not None:
                found.reasons.setdefault(layer, reason)
            elif value is None and layer not in training.places:
                found.skipped.add(layer)
            elif value is None or not found.layouts[layer].fits(value, len(x)):
                found.reasons.setdefault(layer, NOT_RUN if value is None else RESIZED)
            elif not value.requires_grad:
                found.reasons.setdefault(layer, CONSTANT)
            else:
                ran.add(layer)
    for layer in known:
        if layer not in ran:
            found.reasons.setdefault(layer, NOT_RUN)
    for layer, reason in origins.reasons(model, x).items():
        found.reasons.setdefault(layer, reason)


def not_regularisable(model: nn.Module, batches: Sequence[Tensor], layers: Sequence[str]) -> dict[str, str]:
    """Those of the layers that AT-LR refuses, each with the reason; told by passes in evaluation and in training.

    Args:
        model: the network; it comes back as it was.
        batches: (N, ...) inputs, 2 or more in each.
        layers: names.
    """
    reasons = compared_modes(model, batches, layers).reasons
    return {layer: reasons[layer] for layer in layers if layer in reasons}
