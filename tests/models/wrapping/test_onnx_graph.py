"""Networks in ONNX files as modules of torch: as onnxruntime, with gradients, and with bounds."""

import logging

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from buttress import certificates, models
from buttress.engine.fingerprint import digest
from buttress.errors import UserError
from buttress.models.wrapping.onnx_graph import GraphFromONNX
from buttress.threat import Threat

GENERATOR = np.random.default_rng(0)


def numbers(*shape):
    return GENERATOR.normal(size=shape).astype(np.float32) * 0.3


def written(path, nodes, constants, shape, opset=17, output="out"):
    """A file whose nodes take "x" (shape) and come to "out"."""
    taken = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    given = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "network", [taken], [given], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def node(kind, taken, given="out", **attributes):
    return helper.make_node(kind, taken.split(), given.split(), **attributes)


# Of each: operators from "x" to "v", with constants, for inputs (1, 3, 6, 6).
PARTS = {
    "conv": (
        [node("Conv", "x w b", "v", strides=[2, 2], pads=[1, 0, 0, 1])],
        {"w": numbers(4, 3, 3, 3), "b": numbers(4)},
    ),
    "grouped conv": ([node("Conv", "x w", "v", group=3, dilations=[2, 2])], {"w": numbers(3, 1, 2, 2)}),
    "same upper": ([node("Conv", "x w", "v", auto_pad="SAME_UPPER", strides=[2, 2])], {"w": numbers(2, 3, 3, 3)}),
    "same lower": ([node("Conv", "x w", "v", auto_pad="SAME_LOWER")], {"w": numbers(2, 3, 2, 2)}),
    "max pool": ([node("MaxPool", "x", "v", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])], {}),
    "max pool, ceil": ([node("MaxPool", "x", "v", kernel_shape=[4, 4], strides=[3, 3], ceil_mode=1)], {}),
    "average": ([node("AveragePool", "x", "v", kernel_shape=[2, 2], pads=[1, 1, 0, 0], count_include_pad=1)], {}),
    "global average": ([node("GlobalAveragePool", "x", "v")], {}),
    "global maximum": ([node("GlobalMaxPool", "x", "v")], {}),
    "normalisation": (
        [node("Sub", "x m", "s"), node("Div", "s d", "v")],
        {"m": numbers(3, 1, 1), "d": np.array([0.2, 0.3, 0.4], np.float32).reshape(3, 1, 1)},
    ),
    "batch norm": (
        [node("BatchNormalization", "x a b m s", "v")],
        {"a": numbers(3), "b": numbers(3), "m": numbers(3), "s": np.abs(numbers(3)) + 0.5},
    ),
    "residual": ([node("Relu", "x", "r"), node("Add", "r x", "v")], {}),
    "channels last": ([node("Transpose", "x", "t", perm=[0, 2, 3, 1]), node("Relu", "t", "v")], {}),
    "leaky": ([node("LeakyRelu", "x", "v", alpha=0.3)], {}),
    "prelu": ([node("PRelu", "x a", "v")], {"a": np.abs(numbers(3, 1, 1))}),
    "sigmoid": ([node("Sigmoid", "x", "v")], {}),
    "tanh": ([node("Tanh", "x", "v")], {}),
    "elu": ([node("Elu", "x", "v", alpha=0.7)], {}),
    "softplus": ([node("Softplus", "x", "v")], {}),
    "clip": ([node("Clip", "x a b", "v")], {"a": np.float32(0.2), "b": np.float32(0.7)}),
    "clip from below": ([node("Clip", "x a", "v")], {"a": np.float32(0.5)}),
    "square": ([node("Pow", "x two", "v")], {"two": np.float32(2)}),
    "concat": ([node("Relu", "x", "r"), node("Concat", "r x", "v", axis=1)], {}),
    "slice": (
        [node("Slice", "x a b c d", "v")],
        {"a": np.array([1, 0]), "b": np.array([6, 9**9]), "c": np.array([2, -1]), "d": np.array([2, 1])},
    ),
    "split": (
        [node("Split", "x sizes", "p q", axis=1), node("Neg", "q", "n"), node("Concat", "n p", "v", axis=1)],
        {"sizes": np.array([1, 2])},
    ),
    "gather": ([node("Gather", "x i", "v", axis=1)], {"i": np.array([2, -3])}),
    "pad": ([node("Pad", "x p c", "v")], {"p": np.array([0, 0, 1, 2, 0, 0, 0, 1]), "c": np.float32(0.5)}),
    "mean": ([node("ReduceMean", "x", "v", axes=[2, 3], keepdims=0)], {}),
    "sum": ([node("ReduceSum", "x a", "v", keepdims=1)], {"a": np.array([-1])}),
    "largest": ([node("Max", "x c", "v")], {"c": np.full((1,), 0.4, np.float32)}),
    "reshape by its own shape": (
        [
            node("Shape", "x", "s"),
            node("Gather", "s zero", "n"),
            node("Unsqueeze", "n zeros", "m"),
            node("Concat", "m rest", "to", axis=0),
            node("Reshape", "x to", "v"),
        ],
        {"zero": np.array(0), "zeros": np.array([0]), "rest": np.array([-1])},
    ),
    "constant node": (
        [node("Constant", "", "c", value=numpy_helper.from_array(numbers(3, 1, 1))), node("Mul", "x c", "v")],
        {},
    ),
    "squeezes": ([node("Unsqueeze", "x a", "u"), node("Squeeze", "u a", "v")], {"a": np.array([2])}),
    "dropout": ([node("Dropout", "x", "v")], {}),
    "smallest": ([node("Neg", "x", "n"), node("Min", "x n", "v")], {}),
    "max pool, same": ([node("MaxPool", "x", "v", kernel_shape=[2, 2], auto_pad="SAME_LOWER")], {}),
}


