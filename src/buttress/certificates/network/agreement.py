"""Whether a recorded graph computes what its network does."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from buttress.certificates.network.graph import Graph
from buttress.certificates.network.recording import followed
from buttress.errors import UserError


def compare(
    graph: Graph, x: Tensor, logits: Tensor, run: Callable[[Tensor], Tensor], moved: Tensor | None = None
) -> None:
    """Hold the graph against the network.

    Args:
        graph: as it was recorded at the first input.
        x: (N, ...) inputs.
        logits: (N, K) the network's at the inputs.
        run: the network.
        moved: (N, ...) other inputs, to find a network in whose graph the first input's values are constants.

    Raises:
        UserError: where a recorded pass is not what the network computes, or an input's output depends on others.
    """

    def differ(some: Tensor, others: Tensor) -> bool:
        """Margins are compared: a log-softmax at the end is no part of the graph."""
        apart = (some - some[:, :1]) - (others - others[:, :1])
        return not bool(apart.abs().amax() <= 1e-3 * others.abs().amax().clamp(min=1e-3))

    if differ(run(x), logits):
        raise UserError("cannot certify a network that computes something else each time: take out what is random")
    points = x if moved is None else torch.cat([x, moved])
    together = run(points)
    if differ(run(x[:1]), logits[:1]) or differ(together[: len(x)], logits):
        raise UserError("cannot certify a network whose output for an input depends on the other inputs of the batch")
    with followed():
        recorded = graph.run(points)
    if differ(recorded, together):
        raise UserError(
            "cannot certify a network whose operations are not those of torch alone: what it was seen to compute for "
            "one input is not what it computes for another (as where values go through NumPy)"
        )
