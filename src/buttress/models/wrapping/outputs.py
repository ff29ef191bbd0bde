"""Adapters for models whose output is not a plain tensor of logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from buttress.errors import UserError
from buttress.model_call import output_parts


class Output(nn.Module):
    """Picks the logits out of a model that returns a tuple, a list, a dict, a named tuple or a dataclass.

    Args:
        model: the network; kept as ``.model``.
        key: the position in the tuple or list, or the key or name; a position may come as text (``"0"``).
        training_only: a tensor is returned as it is: the network returns more in training mode only, such as the
            logits of auxiliary heads.

    Raises:
        UserError: when called, if the output holds nothing of that key, or what it holds is no tensor.
    """

    def __init__(self, model: nn.Module, key: int | str, training_only: bool = False) -> None:
        super().__init__()
        self.model = model
        self.key = key
        self.training_only = training_only

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The chosen part of the model's output."""
        output = self.model(*args, **kwargs)
        if self.training_only and isinstance(output, Tensor):
            return output
        parts = output_parts(output)
        if parts is None:
            name = type(output).__name__
            raise UserError(f"output {self.key!r} cannot be picked, for the model returns a {name}: leave the key out")
        part = self._of(output, parts)
        if not isinstance(part, Tensor):
            raise UserError(f"output {self.key!r} of the model is a {type(part).__name__}, not a tensor of logits")
        return part

    def _of(self, output: object, parts: dict[Any, Any]) -> Any:
        position = _position(self.key)
        for key in (self.key, position):
            if key is not None and key in parts:
                return parts[key]
        if isinstance(output, tuple | list):
            if position is not None and -len(output) <= position < len(output):
                return output[position]
            what = f"a {type(output).__name__} of {len(output)}"
            raise UserError(f"the model returns {what}: give a position from 0 to {len(output) - 1}; got {self.key!r}")
        kind = "dict" if isinstance(output, Mapping) else type(output).__name__
        keys = ", ".join(repr(key) for key in parts)
        raise UserError(f"the model returns a {kind} without {self.key!r}: its keys are {keys}")


class FromProbabilities(nn.Module):
    """Reads a model that returns probabilities as one that returns logits: their logarithm.

    Probabilities are clamped from below at the dtype's smallest normal number, so that zero has a finite logit (and
    no gradient). One probability p per input (a binary model) gives the one logit log p - log(1 - p).

    Args:
        model: the network, whose output is (N, classes) probabilities, (N, 1) or (N,); kept as ``.model``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """The logits, of the shape of the model's output."""
        p: Tensor = self.model(x)
        tiny = torch.finfo(p.dtype).tiny
        log_p = p.clamp_min(tiny).log()
        return log_p - (1 - p).clamp_min(tiny).log() if p.ndim == 1 or p.shape[1:] == (1,) else log_p


def _position(key: int | str) -> int | None:
    if isinstance(key, int):
        return key
    return int(key) if key.removeprefix("-").isdecimal() else None
