"""Every registered model is exported to ONNX, or is in the list of those that are not, with the reason."""

import inspect

import numpy as np
import onnxruntime
import pytest
import torch

from buttress import models, registry
from buttress.errors import UserError
from buttress.models.onnx import export_onnx

# Values that make any network quick, wherever its factory has an option of that name; then those of single names.
SIZES = {"width": 4, "depth": 1, "heads": 2, "blocks": 2, "extractor": "small", "step": 0.5, "resolution": 3}
OWN = {
    "cifs-wrn": {"depth": 10, "width": 1},
    "vgg19": {"width": 1 / 16},
    "wrn": {"depth": 10, "width": 1},
}
# Why there is no ONNX file of these.
NOT_EXPORTED = {
    "alt-node": "values that it computes decide what it computes next",
    "lt-node": "values that it computes decide what it computes next",
    "self-gradient": "its forward pass takes a gradient (torch.autograd.grad), which could not be traced",
}
NAMES = models.names()
REPRESENTATIVES = ["cnn", "lt-node"]


def make(name):
    """A small network and four inputs of its kind."""
    known = inspect.signature(registry.model.get(name)).parameters
    options = {key: value for key, value in SIZES.items() if key in known} | OWN.get(name, {})
    shape = (2,)
    if "features" not in known:
        side = known["image_size"].default if "image_size" in known else 16
        side = side if side <= 28 else 16
        shape = (1, side, side)
        options |= {"channels": 1} | ({"image_size": side} if "image_size" in known else {})
    x = torch.rand(4, *shape, generator=torch.Generator().manual_seed(1))
    return models.create(name, classes=3, seed=0, mean=0.4, std=0.2, **options).eval(), x


@pytest.mark.representatives(name=REPRESENTATIVES)
@pytest.mark.parametrize("name", NAMES)
def test_it_is_exported_or_says_why_not(name, tmp_path):
    model, x = make(name)
    path = tmp_path / f"{name}.onnx"
    if name in NOT_EXPORTED:
        with pytest.raises(UserError) as told:
            export_onnx(model, path, x[:2])
        assert f" cannot be exported to ONNX: {NOT_EXPORTED[name]}" in str(told.value)
        assert not path.exists()
        return
    made = export_onnx(model, path, x[:2])
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        logits = model(x)
    np.testing.assert_allclose(session.run(["logits"], {"x": x.numpy()})[0], logits, rtol=1e-4, atol=1e-5)
    assert made.difference <= 1e-4 * max(1, logits.abs().max())


def test_what_is_not_exported_is_there():
    assert set(NOT_EXPORTED) <= set(NAMES)


def test_the_adjoint_is_of_the_backward_pass_alone(tmp_path):
    model = models.create("odenet", seed=0, width=4, extractor="small", step=0.5, adjoint=True).eval()
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    made = export_onnx(model, tmp_path / "net.onnx", x)
    assert made.difference <= 1e-4
    assert model.block.adjoint is True
