"""What to do about weights that do not fit a network, as far as their names tell how they came to be."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn

from buttress.models.weight_matching import NORMALISATION, Fit

_IN_CODE = "load them in the function that makes the network, and leave --weights out"
_BY_NAME = {  # names that are only in the file, and what they are of
    r"(^|[._])lora_\w+": "they are of adapters (LoRA): merge them before saving, as PEFT does by merge_and_unload()",
    r"(^|\.)parametrizations\.|weight_(g|v|orig|mask|u)$": "they are of a layer with a parametrisation (weight norm, "
    "pruning): create the network with it, or remove it before saving (torch.nn.utils)",
    r"(^|[._])(kernel|moving_mean)(:0)?$": f"Keras and Flax name them so, with axes in another order: {_IN_CODE}",
    r"_packed_params|\.(integers|SCB|qweight|weight_scale\w*|absmax)$": f"they are of a quantised network: {_IN_CODE}",
}


def advice(fit: Fit) -> str:
    """What to do about weights that do not fit.

    Args:
        fit: of the file's tensors to the network, the best that there is.
    """
    if sizes := fit.other_head():
        return (
            f"they are of a network with {sizes[0]} outputs: create it with as many, or have its last layer trained "
            'anew by --head new (head="new")'
        )
    if fit.mistyped:
        return (
            "weights are floating-point numbers, and those of quantised networks have a scale beside: save them as such"
        )
    if fit.untied:
        return "create the network as it was trained, with weights of their own for both"
    if fit.missing and all(re.search(r"running_(mean|var)$", name) for name in fit.missing):
        return "parameters alone were saved: save network.state_dict(), which has BatchNorm's statistics as well"
    if fit.unexpected and all(re.fullmatch(r"(.*\.)?(arr_)?\d*", path) for path in fit.unexpected):
        return "they have no names: save network.state_dict(), not a list or a vector of its values"
    if fit.unexpected and not fit.missing and all(NORMALISATION.search(path) for path in fit.unexpected):
        key = fit.key if fit.prefix else "KEY"
        return (
            "inputs were normalised by these in training: make that part of the network, or leave them out by "
            f"--weights-key {key} and give --normalise MEAN/STD"
        )
    for pattern, what in _BY_NAME.items():
        if any(re.search(pattern, path) for path in fit.unexpected):
            return what
    return f"{fit.alike}create the model as it was trained"


def layers_out_of_sight(model: nn.Module) -> str | None:
    """The first plain list, tuple or dict of a module that holds layers whose weights are none of the model's.

    torch neither saves nor moves them, so that they keep their initial weights.
    """
    known = {id(parameter) for parameter in model.parameters()}
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute.startswith("_") or not isinstance(value, list | tuple | dict):
                continue
            layers = [part for part in _values(value) if isinstance(part, nn.Module)]
            if any(id(parameter) not in known for layer in layers for parameter in layer.parameters()):
                return f"{name}.{attribute}" if name else attribute
    return None


def _values(holder: list[object] | tuple[object, ...] | dict[object, object]) -> Iterator[object]:
    yield from holder.values() if isinstance(holder, dict) else holder
