"""The two things that bounds ask of an operation: an interval of its output, and lines that enclose it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from buttress.certificates.network.graph import Graph, Node, Ref

Interval = tuple[Tensor, Tensor]  # the lowest and the highest value, (N, 1, ...) each
Pull = dict[Ref, Tensor]  # by input: what a linear function of the output is in terms of it, (S, N, 1, ...)


@dataclass(frozen=True)
class Place:
    """An operation where it stands in a network.

    Attributes:
        graph: the network.
        index: of the node.
        output: which of its outputs is asked about.
    """

    graph: Graph
    index: int
    output: int = 0

    @property
    def node(self) -> Node:
        """The node."""
        return self.graph.nodes[self.index]

    @property
    def inputs(self) -> list[Ref]:
        """What it takes that depends on the network's input."""
        return self.graph.inputs_of(self.node)

    def constant(self, argument: Any) -> Any:
        """An argument; the value of what depends on weights alone in the place of a reference to it."""
        return self.graph.constants.get(argument, argument) if isinstance(argument, Ref) else argument

    def run(self, values: Mapping[Ref, Tensor]) -> Tensor:
        """The output, where its inputs have these values, (N, 1, ...)."""
        refs, tensors = list(values), list(values.values())

        def one(*tensors: Tensor) -> Tensor:
            return self.run_one(dict(zip(refs, tensors, strict=True)))

        return torch.func.vmap(one)(*tensors)

    def run_one(self, values: Mapping[Ref, Tensor]) -> Tensor:
        """The output for one input, where the node's inputs have these values, (1, ...)."""
        known = self.graph.constants
        result = self.node.run(lambda ref: values[ref] if ref in values else known[ref])
        output: Tensor = result[self.output] if isinstance(result, tuple | list) else result
        return output

    def of(self, ref: Ref) -> Place:
        """The same, asked about this output."""
        return replace(self, output=ref.output)


class Operation(ABC):
    """What bounds ask of one of torch's operations.

    Attributes:
        affine: whether its output is an affine function of its inputs.
    """

    affine = False

    @abstractmethod
    def interval(self, place: Place, inputs: dict[Ref, Interval]) -> Interval:
        """The interval of the output, where the inputs are in theirs."""

    @abstractmethod
    def pull(self, place: Place, output: Tensor, inputs: dict[Ref, Interval], lines: LowerLines) -> tuple[Pull, Tensor]:
        """A linear function of the inputs that is nowhere above ``output`` (S, N, ...), one of the output's.

        Args:
            place: where it stands.
            output: the coefficients.
            inputs: intervals of its inputs.
            lines: see `LowerLines`.

        Returns:
            Coefficients by input, and what is added, (S, N).
        """

    def undecided(self, low: Tensor, high: Tensor) -> Tensor:
        """(N, ...) bool: of which inputs tighter bounds would help; none of an affine operation's."""
        return (high > low) & (not self.affine)


# Chooses the slope of the line below a ReLU-like function where it is free: takes the node's index, the usual slope
# (N, ...), where it may be chosen and the least slope (the largest is 1); returns slopes to multiply (S, N, ...) with.
LowerLines = Callable[[int, Tensor, Tensor, Tensor], Tensor]


def usual_lines(index: int, slope: Tensor, free: Tensor, least: Tensor) -> Tensor:
    """The usual slope."""
    return slope


def summed(slope: Tensor, shape: torch.Size) -> Tensor:
    """Coefficients (S, N, 1, ...) of what was broadcast, added up at where it came from."""
    if slope.shape[2:] == shape:
        return slope
    ones = (1,) * (slope.dim() - 2 - len(shape))
    return slope.sum_to_size(*slope.shape[:2], *ones, *shape).view(*slope.shape[:2], *shape)


def with_dims(values: Tensor, dims: int) -> Tensor:
    """(N, ...) with dimensions of 1 put in behind the first, for broadcasting."""
    return values.view(len(values), *[1] * (dims - values.dim()), *values.shape[1:])
