"""Whether the rest of a network goes on with another value of a layer."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from buttress.layers.measures import row_norms, to_rows
from buttress.layers.replacement import CannotReplaceError
from buttress.random import generator
from buttress.threat import per_row

OutputOf = Callable[[Tensor], Tensor]


def moves(output_of: OutputOf, clean: Tensor, attacked: Tensor) -> bool:
    """Whether the output moves with a layer: with its attacked value, or with noise of its own size.

    Or, by less than rounding shows, if a gradient leads to it.

    Args:
        output_of: the output of the clean pass for another value of the layer.
        clean: (n, ...) the layer's value.
        attacked: (n, ...) its value for attacked inputs.

    Raises:
        CannotReplaceError: where that cannot be told.
    """
    with torch.no_grad():
        before = output_of(clean)
        if any(not torch.equal(before, output_of(value)) for value in (_beside(clean), attacked)):
            return True
    return leads(output_of, clean)


def leads(output_of: OutputOf, clean: Tensor) -> bool:
    """Whether a gradient leads from the output to a layer's value.

    Raises:
        CannotReplaceError: where checkpointing lets none through.
    """
    probe = _beside(clean).requires_grad_()
    with torch.enable_grad():
        output = output_of(probe)
        if not output.requires_grad:
            return False
        weights = torch.randn(output.shape[1:], generator=generator(0, "weights")).to(output)
        try:
            (gradient,) = torch.autograd.grad((output * weights).sum(), probe, allow_unused=True)
        except RuntimeError as error:
            if "checkpoint" not in str(error):
                raise
            raise CannotReplaceError("runs in a reentrant checkpoint: call it with use_reentrant=False") from None
    return gradient is not None and bool(gradient.any())


def _beside(clean: Tensor) -> Tensor:
    """(n, ...) the value with noise of each input's own size, of the same draws: no batch changes an input's answer."""
    wide = clean.detach().to(torch.promote_types(clean.dtype, torch.float32))
    noise = torch.randn(wide.shape[1:], generator=generator(0, "reach"), dtype=wide.dtype).to(wide.device)
    size = row_norms(to_rows(wide)) / math.sqrt(max(1, wide[:1].numel()))
    return wide + noise * per_row(torch.where(size > 0, size, 1.0), wide)
