"""Networks in ONNX files as modules of torch: with gradients, and operations that can be bounded."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from buttress.errors import UserError, one_line
from buttress.model_call import call_model
from buttress.models.wrapping.from_onnx import FromONNX
from buttress.models.wrapping.onnx_operators import OPERATORS, UnknownFormError

_log = logging.getLogger(__name__)
_TOLERANCE = 1e-4  # of the largest logit: what two orders of summation may come to
_CHECKED = 3  # random inputs


class NoFormError(Exception):
    """Says why a file has no form in torch here."""


class GraphFromONNX(nn.Module):
    """The network of an ONNX file, each of its operators a module of torch with the file's numbers.

    What the file computes for one input is computed for each, so that files that take one at a time, as verification
    competitions' do, take any number. Inputs whose values have the file's order are given its shape: (N, 1, 28, 28) to
    a network that takes (1, 784), or (1, 784, 1).

    Args:
        path: of the file, whose first input is the images.
        output: name of the output that holds the logits; the first unless given.

    Raises:
        NoFormError: for an operator that has no form in torch here, naming it, or a shape that is left open.
    """

    def __init__(self, path: str | Path, output: str | None = None) -> None:
        super().__init__()
        from onnx import load, numpy_helper

        self._digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        loaded = load(str(path))
        graph, opsets = loaded.graph, list(loaded.opset_import)
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        taken = next(value for value in graph.input if value.name not in constants)
        self.shape = _shape(taken)
        self.input, self.output = taken.name, output or graph.output[0].name
        self.steps = nn.ModuleList()
        values: dict[str, Any] = {self.input: torch.zeros(self.shape)}
        with torch.no_grad():
            for node in graph.node:
                given = {name: constants[name] for name in node.input if name in constants}
                if node.op_type == "Shape" and node.input[0] in values:
                    start, end = (_attributes(node).get(name) for name in ("start", "end"))
                    constants[node.output[0]] = np.array(values[node.input[0]].shape[start:end], dtype=np.int64)
                elif all(name in given for name in node.input if name):
                    constants |= _evaluated(node, opsets, given)
                else:
                    step = Step(node, given)
                    self.steps.append(step)
                    step.run(values)
        if self.output not in values:
            raise NoFormError(f"its output {self.output!r} does not depend on its input")

    def forward(self, x: Tensor) -> Tensor:
        """(N, classes) what the file computes for each of (N, ...) inputs."""
        single = x.reshape(len(x), *self._fitting(x))
        if len(x) == 1:  # the same without vmap, which others may put around this
            return self._one(single[0])
        outputs: Tensor = torch.func.vmap(self._one)(single)
        return outputs.flatten(0, 1)

    def _one(self, x: Tensor) -> Tensor:
        values: dict[str, Any] = {self.input: x}
        for step in self.steps:
            assert isinstance(step, Step)
            step.run(values)
        output: Tensor = values[self.output]
        return output.reshape(1, -1)

    def get_extra_state(self) -> str:
        """What its operators do beside their numbers: a digest of the file."""
        return self._digest

    def set_extra_state(self, state: str) -> None:
        """Nothing: the file is given when the model is made."""

    def _fitting(self, x: Tensor) -> list[int]:
        """The file's shape, for inputs of the same shape but for axes of size 1, or where one of both is flat."""
        mine, theirs = ([size for size in shape if size != 1] for shape in (self.shape, x.shape[1:]))
        flat = min(len(mine), len(theirs)) <= 1 and x.shape[1:].numel() == torch.Size(self.shape).numel()
        if mine != theirs and not flat:
            raise UserError(
                f"this ONNX file takes inputs of the shape {tuple(self.shape)}; got {tuple(x.shape)}: where the order "
                "of axes is another, wrap it in a module that permutes them"
            )
        return self.shape


