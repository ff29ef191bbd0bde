"""Calls and inputs that are refused before an attack begins."""

import pytest
import torch

from buttress.engine.call_checks import check_call, check_inputs
from buttress.errors import UserError

X, Y = torch.full((2, 3), 0.5), torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (("last", "eval", "fp32", None), "search must be one of full, first; got 'last'"),
        (("full", "train", "fp32", 8), 'mode="train" mixes the inputs of a batch'),
        (("full", "train", "twin", None), 'mode="train" computes with the batch\'s own statistics'),
        (("full", "eval", "fp32", 0), "batch_size must be a whole number of 1 or more; got 0"),
    ],
)
def test_settings_of_a_call(settings, line):
    with pytest.raises(UserError) as caught:
        check_call(*settings)
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("x", "y", "line"),
    [
        ([[0.5]], Y, "inputs and labels must be tensors; got list and Tensor"),
        (X.byte(), Y, "use x.float() / 255"),
        (X, Y[:1], "2 inputs need as many labels; got 1"),
        (X, Y.to("meta"), "inputs and labels must be on one device; got cpu and meta"),
        (X / 0, Y, "inputs must be finite; 2 of 2 hold NaN or infinity"),
        (X + 1, Y, "inputs must lie in the box [0.0, 1.0]; got 1.5 to 1.5"),
    ],
)
def test_inputs_and_labels(x, y, line):
    with pytest.raises(UserError) as caught:
        check_inputs(lambda x: x, x, y, (0.0, 1.0))
    assert line in str(caught.value)


def test_a_model_that_does_not_fit_the_inputs():
    for model, x, line in (
        (torch.nn.Linear(3, 2, device="meta"), X, "the model is on meta, the inputs are on cpu"),
        (torch.nn.Linear(3, 2), X.double(), "the model's weights are torch.float32, the inputs torch.float64"),
    ):
        with pytest.raises(UserError, match=line):
            check_inputs(model, x, Y, None)
