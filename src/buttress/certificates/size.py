"""Which verifier a network is small enough for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from buttress.certificates.bounds.network import BoundedNetwork
from buttress.certificates.network.recording import record
from buttress.certificates.verifier import Verifier
from buttress.certificates.verifiers.crown import CROWN
from buttress.certificates.verifiers.crown_ibp import CROWNIBP
from buttress.engine.preserved_model import preserved
from buttress.tasks import Task

_UNITS = 20_000  # that activations take, in all layers: CROWN bounds each by a pass back to the input


def usual_verifier(model: nn.Module, x: Tensor, task: Task) -> Verifier:
    """CROWN where the network's activations take at most 20,000 units, else CROWN-IBP.

    Args:
        model: the network.
        x: (N, ...) inputs.
        task: reads its output.

    Raises:
        UserError: for a network that cannot be bounded, naming its layer.
    """
    with preserved(model, "eval", 0, x.device), torch.no_grad():
        network = BoundedNetwork(record(model, x[:1], task.read))
    units = sum(network.graph.shape_of(ref).numel() for ref in network.decided_by)
    return CROWN() if units <= _UNITS else CROWNIBP()
