"""A network as a list of operations in the order in which they ran."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

INPUT = -1  # the index under which the network's input is referred to


@dataclass(frozen=True)
class Ref:
    """An output of an operation, or the network's input."""

    index: int
    output: int = 0


@dataclass(frozen=True)
class Node:
    """One operation of torch (ATen, without gradients and without writing in place) as it ran.

    Attributes:
        function: the operation.
        arguments: as it was called, with a `Ref` where a value depends on the input or on the network's weights.
        keywords: likewise.
        shapes: of its outputs for one input, (1, ...) mostly; () for an output that is no tensor.
        dtype: of its first output; None for one that is no tensor.
        depends: whether it depends on the input.
        layer: the name of the module that called it, for errors.
    """

    function: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    shapes: tuple[torch.Size, ...]
    dtype: torch.dtype | None
    depends: bool
    layer: str

    @property
    def name(self) -> str:
        """As in ``max_pool2d_with_indices``."""
        return str(self.function.overloadpacket.__name__)

    @property
    def refs(self) -> list[Ref]:
        """What it takes, in the order of its arguments, weights included."""
        return list(_refs((self.arguments, self.keywords)))

    def run(self, value: Callable[[Ref], Any]) -> Any:
        """What it computes where each reference has this value."""
        return self.function(*_replaced(self.arguments, value), **_replaced(self.keywords, value))

    def renamed(self, name: Callable[[Ref], Ref]) -> Node:
        """The same with other references."""
        given, named = _replaced(self.arguments, name), _replaced(self.keywords, name)
        return replace(self, arguments=given, keywords=named)

    def detached(self) -> Node:
        """The same with weights that no gradient leads to."""
        given, named = _detached(self.arguments), _detached(self.keywords)
        return replace(self, arguments=given, keywords=named)

    def __str__(self) -> str:
        place = f"layer {self.layer}" if self.layer else "the network's own forward"
        return f"{self.name} in {place}"


@dataclass
class Graph:
    """The operations that lead from the input to the output, as they ran for one input.

    Of N inputs every value has one axis more, in front: (N, 1, ...), whatever the network does with the axis that it
    takes for that of inputs, as moving it or folding time into it.

    Attributes:
        nodes: in the order in which they ran.
        result: what the network returns.
        shape: of one input, (1, ...).
        dtype: of inputs.
        constants: what operations on weights alone have come to; see `renew`.
    """

    nodes: list[Node]
    result: Ref
    shape: torch.Size
    dtype: torch.dtype
    constants: dict[Ref, Any] = field(default_factory=dict)

    def detached(self) -> Graph:
        """The same with weights that no gradient leads to."""
        graph = replace(self, nodes=[node.detached() for node in self.nodes])
        graph.renew()
        return graph

    def depends(self, ref: Ref) -> bool:
        """Whether a value depends on the network's input."""
        return ref.index == INPUT or self.nodes[ref.index].depends

    def inputs_of(self, node: Node) -> list[Ref]:
        """What a node takes that depends on the input, each once."""
        return list(dict.fromkeys(ref for ref in node.refs if self.depends(ref)))

    def shape_of(self, ref: Ref) -> torch.Size:
        """Of one input's value, (1, ...) mostly."""
        return self.shape if ref.index == INPUT else self.nodes[ref.index].shapes[ref.output]

    def renew(self) -> None:
        """Compute what depends on weights alone again, of the weights that the network has now."""
        self.constants = {}
        for index, node in enumerate(self.nodes):
            if not node.depends:
                result = node.run(self.constants.__getitem__)
                results = result if isinstance(result, tuple | list) else (result,)
                self.constants |= {Ref(index, output): value for output, value in enumerate(results)}

    def run(self, x: Tensor) -> Tensor:
        """(N, K) what the network returns for ``x`` (N, ...), as far as its operations tell."""

        def one(x: Tensor) -> Tensor:
            values: dict[Ref, Any] = {**self.constants, Ref(INPUT): x}
            for index, node in enumerate(self.nodes):
                if node.depends:
                    result = node.run(values.__getitem__)
                    results = result if isinstance(result, tuple | list) else (result,)
                    values |= {Ref(index, output): value for output, value in enumerate(results)}
            returned: Tensor = values[self.result]
            return returned

        logits: Tensor = torch.func.vmap(one)(x[:, None])
        return logits.flatten(0, 1)


def _refs(argument: Any) -> Iterator[Ref]:
    if isinstance(argument, Ref):
        yield argument
    elif isinstance(argument, tuple | list):
        for part in argument:
            yield from _refs(part)
    elif isinstance(argument, dict):
        yield from _refs(list(argument.values()))


def _replaced(argument: Any, value: Callable[[Ref], Any]) -> Any:
    if isinstance(argument, Ref):
        return value(argument)
    if isinstance(argument, tuple | list):
        return type(argument)(_replaced(part, value) for part in argument)
    if isinstance(argument, dict):
        return {key: _replaced(part, value) for key, part in argument.items()}
    return argument


def _detached(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return argument.detach()
    if isinstance(argument, tuple | list):
        return type(argument)(_detached(part) for part in argument)
    if isinstance(argument, dict):
        return {key: _detached(part) for key, part in argument.items()}
    return argument
