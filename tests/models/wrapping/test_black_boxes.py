"""Networks that return class numbers, work on NumPy arrays, or are ONNX files: the same classes, and no gradients."""

import copy

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC, LinearSVC
from torch import nn

from buttress import models
from buttress.attacks import BoundaryAttack, HopSkipJump
from buttress.engine.fingerprint import digest
from buttress.errors import UserError
from buttress.threat import Threat


class Sides(nn.Module):
    """Class numbers: 0 left of 0.5, 1 up to 1.5, 2 beyond, by the first value."""

    def forward(self, x):
        return (x[:, 0] > 0.5).long() + (x[:, 0] > 1.5).long()


X = torch.tensor([[0.1, 0.0], [0.9, 0.3], [1.9, 0.0]])
BOX = (0.0, 2.0)


@pytest.mark.parametrize("attack", [HopSkipJump, BoundaryAttack])
def test_decision_based_attacks_find_the_boundary_of_class_numbers(attack):
    """The boundaries are at 0.5 and 1.5: 0.4 away each."""
    model = models.FromLabels(Sides(), 3)
    result = attack(threat=Threat(norm="l2", eps=float("inf"), box=BOX), queries=200)(model, X, torch.arange(3))
    assert result.success.all()
    torch.testing.assert_close(result.distance, torch.full((3,), 0.4, dtype=torch.float64), rtol=0, atol=0.01)


def test_class_numbers_are_no_logits_and_told_by_name():
    with pytest.raises(UserError, match=r"numbers of classes, wrap it as models.FromLabels\(model, classes\)"):
        HopSkipJump(queries=2)(Sides(), X / 2, torch.arange(3))


@pytest.mark.parametrize(
    ("output", "line"),
    [
        (torch.zeros(3), "class numbers are integers, one for each of the 3 inputs; got torch.float32"),
        (torch.zeros(2, dtype=torch.long), "one for each of the 3 inputs; got torch.int64 of shape (2,)"),
        (torch.full((3,), 3), "class numbers must be 0 to 2; got 3 to 3"),
    ],
)
def test_what_is_no_class_number_is_told(output, line):
    model = models.FromLabels(nn.Module(), 3)
    model.model.forward = lambda x: output
    with pytest.raises(UserError) as told:
        model(X)
    assert line in str(told.value)


@pytest.fixture(scope="module")
def points():
    random = np.random.default_rng(0)
    y = random.integers(3, size=150)
    return random.normal(size=(150, 2)).astype(np.float32) * 0.4 + np.stack([y, y % 2], 1), y + 5  # labels 5, 6, 7


@pytest.mark.parametrize(
    "estimator", [SVC(), SVC(decision_function_shape="ovo"), LinearSVC(), KNeighborsClassifier()], ids=str
)
@pytest.mark.parametrize("classes", [2, 3])
def test_an_estimator_is_the_model_that_it_predicts(points, estimator, classes):
    x, y = (values[points[1] < 5 + classes] for values in points)
    estimator.fit(x, y)
    model = models.FromNumpy(estimator)
    logits = model(torch.tensor(x, dtype=torch.float32).view(-1, 1, 2))
    assert logits.shape == (len(x), classes)
    assert (estimator.classes_[logits.argmax(1)] == estimator.predict(x.astype(np.float32))).all()


def test_an_estimator_that_names_another_class_than_its_highest_score_is_followed():
    class Contrary:
        classes_ = (0, 1)

        def predict(self, rows):
            return np.zeros(len(rows), dtype=int)

        def decision_function(self, rows):
            return np.ones(len(rows))

    assert models.FromNumpy(Contrary())(X).argmax(1).tolist() == [0, 0, 0]


def test_a_function_of_arrays_gives_logits_or_class_numbers():
    weight = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    torch.testing.assert_close(models.FromNumpy(lambda rows: rows @ weight)(X), X)
    with pytest.raises(UserError, match="say how many classes there are, classes=10"):
        models.FromNumpy(lambda rows: rows[:, 0].astype(int))(X)
    numbers = models.FromNumpy(lambda rows: rows[:, 0].astype(int), classes=2)(X)
    assert numbers.tolist() == [[1, -1], [1, -1], [-1, 1]]
    with pytest.raises(UserError, match="an estimator with a method predict; got int"):
        models.FromNumpy(3)


