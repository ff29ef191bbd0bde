"""Which nodes of an autograd graph are nonlinear in the network's input, by their operation.

Told from the list of what is linear: any operation that is not on it is one that an activation may be written with.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

# Sums, means, and whatever moves, copies or repeats numbers.
_LINEAR = frozenset(
    (
        *("AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "Add", "AffineGridGenerator", "Alias", "AsStrided"),
        *("AsStridedScatter", "AvgPool2D", "AvgPool3D", "BlockDiag", "Cat", "ChannelShuffle", "Chunk", "Clone"),
        *("Coalesce", "Col2Im", "Complex", "Conj", "ConjPhysical", "ConstantPadNd", "Copy", "CopyBackwards"),
        *("CopySlices", "CudnnAffineGridGenerator", "Cumsum", "Deg2Rad", "DiagEmbed", "Diagonal", "DiagonalScatter"),
        *("Embedding", "EmbeddingBag", "Expand", "FftC2C", "FftC2R", "FftR2C", "Fill", "Flip", "Im2Col", "Index"),
        *("IndexAdd", "IndexCopy", "IndexFill", "IndexPut", "IndexPutImpl", "IndexSelect", "LazyClone", "Lift"),
        *("LiftFresh", "MaskedSelect", "Mean", "MkldnnAdaptiveAvgPool2D", "MkldnnReshape", "NarrowCopy", "Neg"),
        *("NegView", "NestedFromPadded", "NestedGetValues", "NestedTensorFromTensorList", "NestedViewFromBuffer"),
        *("NestedViewFromJagged", "PackPaddedSequence", "Permute", "PinMemory", "PixelShuffle", "PixelUnshuffle"),
        *("Put", "Rad2Deg", "ReflectionPad1D", "ReflectionPad2D", "ReflectionPad3D", "Repeat", "ReplicationPad1D"),
        *("ReplicationPad2D", "ReplicationPad3D", "ReshapeAlias", "ReshapeCopy", "Roll", "Rot90", "Rsub"),
        *("ScatterAdd", "Select", "SelectScatter", "Slice", "SliceInverse", "SliceScatter", "SparseMask", "SparseSum"),
        *("Split", "SplitWithSizes", "Squeeze", "Stack", "Sub", "Sum", "T", "Take", "ToCopy", "ToDense", "ToMkldnn"),
        *("ToPaddedTensor", "ToSparse", "ToSparseBsc", "ToSparseBsr", "ToSparseCsc", "ToSparseCsr", "Trace"),
        *("Transpose", "Tril", "Triu", "Unbind", "Unfold", "UnsafeIndex", "UnsafeIndexPut", "UnsafeMaskedIndex"),
        *("UnsafeMaskedIndexPutAccumulate", "UnsafeSplit", "UnsafeSplitWithSizes", "UnsafeView", "Unsqueeze"),
        *("Values", "View", "ViewAsComplex", "ViewAsReal", "Zero"),
    )
)
# Products of matrices, kernels and the like, and where their factors are: two of these that depend on the input make
# one that is not linear in it.
FACTORS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("Addbmm", "Addmm", "Addmv", "Addr", "Baddbmm", "SparseAddmm", "SparseSampledAddmm"), (1, 2)),
    **dict.fromkeys(("Bmm", "Dot", "GroupedMm", "LinalgCross", "Linear", "Matmul", "MkldnnLinear", "Mm", "Mv"), (0, 1)),
    **dict.fromkeys(("SparseMmReduceImpl", "SparseSparseMatmul", "Vdot"), (0, 1)),
    **dict.fromkeys(("ConvTbc", "Convolution", "ConvolutionOverrideable", "CudnnConvolution"), (0, 1)),
    **dict.fromkeys(("CudnnConvolutionTranspose", "MiopenConvolution", "MkldnnConvolution"), (0, 1)),
    "Trilinear": (0, 1, 2),
}
# Normalisation, pooling, attention and recurrence are no activations; torch computes them by operations of their own.
_NO_ACTIVATION = re.compile(
    "Conv|Upsample|BatchNorm|LayerNorm|GroupNorm|RmsNorm|MaxPool|MaxUnpool|Attention|Rnn|Lstm|Gru|Dropout|GridSampler"
    "|WeightNorm"
)
# Functions of torch's that do the same by several operations.
_NO_ACTIVATION_FUNCTION = re.compile(
    "(batch|layer|group|instance|rms|response)_norm$|^normalize$|max_pool|lp_pool|attention|^(lstm|gru|rnn_)|_cell$"
    "|dropout"
)
# The same of single numbers, and the position of a divisor or weight.
_NUMBERS = {"Mul": (0, 1), "Addcmul": (1, 2)}
_DIVISOR = {"Div": 1, "Addcdiv": 2, "Lerp": 2}
_BY_INDEX = frozenset(
    ("Index", "IndexAdd", "IndexCopy", "IndexFill", "IndexPut", "IndexPutImpl", "IndexSelect", "Put", "Take")
)
_ELEMENTWISE = frozenset((*_NUMBERS, *_DIVISOR, "MaskedFill", "MaskedScatter", "Where"))


@lru_cache(maxsize=1024)
def operation(node: str) -> str:
    """The operation that an autograd node is named by: ``Mul`` for ``MulBackward0``."""
    return re.sub(r"Backward(\d\w*|Autograd\w*)?$", "", node.rpartition("::")[2]).removeprefix("Foreach")


def is_activation_like(function: str) -> bool:
    """Whether a function of torch's may be an activation; not so normalisation, pooling, attention and recurrence."""
    return _NO_ACTIVATION_FUNCTION.search(function) is None


