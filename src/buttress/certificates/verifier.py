"""What a verifier is asked, and what it answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor, nn

from buttress.certificates.bounds.intervals import propagated, tightened
from buttress.certificates.bounds.linear import Functions
from buttress.certificates.bounds.network import BoundedNetwork
from buttress.certificates.bounds.region import Region
from buttress.certificates.network.graph import Graph, Ref
from buttress.certificates.operations.operation import Interval
from buttress.registry import verifier as registered_verifiers
from buttress.threat import Threat

_ROUNDING = 1e-5  # of the largest logit: bounds are sums in single precision


@dataclass(frozen=True)
class Problem:
    """Some inputs of a network, and the threat that they are to be verified in.

    Attributes:
        model: the network, in eval mode.
        x: (N, ...) inputs.
        y: (N,) their classes.
        threat: what is allowed.
        logits: (N, K) at the inputs.
        graph: the network's operations.
        ids: (N,) what identifies each input, for draws.
        seed: of draws.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    threat: Threat
    logits: Tensor
    graph: Graph
    ids: Tensor
    seed: int = 0

    def of_rows(self, places: Tensor) -> Problem:
        """The problem of the inputs at (M,) places of the batch, perhaps repeated."""
        return replace(
            self,
            x=self.x[places],
            y=self.y[places],
            threat=self.threat.of_rows(places),
            logits=self.logits[places],
            ids=self.ids[places],
        )

    def met(self, points: Tensor) -> Tensor:
        """(N,) the least margin at points (N, ...), one of each input's region."""
        logits = self.graph.run(points)
        true = self.y.long()[:, None]
        return logits.gather(1, true)[:, 0] - logits.scatter(1, true, -torch.inf).amax(1)

    @property
    def rounding(self) -> Tensor:
        """(N,) what rounding in a bound of the margins may come to: an input is verified above this."""
        return _ROUNDING * self.logits.abs().amax(1)

    @cached_property
    def network(self) -> BoundedNetwork:
        """The graph with what bounds its operations.

        Raises:
            UserError: naming the first layer that cannot be bounded.
        """
        return BoundedNetwork(self.graph)

    @cached_property
    def region(self) -> Region:
        """The inputs that the threat allows."""
        return Region(self.threat, self.x)

    @cached_property
    def intervals(self) -> dict[Ref, Interval]:
        """Of all values, by interval arithmetic."""
        return propagated(self.network, self.region)

    @cached_property
    def tightened(self) -> dict[Ref, Interval]:
        """Of all values, by CROWN where they decide."""
        return tightened(self.network, self.region)

    @cached_property
    def margins(self) -> Functions:
        """The true class's logit less each other one, in the order of the classes: K - 1 functions of the logits."""
        count, classes = self.logits.shape
        others = torch.arange(classes - 1, device=self.y.device)[:, None].expand(-1, count)
        others = others + (others >= self.y)
        rows = torch.zeros(classes - 1, count, classes, dtype=self.x.dtype, device=self.x.device)
        rows.scatter_(2, self.y.long()[None, :, None].expand(classes - 1, -1, -1), 1.0)
        rows = rows.scatter_add(2, others[:, :, None], rows.new_full((classes - 1, count, 1), -1.0))
        return Functions.of(self.graph.result, rows[:, :, None])


@dataclass(frozen=True)
class Answer:
    """Lower bounds of the margins.

    Attributes:
        margins: (K - 1, N) bounds of the margins in `Problem.margins`.
        candidates: (S, N, ...) allowed inputs that may be adversarial; none where None.
    """

    margins: Tensor
    candidates: Tensor | None = None


class Verifier(ABC):
    """Bounds a network's margins within a threat from below: a frozen dataclass of plain fields.

    Attributes:
        sound: whether its bounds hold with certainty.
    """

    sound: ClassVar[bool] = True

    def label(self) -> str:
        """The registered name; a user's own: the class's."""
        return registered_verifiers.name_of(self).rpartition(":")[2]

    @abstractmethod
    def bound(self, problem: Problem) -> Answer:
        """Lower bounds of the margins of all inputs."""
