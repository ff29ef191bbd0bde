"""Whether the graph of a pass shows a network's parameters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def parameters_require_grad(model: nn.Module, wanted: bool) -> Iterator[None]:
    """All parameters have gradients meanwhile, frozen ones too; or none, and what has one depends on the input."""
    others = [p for p in model.parameters() if p.is_floating_point() and p.requires_grad is not wanted]
    try:
        for parameter in others:
            parameter.requires_grad_(wanted)
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(not wanted)
