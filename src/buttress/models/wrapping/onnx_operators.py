"""Operators of ONNX as functions of torch, for one input, (1, ...), whose values they may have gradients for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class UnknownFormError(Exception):
    """A form of an operator that torch computes otherwise: such a file is run by onnxruntime, and a line says so."""


Operator = Callable[..., Any]  # of the node's inputs, and its attributes by name
Sizes = Sequence[int]
_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_MAXIMA = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_MEANS: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _numbers(given: Any) -> list[int]:
    """A constant of whole numbers, such as axes, as a list."""
    numbers: list[int] = given.flatten().tolist() if isinstance(given, Tensor) else list(given)
    return numbers


def _padding(x: Tensor, kernel: Sizes, strides: Sizes, dilations: Sizes, pads: Sizes, auto_pad: str) -> list[int]:
    """What `F.pad` takes: before and after each axis, the last one first."""
    axes = len(kernel)
    before, after = list(pads[:axes]), list(pads[axes:])
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        for axis, size in enumerate(x.shape[-axes:]):
            wide = dilations[axis] * (kernel[axis] - 1) + 1
            total = max((-(-size // strides[axis]) - 1) * strides[axis] + wide - size, 0)
            small, large = total // 2, total - total // 2
            before[axis], after[axis] = (small, large) if auto_pad == "SAME_UPPER" else (large, small)
    return [size for pair in zip(reversed(before), reversed(after), strict=True) for size in pair]


def _conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sizes = (),
    group: int = 1,
    kernel_shape: Sizes = (),
    pads: Sizes = (),
    strides: Sizes = (),
) -> Tensor:
    axes = weight.dim() - 2
    strides, dilations, pads = strides or [1] * axes, dilations or [1] * axes, pads or [0] * 2 * axes
    padding = _padding(x, weight.shape[2:], strides, dilations, pads, auto_pad)
    x = F.pad(x, padding) if any(padding) else x
    found: Tensor = _CONVOLUTIONS[axes](x, weight, bias, list(strides), 0, list(dilations), group)
    return found


def _max_pool(
    x: Tensor,
    *,
    kernel_shape: Sizes,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sizes = (),
    pads: Sizes = (),
    storage_order: int = 0,
    strides: Sizes = (),
) -> Tensor:
    axes = len(kernel_shape)
    strides, dilations, pads = strides or [1] * axes, dilations or [1] * axes, pads or [0] * 2 * axes
    padding = _padding(x, kernel_shape, strides, dilations, pads, auto_pad)
    if ceil_mode and any(padding):
        raise UnknownFormError("rounding sizes up beside padding")
    lowest = torch.finfo(x.dtype).min  # with which bounds can compute, unlike with the infinity below it
    x = F.pad(x, padding, value=lowest) if any(padding) else x
    found: Tensor = _MAXIMA[axes](x, list(kernel_shape), list(strides), 0, list(dilations), bool(ceil_mode))
    return found


def _average_pool(
    x: Tensor,
    *,
    kernel_shape: Sizes,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sizes = (),
    pads: Sizes = (),
    strides: Sizes = (),
) -> Tensor:
    axes = len(kernel_shape)
    strides, pads = strides or [1] * axes, pads or [0] * 2 * axes
    padding = _padding(x, kernel_shape, strides, [1] * axes, pads, auto_pad)
    if any(dilation != 1 for dilation in dilations):
        raise UnknownFormError("an average over windows with gaps")
    if any(padding) and (ceil_mode or not count_include_pad):
        raise UnknownFormError("an average that leaves the padding out")
    x = F.pad(x, padding) if any(padding) else x
    found: Tensor = _MEANS[axes](x, list(kernel_shape), list(strides), 0, bool(ceil_mode))
    return found


def _gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1,
    beta: float = 1,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    product = alpha * ((a.T if transA else a) @ (b.T if transB else b))
    return product if c is None else product + beta * c


def _batch_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
    spatial: int = 1,
) -> Tensor:
    if training_mode or not spatial:
        raise UnknownFormError("batch normalisation by the statistics of the batch, or of each place")
    return F.batch_norm(x, mean, variance, scale, bias, eps=epsilon)


def _flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    before = x.shape[:axis].numel()
    return x.reshape(before, x.numel() // before)


def _reshape(x: Tensor, shape: Any, *, allowzero: int = 0) -> Tensor:
    sizes = _numbers(shape)
    return x.reshape([x.shape[axis] if size == 0 and not allowzero else size for axis, size in enumerate(sizes)])


def _transpose(x: Tensor, *, perm: Sizes = ()) -> Tensor:
    return x.permute(list(perm) or list(reversed(range(x.dim()))))


def _squeeze(x: Tensor, given: Any = None, *, axes: Sizes = ()) -> Tensor:
    which = list(axes) if given is None else _numbers(given)
    return x.squeeze(tuple(which)) if which else x.squeeze()


def _unsqueeze(x: Tensor, given: Any = None, *, axes: Sizes = ()) -> Tensor:
    which = list(axes) if given is None else _numbers(given)
    for axis in sorted(axis % (x.dim() + len(which)) for axis in which):
        x = x.unsqueeze(axis)
    return x


def _slice(
    x: Tensor,
    starts: Any = None,
    ends: Any = None,
    axes: Any = None,
    steps: Any = None,
    **older: Sizes,
) -> Tensor:
    first = _numbers(older["starts"] if starts is None else starts)
    last = _numbers(older["ends"] if ends is None else ends)
    which = _numbers(older.get("axes", range(len(first))) if axes is None else axes)
    by = [1] * len(first) if steps is None else _numbers(steps)
    if min(by) < 1:
        raise UnknownFormError("a slice backwards")
    places: list[Any] = [slice(None)] * x.dim()
    for axis, start, end, step in zip(which, first, last, by, strict=True):
        places[axis] = slice(start, end, step)
    return x[tuple(places)]


def _gather(x: Tensor, places: Tensor, *, axis: int = 0) -> Tensor:
    size, axis = x.shape[axis], axis % x.dim()
    found = x.index_select(axis, (places.flatten() % size).to(x.device))
    return found.reshape(*x.shape[:axis], *places.shape, *x.shape[axis + 1 :])


def _split(x: Tensor, given: Any = None, *, axis: int = 0, split: Sizes = (), num_outputs: int = 0) -> Any:
    sizes = list(split) if given is None else _numbers(given)
    if not sizes and not num_outputs:
        raise UnknownFormError("a split by the number of what uses it")
    return torch.split(x, sizes or -(-x.shape[axis] // num_outputs), axis)


def _pad(
    x: Tensor, given: Any = None, value: Any = None, axes: Any = None, *, mode: str = "constant", **older: Any
) -> Tensor:
    sizes = _numbers(older["pads"] if given is None else given)
    if mode != "constant":
        raise UnknownFormError(f"padding by {mode}")
    which = list(range(x.dim())) if axes is None else [axis % x.dim() for axis in _numbers(axes)]
    pairs = dict(zip(which, zip(sizes[: len(which)], sizes[len(which) :], strict=True), strict=True))
    fill = float(older.get("value", 0.0) if value is None else value)
    return F.pad(x, [size for axis in reversed(range(x.dim())) for size in pairs.get(axis, (0, 0))], value=fill)


def _clip(x: Tensor, low: Any = None, high: Any = None, **older: float) -> Tensor:
    low, high = older.get("min", low), older.get("max", high)
    return x.clamp(None if low is None else float(low), None if high is None else float(high))


def _over(reduce: Callable[..., Tensor]) -> Operator:
    """A sum, mean or maximum over axes, which newer files give as an input."""

    def reduced(
        x: Tensor, given: Any = None, *, axes: Sizes = (), keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Tensor:
        which = list(axes) if given is None else _numbers(given)
        if not which and noop_with_empty_axes:
            return x
        return reduce(x, which or list(range(x.dim())), keepdim=bool(keepdims))

    return reduced


def _softmax(function: Callable[..., Tensor]) -> Operator:
    def normalised(x: Tensor, *, axis: int = -1) -> Tensor:
        return function(x, axis)

    return normalised


def _concat(*parts: Tensor, axis: int) -> Tensor:
    return torch.cat(parts, axis)


def _cast(x: Tensor, *, to: int, saturate: int = 1) -> Tensor:
    if to not in (1, 11):  # float and double
        raise UnknownFormError("values that become whole numbers or of half precision")
    return x


def _global(reduce: Callable[..., Tensor]) -> Operator:
    def reduced(x: Tensor) -> Tensor:
        return reduce(x, list(range(2, x.dim())), keepdim=True)

    return reduced


def _largest(first: Tensor, *others: Tensor) -> Tensor:
    """By ReLUs, which can be bounded also where one part is a constant."""
    for other in others:
        first = first + torch.relu(other - first)
    return first


def _same(x: Tensor, *others: Any, **attributes: Any) -> Tensor:
    """Of what does nothing where a network is evaluated, as dropout."""
    return x


OPERATORS: dict[str, Operator] = {
    "Abs": torch.abs,
    "Add": torch.add,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Div": torch.div,
    "Dropout": _same,
    "Elu": F.elu,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": _global(torch.mean),
    "GlobalMaxPool": _global(torch.amax),
    "Identity": _same,
    "LeakyRelu": lambda x, alpha=0.01: F.leaky_relu(x, alpha),
    "Log": torch.log,
    "LogSoftmax": _softmax(torch.log_softmax),
    "MatMul": torch.matmul,
    "Max": _largest,
    "MaxPool": _max_pool,
    "Min": lambda *parts: -_largest(*(-part for part in parts)),
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Pad": _pad,
    "Pow": torch.pow,
    "PRelu": lambda x, slope: x.clamp(min=0) + slope * x.clamp(max=0),
    "ReduceMax": _over(torch.amax),
    "ReduceMean": _over(torch.mean),
    "ReduceSum": _over(torch.sum),
    "Relu": torch.relu,
    "Reshape": _reshape,
    "Sigmoid": torch.sigmoid,
    "Slice": _slice,
    "Softmax": _softmax(torch.softmax),
    "Softplus": F.softplus,
    "Split": _split,
    "Sqrt": torch.sqrt,
    "Squeeze": _squeeze,
    "Sub": torch.sub,
    "Sum": lambda *parts: sum(parts[1:], parts[0]),
    "Tanh": torch.tanh,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
