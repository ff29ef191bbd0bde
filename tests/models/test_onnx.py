"""A network and its ONNX file agree, for any number of inputs; what does not export or agree leaves no file."""

import copy
import sys

import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from buttress import models
from buttress.errors import UserError
from buttress.models.onnx import export_onnx

X = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Wrapped(nn.Module):
    """A linear network around whose logits something is done."""

    def __init__(self, change):
        super().__init__()
        self.linear, self.change = nn.Linear(64, 4), change

    def forward(self, x):
        return self.change(self.linear(x.flatten(1)))


def gradient(logits):
    z = logits.detach().clone().requires_grad_()
    with torch.enable_grad():
        (g,) = torch.autograd.grad(F.cross_entropy(z, z.detach().argmax(1)), z)
    return z + g


REFUSED = {
    "a gradient inside": (gradient, "takes a gradient (torch.autograd.grad), which could not be traced"),
    "a choice": (lambda z: z if z.sum() > 0 else -z, "values that it computes decide what it computes next"),
    "no such operator": (torch.special.bessel_j0, "ONNX has no form of the operator prims.bessel_j0"),
    "one batch size": (lambda z: z + torch.ones(len(z), 1), "becomes a constant, 3; in its forward take x.shape[0]"),
    "chance": (lambda z: F.dropout(z, 0.5, True), "answers the same inputs differently in eval mode"),
    "a tuple": (lambda z: (z, z), "must return logits (N, classes) to be exported; for 3 inputs got a tuple"),
    "one number each": (lambda z: z[:, 0], "for 3 inputs got the shape (3,)"),
    "no number": (lambda z: z.log(), "returns logits that are not finite"),
}


def run(path, x):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"x": x.numpy()})[0])


@pytest.fixture(scope="module")
def network():
    return models.create("cnn", width=4, classes=5, seed=0, mean=0.3, std=0.5).train()


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
    return export_onnx(network, tmp_path_factory.mktemp("onnx") / "new" / "cnn.onnx", X[:1])


def test_the_file_answers_as_the_network_for_any_number_of_inputs(network, exported):
    onnx.checker.check_model(onnx.load(exported.path), full_check=True)
    still = copy.deepcopy(network).eval()
    for count in (1, 2, 11):
        x = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(count))
        with torch.no_grad():
            torch.testing.assert_close(run(exported.path, x), still(x), rtol=1e-5, atol=1e-6)
    assert exported.inputs == 4  # the example twice, and two random ones
    assert 0 <= exported.difference < 1e-5
    assert [p.name for p in exported.path.parent.iterdir()] == ["cnn.onnx"]


def test_the_network_is_left_as_it_was(network, exported):
    assert all(module.training for module in network.modules())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_what_is_there_is_replaced_only_when_asked(exported, tmp_path):
    path, other = tmp_path / "n.onnx", Wrapped(torch.tanh)
    path.write_bytes(b"mine")
    with pytest.raises(UserError, match=r"n\.onnx exists: choose another name, or ask for it to be replaced"):
        export_onnx(other, path, X)
    assert path.read_bytes() == b"mine"
    export_onnx(other, path, X, overwrite=True)
    with torch.no_grad():
        torch.testing.assert_close(run(path, X), other(X))


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_exported_is_told_in_one_line_and_leaves_nothing(case, tmp_path, capfd):
    change, told = REFUSED[case]
    (tmp_path / "n.onnx").write_bytes(b"mine")
    with pytest.raises(UserError) as error:
        export_onnx(Wrapped(change), tmp_path / "n.onnx", X, overwrite=True)
    assert str(error.value).startswith("Wrapped ")
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("n.onnx", b"mine")]
    assert capfd.readouterr() == ("", "")


def test_a_file_that_disagrees_is_removed(tmp_path, monkeypatch):
    """An exporter that loses a factor of 1.001."""
    real, model = torch.onnx.export, Wrapped(torch.tanh)

    def wrong(network, *args, **options):
        network.linear.weight.data *= 1.001
        return real(network, *args, **options)

    monkeypatch.setattr(torch.onnx, "export", wrong)
    with pytest.raises(UserError, match="exported to ONNX disagrees with the network: a logit is off by"):
        export_onnx(model, tmp_path / "n.onnx", X)
    assert list(tmp_path.iterdir()) == []
    assert export_onnx(model, tmp_path / "n.onnx", X, tolerance=0.01).difference > 1e-5


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_told_with_what_to_install(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"needs {package}, which cannot be imported .*pip install 'buttress\[onnx\]'"):
        export_onnx(Wrapped(torch.tanh), tmp_path / "n.onnx", X)


def test_other_mistakes(tmp_path):
    model = Wrapped(torch.tanh)
    with pytest.raises(UserError, match=r"a name ending in \.onnx; got .*n\.pt"):
        export_onnx(model, tmp_path / "n.pt", X)
    with pytest.raises(UserError, match=r"one at least; got the shape \(0, 1, 8, 8\)"):
        export_onnx(model, tmp_path / "n.onnx", X[:0])
    with pytest.raises(UserError, match="tolerance must be a finite number above 0; got 0"):
        export_onnx(model, tmp_path / "n.onnx", X, tolerance=0)
    with pytest.raises(UserError, match="its first layer, "):
        export_onnx(models.create("cnn"), tmp_path / "n.onnx", torch.rand(2, 3, 8, 8))
    assert list(tmp_path.iterdir()) == []
