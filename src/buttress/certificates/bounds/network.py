"""A network that can be bounded: its operations, and the margins that decide as its last one."""

from __future__ import annotations

from buttress.certificates.network.graph import INPUT, Graph, Ref
from buttress.certificates.operations.affine import Affine
from buttress.certificates.operations.operation import Place
from buttress.certificates.operations.table import operations_of


class BoundedNetwork:
    """A graph, with what bounds each of its operations.

    Attributes:
        graph: the network's operations.
        operations: by node; None for what depends on weights alone.
        decided_by: references to what operations that are not affine take: what is tightened.

    Raises:
        UserError: naming the first layer that cannot be bounded.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph, self.operations = graph, operations_of(graph)
        self.decided_by: dict[Ref, list[int]] = {}
        for index, operation in enumerate(self.operations):
            if operation is not None and not operation.affine:
                for ref in self.place(index).inputs:
                    self.decided_by.setdefault(ref, []).append(index)
        self._mixed = self._mixings()

    def place(self, index: int) -> Place:
        """A node where it stands."""
        return Place(self.graph, index)

    def exact_by_interval(self, ref: Ref) -> bool:
        """Whether interval arithmetic, from a box of inputs, gives the exact range of each feature of a value."""
        return self._mixed[ref.index] <= 1

    def _mixings(self) -> dict[int, int]:
        """By node: 0 where each feature is one of the input's, 1 for weighted sums of these, 2 for anything else."""
        counts = {INPUT: 0}
        for index, operation in enumerate(self.operations):
            if operation is None:
                continue
            before = [counts[ref.index] for ref in self.place(index).inputs]
            if not isinstance(operation, Affine) or len(before) > 1:
                counts[index] = 2
                continue
            counts[index] = min(2, before[0] + self.mixes(index))
        return counts

    def mixes(self, index: int) -> bool:
        """Whether features of an affine operation's one input are summed or repeated in its output."""
        operation, (ref,) = self.operations[index], self.place(index).inputs
        repeats = self.graph.nodes[index].shapes[0].numel() > self.graph.shape_of(ref).numel()
        return repeats or (isinstance(operation, Affine) and operation.mixes)
