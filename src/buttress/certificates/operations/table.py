"""Which of torch's operations can be bounded, and by what."""

from __future__ import annotations

import torch

from buttress.certificates.network.graph import Graph, Node, Ref
from buttress.certificates.operations.affine import Affine, Matrix, Scaled, Signed
from buttress.certificates.operations.elementwise import Elementwise
from buttress.certificates.operations.functions import BESIDE_A_CONSTANT, FUNCTIONS, why_not
from buttress.certificates.operations.maxima import Dimensions, Maximum, Pair, Windows
from buttress.certificates.operations.operation import Operation
from buttress.certificates.operations.product import Product
from buttress.errors import UserError

# Affine in all of their tensors jointly, with no negative coefficient; each feature of the output is one of an input's,
# and no two are of the same.
_MOVED = [
    "view",
    "_unsafe_view",
    "reshape",
    "_reshape_alias",
    "flatten",
    "permute",
    "transpose",
    "t",
    "unsqueeze",
    "squeeze",
    "select",
    "slice",
    "split",
    "split_with_sizes",
    "unsafe_split",
    "unsafe_split_with_sizes",
    "unbind",
    "narrow",
    "diagonal",
    "cat",
    "stack",
    "roll",
    "flip",
    "constant_pad_nd",
    "pixel_shuffle",
    "pixel_unshuffle",
    "clone",
    "detach",
    "alias",
    "_to_copy",
    "contiguous",
    "lift_fresh",
    "select_scatter",
    "slice_scatter",
    "tril",
    "triu",
    "copy",
    "where",
    "masked_fill",
]
# The same, but for sums and repetitions.
_MIXED = [
    "expand",
    "repeat",
    "index_select",
    "gather",
    "index",
    "mean",
    "sum",
    "cumsum",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d",
    "adaptive_avg_pool1d",
    "reflection_pad1d",
    "reflection_pad2d",
    "replication_pad1d",
    "replication_pad2d",
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_bilinear2d",
    "upsample_linear1d",
    "im2col",
    "col2im",
    "unfold",
]
_SEVERAL = ("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "unbind")  # whose outputs all count
_SIGNED = ("add", "sub", "rsub", "neg")
_CHOOSE = {"index_select": 2, "gather": 2, "index": 1, "where": 0, "masked_fill": 1}  # the place of what chooses

# Affine in the tensor at one place among the arguments, the others being constant.
_BY_ONE: dict[tuple[str, int], Operation] = {
    **BESIDE_A_CONSTANT,
    ("mul", 0): Scaled(),
    ("mul", 1): Scaled(),
    ("div", 0): Scaled(),
    ("convolution", 0): Matrix(1, 2),
    ("mm", 0): Matrix(1, None),
    ("mm", 1): Matrix(0, None),
    ("mv", 0): Matrix(1, None),
    ("mv", 1): Matrix(0, None),
    ("bmm", 0): Matrix(1, None),
    ("bmm", 1): Matrix(0, None),
    ("addmm", 1): Matrix(2, 0),
    ("addmm", 2): Matrix(1, 0),
    ("native_batch_norm", 0): Scaled(),
    ("_native_batch_norm_legit_no_training", 0): Scaled(),
    ("cudnn_batch_norm", 0): Scaled(),
    ("addcmul", 1): Scaled(),
    ("addcmul", 2): Scaled(),
}
_TRAINING = {"native_batch_norm": 5, "cudnn_batch_norm": 5}  # the place of the argument that asks for the batch's own

_OPERATIONS: dict[str, Operation] = {
    **dict.fromkeys(_MOVED, Affine()),
    **dict.fromkeys(_MIXED, Affine(mixes=True)),
    **dict.fromkeys(_SIGNED, Signed()),
    **FUNCTIONS,
    "max_pool2d_with_indices": Maximum(Windows),
    "adaptive_max_pool2d": Maximum(Dimensions),
    "amax": Maximum(Dimensions),
    "amin": Maximum(Dimensions, -1),
    "max": Maximum(Dimensions),
    "min": Maximum(Dimensions, -1),
    "maximum": Maximum(Pair),
    "minimum": Maximum(Pair, -1),
    "mul": Product(),
}


def operations_of(graph: Graph) -> list[Operation | None]:
    """What bounds each node; None for what depends on weights alone.

    Raises:
        UserError: naming the first layer that cannot be bounded.
    """
    return [_operation(graph, node) if node.depends else None for node in graph.nodes]


def _operation(graph: Graph, node: Node) -> Operation:
    places = [place for place, argument in enumerate(node.arguments) if _depends(graph, argument)]
    found = _BY_ONE.get((node.name, places[0])) if len(places) == 1 else None
    found = found or _OPERATIONS.get(node.name)
    why = _why_unknown(graph, node, places) or _why_not_by(found, graph, node, places) or why_not(node)
    if why is not None or found is None:
        raise UserError(f"cannot bound {node}: {why}")
    return found


def _why_unknown(graph: Graph, node: Node, places: list[int]) -> str | None:
    """Why a node cannot be bounded, whatever bounds its operation."""
    if any(ref.output for ref in graph.inputs_of(node) if _first_alone(graph, ref)):
        return "it takes places of maxima, which are no continuous function of the input"
    if node.name in _TRAINING and node.arguments[_TRAINING[node.name]]:
        return "it normalises with statistics of the batch, or of the input itself"
    if _CHOOSE.get(node.name) in places:
        return "what it chooses depends on the input"
    return None


def _why_not_by(found: Operation | None, graph: Graph, node: Node, places: list[int]) -> str | None:
    """Why what bounds an operation does not where it stands."""
    joint = found is not None and (found.affine or isinstance(found, Maximum | Product))
    if len(places) > 1 and not joint:
        return "two of its arguments depend on the input"
    elsewhere = any(_depends(graph, argument) for argument in node.keywords.values())
    if found is None or elsewhere or (node.name in FUNCTIONS and places != [0]):
        return "no bounds are known of it"
    if node.dtype != graph.dtype:
        return (
            f"it makes {_type(node.dtype)} of inputs in {_type(graph.dtype)}: bounds are for one precision throughout"
        )
    if isinstance(found, Elementwise) and [graph.shape_of(ref) for ref in graph.inputs_of(node)] != [node.shapes[0]]:
        return "it repeats what depends on the input along a constant"
    if not node.shapes[0]:
        return "it makes a single number, of all inputs together as it seems"
    return None


def _type(dtype: torch.dtype | None) -> str:
    return str(dtype).removeprefix("torch.")


def _depends(graph: Graph, argument: object) -> bool:
    if isinstance(argument, Ref):
        return graph.depends(argument)
    return isinstance(argument, tuple | list) and any(_depends(graph, part) for part in argument)


def _first_alone(graph: Graph, ref: Ref) -> bool:
    """Whether only the first output is a value, of the node that a reference is to."""
    return ref.index >= 0 and graph.nodes[ref.index].name not in _SEVERAL