class Odd:
    """An estimator whose answers are not classes."""

    def __init__(self, answer, classes=(0, 1)):
        self.answer, self.classes_ = answer, classes

    def predict(self, rows):
        return self.answer


@pytest.mark.parametrize(
    ("classifier", "classes", "line"),
    [
        (Odd([0.55, 0.2, 0.1]), None, "Odd must predict one class for each input; got [0.55] for the first"),
        (Odd([[0, 1], [1, 1], [0, 0]]), None, "Odd must predict one class for each input; got [[0, 1]] for the first"),
        (Odd([0, 1, 0]), 5, "Odd knows 2 classes; got classes=5: leave it out"),
        (lambda rows: ["cat", "dog", "cat"], 2, "the function must return an array of numbers"),
        (lambda rows: None, 2, "the function must return an array of numbers"),
        (lambda rows: rows[:, 0] > 0, 4, "class numbers are integers, one for each of the 3 inputs; got torch.bool"),
    ],
)
def test_classifiers_that_are_none_are_told_in_one_line(classifier, classes, line):
    with pytest.raises(UserError) as told:
        models.FromNumpy(classifier, classes)(X)
    assert line in str(told.value)
    assert "\n" not in str(told.value)


def test_other_classifiers_have_other_digests(points):
    near, far = (KNeighborsClassifier(k).fit(*points) for k in (1, 9))
    assert digest(models.FromNumpy(near)) == digest(models.FromNumpy(copy.deepcopy(near)))
    assert digest(models.FromNumpy(near)) != digest(models.FromNumpy(far))


@pytest.fixture(scope="module")
def network(nets):
    return nets.seeded(lambda: nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))).eval()


@pytest.fixture(scope="module", params=["N", 2], ids=["any number", "two at once"])
def file(request, network, tmp_path_factory):
    """The network's ONNX file, written node by node; its number of inputs free, or a constant."""
    first, _, last = network
    weights = {"w": first.weight, "b": first.bias, "v": last.weight, "c": last.bias}
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w", "b"], ["hidden"], transB=1),
            helper.make_node("Relu", ["hidden"], ["active"]),
            helper.make_node("Gemm", ["active", "v", "c"], ["logits"], transB=1),
        ],
        "network",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [request.param, 2])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [request.param, 3])],
        [numpy_helper.from_array(value.detach().numpy(), name) for name, value in weights.items()],
    )
    path = tmp_path_factory.mktemp("onnx") / "network.onnx"
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def test_an_onnx_file_computes_what_its_network_does(file, network):
    model = models.FromONNX(file)
    with torch.no_grad():
        torch.testing.assert_close(model(X), network(X), rtol=1e-5, atol=1e-6)
    again = copy.deepcopy(model)
    assert torch.equal(again(X), model(X))
    assert digest(again) == digest(model)
    threat = Threat(norm="l2", eps=float("inf"), box=BOX)
    result = HopSkipJump(threat=threat, queries=100)(model, X, network(X).argmax(1))
    assert torch.equal(network(result.x_adv).argmax(1) != network(X).argmax(1), result.success)


def test_mistakes_with_onnx_files_are_one_line(tmp_path, file):
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(b"no network")
    for path, output, line in (
        (tmp_path / "none.onnx", None, "none.onnx cannot be read: No such file"),
        (wrong, None, "is no ONNX file that onnxruntime can run"),
        (file, "scores", "has no output 'scores': its outputs are"),
    ):
        with pytest.raises(UserError, match=line) as told:
            models.FromONNX(path, output)
        assert "\n" not in str(told.value)
    with pytest.raises(UserError, match="cannot be run on inputs"):
        models.FromONNX(file)(torch.zeros(2, 7))