def picks_numbers(function: str, args: Sequence[Any]) -> bool:
    """Whether a function of torch's reads or writes single numbers by an index, as a sort does, and not rows."""
    name = function.strip("_")
    if name in ("take", "put"):
        return True
    if name in ("index_select", "index_add", "index_copy", "index_fill"):
        return isinstance(args[0], Tensor) and args[0].dim() < 2
    if name not in ("getitem", "setitem", "index", "index_put"):
        return False
    keys = args[1] if isinstance(args[1], tuple | list) else (args[1],)
    masks = [key.dim() for key in keys if isinstance(key, Tensor) and key.dtype == torch.bool]
    others = [key for key in keys if isinstance(key, Tensor | int | list) and not isinstance(key, bool)]
    return isinstance(args[0], Tensor) and sum(masks) + len(others) - len(masks) >= args[0].dim()


def is_nonlinear(
    node: Any, depends: Container[Any], aside: Sequence[Tensor] = (), size: int = 0, singly: bool = False
) -> bool:
    """Whether the operation of a node is one that an activation may be written with, or a product of two dependents.

    Args:
        node: of the autograd graph.
        depends: the nodes that depend on the input.
        aside: what else the operation may have read that depends on the input, without a gradient: masks, indices.
        size: how many numbers the largest tensor has that it read.
        singly: whether it reads or writes single numbers by an index; see `picks_numbers`.
    """
    kind = operation(node.name())
    inputs = [source in depends for source, _ in node.next_functions]
    # A mask of single numbers; one of whole rows says which of them are computed.
    masks = [value for value in aside if not value.is_floating_point() and value.numel() >= size]
    floats = any(value.is_floating_point() for value in aside)
    if kind in _ELEMENTWISE:
        # Of a number in the place of a tensor there is no edge.
        product = kind in _NUMBERS and all(inputs[k : k + 1] == [True] for k in _NUMBERS[kind])
        return product or (kind in _DIVISOR and any(inputs[_DIVISOR[kind] :])) or floats or bool(masks)
    if kind in ("Gather", "Scatter"):
        return bool(aside)
    if kind in _BY_INDEX:
        return (singly and bool(aside)) or any(mask.dtype == torch.bool for mask in masks)
    if kind in ("Add", "Sub"):
        return floats
    if kind in FACTORS:
        dependent = sum(any(inputs[k : k + 1]) for k in FACTORS[kind])
        return dependent + floats > 1
    if "GridSampler" in kind:  # linear in the image, not in the places that it is read at
        return inputs[1] or floats
    plain = kind.removesuffix("Backward")
    return plain not in _LINEAR and plain not in FACTORS and _NO_ACTIVATION.search(kind) is None
