"""Bounds of a network's margins on a training batch, with gradients for its weights."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from buttress.certificates import Problem
from buttress.certificates.bounds.intervals import propagated
from buttress.certificates.bounds.linear import Intervals, least_by_intervals, linear_bound
from buttress.certificates.network.agreement import compare
from buttress.certificates.network.graph import Graph, Ref
from buttress.certificates.network.recording import record
from buttress.defences.base.defence import Batch
from buttress.engine.preserved_model import preserved
from buttress.model_call import call_model
from buttress.tasks import Task
from buttress.threat import Threat


class Graphs:
    """The operations of a network by the shape of an input, recorded once each."""

    def __init__(self) -> None:
        self._model: weakref.ref[nn.Module] | None = None
        self._weights: list[int] = []
        self._by_shape = dict[Any, Graph]()

    def of(self, model: nn.Module, x: Tensor, task: Task) -> Graph:
        """The network's operations on inputs like ``x`` (N, ...), with its weights of now and their gradients.

        They are those in eval mode, without dropout.

        Raises:
            UserError: for a network that computes with other inputs of the batch or at random.
        """
        weights = [id(weight) for weight in model.parameters()]
        if self._model is None or self._model() is not model or self._weights != weights:
            self._model, self._weights, self._by_shape = weakref.ref(model), weights, {}
        kind = (x.shape[1:], x.dtype, x.device)
        if kind not in self._by_shape:
            with preserved(model, "eval", 0, x.device), torch.no_grad():
                graph = record(model, x[:1], task.read)
                compare(graph, x, task.read(call_model(model, x)), lambda part: task.read(call_model(model, part)))
            self._by_shape[kind] = graph
        graph = replace(self._by_shape[kind])  # what is computed below is this step's
        graph.renew()
        return graph

    def __deepcopy__(self, memo: dict[int, Any]) -> Graphs:
        """None: a copy is for another network."""
        return Graphs()


class Margins:
    """Lower bounds of the margins of a batch within a threat.

    Args:
        graph: the network's operations.
        model: the network.
        x: (N, ...) what the threat is around.
        batch: the inputs that ``x`` comes from, and their classes.
        threat: the budget.

    Attributes:
        intervals: of all values in the network.
    """

    def __init__(self, graph: Graph, model: nn.Module, x: Tensor, batch: Batch, threat: Threat) -> None:
        logits = x.new_zeros(len(x), graph.shape_of(graph.result)[1])
        self._problem = Problem(model, x.detach(), batch.y, threat, logits, graph, batch.ids)
        self.network, self.region = self._problem.network, self._problem.region
        for name in ("x", "low", "high"):  # for an embedding that is trained
            setattr(self.region, name, batch.attached(getattr(self.region, name)))
        self.intervals: Intervals = propagated(self.network, self.region)

    def by_intervals(self) -> Tensor:
        """(K - 1, N) by interval arithmetic, the last layer joined with the margins (Gowal et al., 2018)."""
        return least_by_intervals(self.network, self._problem.margins, self.intervals, self.region)

    def by_lines(self) -> Tensor:
        """(K - 1, N) by linear bounds back to the input over these intervals (Zhang et al., ICLR 2020)."""
        return linear_bound(self.network, self._problem.margins, self.intervals).least(self.region)

    def widths(self) -> list[Tensor]:
        """Mean width of the intervals of the input, and of what each activation takes."""
        taken: list[Ref] = list(self.network.decided_by)
        pairs = [(self.region.low, self.region.high), *(self.intervals[ref] for ref in taken)]
        return [(high - low).mean() for low, high in pairs]


def robust_loss(margins: Tensor) -> Tensor:
    """Mean cross-entropy of the worst logits that margins (K - 1, N) allow: 0 for the true class, -margin for others.

    An upper bound of the cross-entropy of every perturbed input (Wong and Kolter, ICML 2018).
    """
    return torch.cat([margins.new_zeros(1, margins.shape[1]), -margins]).logsumexp(0).mean()
