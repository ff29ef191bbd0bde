"""What tells networks and tensors apart: short texts that are equal only for equal content."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from buttress.engine.fingerprint import plain
from buttress.engine.preserved_model import Model


def digest(model: Model) -> str:
    """What tells two networks apart: their class and all weights and buffers; for other callables what they do."""
    if not isinstance(model, nn.Module):
        return hashlib.sha256(repr(plain(model)).encode()).hexdigest()
    found = hashlib.sha256(type(model).__qualname__.encode())
    for name, value in model.state_dict().items():
        found.update(name.encode() + digest_of(value).encode())
    return found.hexdigest()


def digest_of(*values: object) -> str:
    """The same for tensors, by their bytes; of several values one digest of all in this order."""
    if len(values) != 1:
        return hashlib.sha256("".join(map(digest_of, values)).encode()).hexdigest()
    (value,) = values
    if not isinstance(value, Tensor):  # what a module keeps as extra state
        return repr(value)
    return hashlib.sha256(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()).hexdigest()