class Step(nn.Module):
    """One operator.

    Args:
        node: of the file.
        constants: those of its inputs that do not depend on the network's.
    """

    def __init__(self, node: Any, constants: dict[str, np.ndarray]) -> None:
        super().__init__()
        if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
            raise NoFormError(f"its operator {node.op_type} has no form in torch here")
        self.kind, self.taken, self.given = node.op_type, list(node.input), list(node.output)
        self.attributes = _attributes(node)
        self.fixed = dict[int, Tensor | str]()
        for place, name in enumerate(self.taken):
            if name not in constants:
                continue
            value = torch.from_numpy(np.array(constants[name]))
            if value.is_floating_point():
                self.fixed[place] = f"constant{place}"
                self.register_buffer(f"constant{place}", value)
            else:
                self.fixed[place] = value  # axes and sizes stay on the CPU

    def forward(self, *inputs: Any) -> Any:
        """What the operator computes of all its inputs."""
        return OPERATORS[self.kind](*inputs, **self.attributes)

    def run(self, values: dict[str, Any]) -> None:
        """Compute the outputs of values by name, and put them there."""
        inputs = [self._input(place, name, values) for place, name in enumerate(self.taken)]
        while inputs and inputs[-1] is None:  # what is left out at the end
            inputs.pop()
        try:
            result = self(*inputs)
        except (UnknownFormError, KeyError, TypeError) as error:
            raise NoFormError(f"its operator {self.kind} is not known in this form ({one_line(error)})") from error
        results = result if isinstance(result, tuple) else (result,)
        values.update(zip(self.given, results, strict=False))

    def _input(self, place: int, name: str, values: dict[str, Any]) -> Any:
        fixed = self.fixed.get(place)
        if isinstance(fixed, str):
            return getattr(self, fixed)
        return values.get(name) if fixed is None else fixed


def from_onnx(path: str | Path, output: str | None = None) -> nn.Module:
    """The network of an ONNX file: as a `GraphFromONNX` where it has that form, else run by onnxruntime.

    What has a form is held against onnxruntime on random inputs first.

    Raises:
        UserError: as `FromONNX`.
    """
    runtime = FromONNX(path, output)
    try:
        graph = GraphFromONNX(path, output).eval()
        _check(graph, runtime)
    except (NoFormError, ImportError) as error:
        _log.warning("%s is run by onnxruntime, without gradients and bounds: %s", path, one_line(error))
        return runtime
    return graph


def _check(graph: GraphFromONNX, runtime: FromONNX) -> None:
    """Hold a graph against onnxruntime."""
    random = torch.Generator().manual_seed(0)
    x = torch.rand(_CHECKED, *graph.shape, generator=random)
    with torch.no_grad():
        own, theirs = call_model(graph, x), torch.cat([call_model(runtime, one).reshape(1, -1) for one in x])
    if own.shape != theirs.shape or not torch.allclose(
        own, theirs, rtol=0, atol=_TOLERANCE * float(theirs.abs().max())
    ):
        raise NoFormError("torch and onnxruntime differ")


def _shape(value: Any) -> list[int]:
    """Of one input, (1, ...)."""
    dims = value.type.tensor_type.shape.dim
    sizes = [dim.dim_value for dim in dims]
    if len(sizes) < 2 or min(sizes[1:]) < 1 or value.type.tensor_type.elem_type != 1:
        raise NoFormError("its input's shape is left open, or its input is not of single precision")
    if sizes[0] > 1 and torch.Size(sizes[1:]).numel() > 1:  # else a column of features without an axis of inputs
        raise NoFormError(f"it takes {sizes[0]} inputs at once")
    return [sizes[0] or 1, *sizes[1:]]


def _attributes(node: Any) -> dict[str, Any]:
    from onnx import helper

    found = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


def _evaluated(node: Any, opsets: list[Any], given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What an operator on constants alone gives, by onnx's own reference."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    inputs = [helper.make_empty_tensor_value_info(name) for name in given]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
    model = helper.make_model(helper.make_graph([node], "constant", inputs, outputs), opset_imports=opsets)
    try:
        return dict(zip(node.output, ReferenceEvaluator(model).run(None, given), strict=True))
    except Exception as error:  # the reference's errors have no class in common
        raise NoFormError(f"its operator {node.op_type} cannot be computed ({one_line(error)})") from error