def whole(path, part, batch):
    """The part, then a linear layer to four logits."""
    nodes, constants = PARTS[part]
    example = written(path, [*nodes, node("Flatten", "v")], constants, [1, 3, 6, 6])
    features = models.FromONNX(example)(torch.zeros(1, 3, 6, 6)).shape[1]
    nodes = [*nodes, node("Flatten", "v", "f"), node("Gemm", "f weight bias", transB=1)]
    constants = constants | {"weight": numbers(4, features), "bias": numbers(4)}
    return written(path, nodes, constants, [batch, 3, 6, 6])


@pytest.mark.parametrize(("part", "batch"), [*((part, 1) for part in PARTS), ("reshape by its own shape", "N")])
def test_each_operator_is_as_in_onnxruntime_and_can_be_bounded(part, batch, tmp_path):
    path = whole(tmp_path / "net.onnx", part, batch)
    model, runtime = models.from_onnx(path), models.FromONNX(path)
    assert isinstance(model, GraphFromONNX)
    x = torch.rand(3, 3, 6, 6, requires_grad=True)
    logits = model(x)
    torch.testing.assert_close(logits.detach(), runtime(x), rtol=1e-5, atol=1e-5)
    assert torch.autograd.grad(logits.sum(), x)[0].abs().sum() > 0
    threat, y = Threat(eps=0.01), logits.argmax(1)
    found = certificates.certify(model, x.detach(), y, threat=threat)
    moved = (x.detach() + 0.01 * (2 * torch.rand(50, *x.shape) - 1)).clamp(0, 1)
    others = model(moved.flatten(0, 1)).detach().view(50, 3, 4)
    true = others.gather(2, y.view(1, 3, 1).expand(50, -1, 1))[..., 0]
    margins = true - others.scatter(2, y.view(1, 3, 1).expand(50, -1, 1), -torch.inf).amax(2)
    assert (margins >= found.margin - 1e-5).all()


def test_a_column_of_features_that_weights_multiply_from_the_left_takes_images(tmp_path):
    constants = {"a": numbers(8, 36), "b": numbers(8, 1), "c": numbers(3, 8)}
    nodes = [node("MatMul", "a x", "p"), node("Add", "p b", "q"), node("Relu", "q", "r"), node("MatMul", "c r")]
    model = models.from_onnx(written(tmp_path / "net.onnx", nodes, constants, [36, 1]))
    x = torch.rand(5, 1, 6, 6)
    expected = (x.flatten(1) @ torch.tensor(constants["a"]).T + torch.tensor(constants["b"]).T).relu()
    torch.testing.assert_close(model(x), expected @ torch.tensor(constants["c"]).T)


def test_axes_in_another_order_are_refused(tmp_path):
    nodes = [node("Flatten", "x", "f"), node("MatMul", "f w")]
    model = models.from_onnx(written(tmp_path / "net.onnx", nodes, {"w": numbers(48, 3)}, [1, 4, 4, 3]))
    with pytest.raises(UserError, match=r"takes inputs of the shape \(1, 4, 4, 3\); got \(2, 3, 4, 4\)"):
        model(torch.rand(2, 3, 4, 4))


def test_a_file_with_another_operator_is_run_by_onnxruntime_and_that_is_said(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    nodes = [node("Flatten", "x", "f"), node("TopK", "f k", "out places")]
    path = written(tmp_path / "net.onnx", nodes, {"k": np.array([4])}, [1, 3, 6, 6])
    assert isinstance(models.from_onnx(path), models.FromONNX)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.endswith("onnxruntime, without gradients and bounds: its operator TopK has no form in torch here")


def test_files_that_differ_in_an_attribute_alone_have_other_digests(tmp_path):
    paths = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for path, alpha in zip(paths, (0.1, 0.2), strict=True):
        written(path, [node("LeakyRelu", "x", "l", alpha=alpha), node("Flatten", "l")], {}, [1, 3])
    assert digest(models.from_onnx(paths[0])) != digest(models.from_onnx(paths[1]))


def test_what_is_exported_comes_back(tmp_path):
    from buttress.models.onnx import export_onnx

    net = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)
    )
    x = torch.rand(3, 1, 6, 6)
    export_onnx(net.eval(), tmp_path / "net.onnx", x)
    model = models.from_onnx(tmp_path / "net.onnx")
    assert isinstance(model, GraphFromONNX)
    torch.testing.assert_close(model(x), net(x), rtol=1e-4, atol=1e-5)
