"""Gradients of several values of one output, for the price of a single forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from buttress.attacks.passes import Passes, Value, _slope


def gradients(passes: Passes, x: Tensor, values: Sequence[Value]) -> tuple[Tensor, ...]:
    """Output, and for each value its (N, ...) gradient with respect to ``x``; with several draws the means over them.

    Each is what `Passes.gradient` would give for that value, from the same draws for all of them.

    Args:
        passes: run the model.
        x: (N, ...) points.
        values: functions of the output, (N, C) -> (N,).

    Raises:
        UserError: when the output does not depend differentiably on the input.
    """
    outputs, grads = [], []
    for _ in range(passes.draws):
        start = x.detach().clone().requires_grad_()
        output = passes._run(start, passes.precision)
        slopes = [_slope(output, value, None)[0] for value in values]
        last = len(slopes) - 1
        grads.append([passes._back(output, start, slope, keep=k < last) for k, slope in enumerate(slopes)])
        outputs.append(output.detach())
    if passes.draws == 1:
        return outputs[0], *grads[0]
    return passes.task.mean(outputs), *(torch.stack(parts).mean(0) for parts in zip(*grads, strict=True))
