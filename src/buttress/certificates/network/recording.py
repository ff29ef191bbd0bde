"""Reading a network's graph off one pass: every operation below autograd, with what it took and gave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from buttress.certificates.network.graph import INPUT, Graph, Node, Ref
from buttress.errors import UserError
from buttress.model_call import call_model

# Operations that turn a tensor's values into Python's: what they lead to is not the same for other inputs.
_READ = {"_local_scalar_dense", "is_nonzero", "item", "nonzero", "equal", "masked_select", "unique", "_unique2"}


# The places of dimension and end among the arguments of slices.
_SLICES = {"slice": (1, 3), "slice_scatter": (2, 4)}

# Operations that take a tensor for its shape alone.
_SHAPED = {"zeros_like", "ones_like", "empty_like", "full_like", "new_zeros", "new_ones", "new_empty", "new_full"}


def record(model: nn.Module, x: Tensor, read: Callable[[object], Tensor]) -> Graph:
    """The graph of ``read(model(x))`` for one input; its operations are the same for all values of that shape.

    A log-softmax at the end is left out, which changes no difference of logits.
    Writing in place and into views is turned into operations without it (torch's functionalisation). Weights and
    buffers are kept as the tensors that they are, so that `Graph.renew` follows them.

    Args:
        model: the network, in eval mode.
        x: (1, ...) an input.
        read: makes logits (1, K) of what the network returns.

    Raises:
        UserError: naming the layer, where the network decides by the values of its input; for a network that torch
            cannot follow.
    """
    leaves = {id(t): t for t in (*model.parameters(), *model.buffers())}
    recorder = _Recorder(leaves)

    def forward(x: Tensor) -> Tensor:
        return read(call_model(model, x))

    inputs = x.detach().clone()
    recorder.known[id(inputs)] = Ref(INPUT)
    with followed(), torch.no_grad(), _layers_followed(model, recorder), recorder:
        output: Tensor = torch.func.functionalize(forward, remove="mutations")(inputs)
    result = recorder.known.get(id(output))
    if result is None or (result.index != INPUT and not recorder.nodes[result.index].depends):
        raise UserError("the network's output does not depend on its input as far as its operations tell")
    nodes, result = _needed(recorder.nodes, _before_log_softmax(recorder.nodes, result))
    graph = Graph(nodes, result, x.shape, x.dtype)
    graph.renew()
    return graph


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has not annotated it
    """Writes down every operation that depends on the input or on weights."""

    def __init__(self, leaves: dict[int, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has not annotated it
        self.leaves, self.nodes = leaves, list[Node]()
        self.known = dict[int, Ref]()
        self.kept = list[Any]()  # all results, so that no identity is used twice
        self.layers = list[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keywords = kwargs or {}
        if func.overloadpacket.__name__.endswith("_") and self._known((args, list(keywords.values()))):
            return self._written(func, types, args, keywords)
        if func is torch.ops.aten.copy.default:  # of a tensor's own values nothing is left
            func, args, keywords = torch.ops.aten.expand.default, (args[1].to(args[0]), list(args[0].shape)), {}
        if func is torch.ops.aten.detach.default:  # whose derivative is not that of what it computes
            func = torch.ops.aten.alias.default
        args = _with_end(func, args)
        result = func(*args, **keywords)
        given, named = self._given(args), {key: self._given(value) for key, value in keywords.items()}
        name = func.overloadpacket.__name__
        if name in _SHAPED:
            self.kept.append(result)
            return result
        shapes, dtype = _forms(result)
        node = Node(func, given, named, shapes, dtype, self._depends((given, list(named.values()))), self._layer)
        if node.depends and name in _READ:
            raise UserError(
                f"{node} decides by the values of the input, so that the network is another one for another input: "
                "bounds need a network that computes the same for all inputs"
            )
        if node.depends or self._known((args, list(keywords.values()))):
            self._keep(node, result)
        return result

    def _written(self, func: Any, types: Any, args: Any, keywords: dict[str, Any]) -> Tensor:
        """What writes in place within an operation of torch, which its functionalisation does not see, as without.

        Other views of what is written are not followed: `compare` finds the networks where that matters.
        """
        packet, target = func.overloadpacket.__name__, args[0]
        functional = getattr(getattr(torch.ops.aten, packet.rstrip("_"), None), func._overloadname, None)
        part = target.numel() * target.element_size() < target.untyped_storage().nbytes()
        if functional is None or (part and packet == "copy_"):
            layer = f"layer {self._layer}" if self._layer else "the network's own forward"
            raise UserError(f"cannot bound {packet} in {layer}: it writes in place into a part of a tensor")
        result = self.__torch_dispatch__(functional, types, args, keywords)
        self.kept.append(target)
        if id(result) in self.known:
            self.known[id(target)] = self.known[id(result)]
        written: Tensor = func(*args, **keywords)
        return written

    @property
    def _layer(self) -> str:
        return self.layers[-1] if self.layers else ""

    def _keep(self, node: Node, result: Any) -> None:
        self.nodes.append(node)
        self.kept.append(result)
        for output, value in enumerate(result if isinstance(result, tuple | list) else (result,)):
            if isinstance(value, Tensor):
                self.known[id(value)] = Ref(len(self.nodes) - 1, output)

    def _given(self, argument: Any) -> Any:
        if isinstance(argument, Tensor):
            known = self.known.get(id(argument))
            self.kept.append(argument)
            return argument if known is None else known
        if isinstance(argument, tuple | list):
            return type(argument)(self._given(part) for part in argument)
        return argument

    def _depends(self, argument: Any) -> bool:
        if isinstance(argument, Ref):
            return argument.index == INPUT or self.nodes[argument.index].depends
        return isinstance(argument, tuple | list) and any(self._depends(part) for part in argument)

    def _known(self, argument: Any) -> bool:
        """Whether it is of weights, or of what was recorded."""
        if isinstance(argument, Tensor):
            return id(argument) in self.leaves or id(argument) in self.known
        return isinstance(argument, tuple | list) and any(self._known(part) for part in argument)


@contextmanager
def followed() -> Iterator[None]:
    """Tells in one line what torch cannot do under a tracer, of a network that has run without."""
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"cannot follow the operations of this network, which bounds need: {why}") from error


@contextmanager
def _layers_followed(model: nn.Module, recorder: _Recorder) -> Iterator[None]:
    """Tells the recorder which module is running."""
    with ExitStack() as stack:
        for name, module in model.named_modules():
            if not name or isinstance(module, torch.jit.ScriptModule):
                continue

            def enter(module: nn.Module, args: Any, name: str = name) -> None:
                recorder.layers.append(name)

            def leave(module: nn.Module, args: Any, output: Any) -> None:
                recorder.layers.pop()

            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave, always_call=True).remove)
        yield


def _before_log_softmax(nodes: list[Node], result: Ref) -> Ref:
    """What a log-softmax at the end takes, which takes one number off all logits; the result where there is none."""
    ref = result
    while ref.index != INPUT and nodes[ref.index].name in ("clone", "detach", "alias"):
        ref = nodes[ref.index].refs[0]
    if ref.index != INPUT and nodes[ref.index].name == "_log_softmax" and nodes[ref.index].arguments[1] in (1, -1):
        return nodes[ref.index].refs[0]
    return result


def _with_end(func: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """A slice's arguments with an end inside; torch writes one without an end as a number that vmap cannot take."""
    dim, end = _SLICES.get(func.overloadpacket.__name__, (len(args), len(args)))
    if end >= len(args) or args[end] is None:
        return args
    return (*args[:end], min(args[end], args[0].shape[args[dim]]), *args[end + 1 :])


def _forms(result: Any) -> tuple[tuple[torch.Size, ...], torch.dtype | None]:
    """The shapes of all outputs, and the type of the first one's numbers."""
    results = result if isinstance(result, tuple | list) else (result,)
    shapes = tuple(value.shape if isinstance(value, Tensor) else torch.Size() for value in results)
    return shapes, results[0].dtype if isinstance(results[0], Tensor) else None


def _needed(nodes: list[Node], result: Ref) -> tuple[list[Node], Ref]:
    """Those nodes that lead to the result, and the result among them."""
    needed = {result.index}
    for index in range(len(nodes) - 1, -1, -1):
        if index in needed:
            needed |= {ref.index for ref in nodes[index].refs}
    kept = [index for index in range(len(nodes)) if index in needed]
    places = {INPUT: INPUT} | {index: place for place, index in enumerate(kept)}

    def moved(ref: Ref) -> Ref:
        return Ref(places[ref.index], ref.output)

    return [nodes[index].renamed(moved) for index in kept], moved(result)
