from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn

from buttress.errors import UserError
from buttress.models import FromProbabilities, Output


class Returns(nn.Module):
    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: torch.Tensor) -> Any:
        return self.output


x, logits, other = torch.zeros(2, 3), torch.rand(2, 4), torch.rand(2, 9)


@pytest.mark.parametrize(
    ("output", "key"),
    [
        ((logits, other), 0),
        ((other, logits), "1"),
        ([other, logits], -1),
        ([other, logits], "-1"),
        ({"logits": logits, "aux": other}, "logits"),
        (OrderedDict(a=other, b=logits), "b"),
        ({0: logits, 1: other}, "0"),
        ({"0": logits, 0: other}, "0"),
    ],
)
def test_the_asked_part_is_returned(output, key):
    assert Output(Returns(output), key)(x) is logits


@pytest.mark.parametrize(
    ("output", "key", "line"),
    [
        ((logits, other), 2, "the model returns a tuple of 2: give a position from 0 to 1; got 2"),
        ([logits, other], "logits", "the model returns a list of 2: give a position from 0 to 1; got 'logits'"),
        ({"a": logits, "b": other}, "c", "the model returns a dict without 'c': its keys are 'a', 'b'"),
        (logits, 0, "output 0 cannot be picked, for the model returns a Tensor: leave the key out"),
        ((logits, None), 1, "output 1 of the model is a NoneType, not a tensor of logits"),
    ],
)
def test_what_came_instead_is_told_in_one_line(output, key, line):
    with pytest.raises(UserError) as told:
        Output(Returns(output), key)(x)
    assert str(told.value) == line


def test_the_softmax_of_the_logits_gives_the_probabilities_back():
    p = torch.softmax(5 * torch.randn(6, 4, dtype=torch.float64), 1)
    torch.testing.assert_close(torch.softmax(FromProbabilities(Returns(p))(x), 1), p)


def test_one_probability_becomes_one_logit():
    for shape in ((7, 1), (7,)):
        p = torch.linspace(0.05, 0.95, 7, dtype=torch.float64).reshape(shape)
        torch.testing.assert_close(torch.sigmoid(FromProbabilities(Returns(p))(x)), p)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_zero_and_one_have_finite_logits(dtype):
    for p in (torch.tensor([[0.0, 1.0]], dtype=dtype), torch.tensor([[0.0], [1.0]], dtype=dtype)):
        p.requires_grad_()
        z = FromProbabilities(Returns(p))(x)
        assert z.dtype == dtype
        assert z.isfinite().all()
        assert torch.autograd.grad(z.sum(), p)[0].isfinite().all()
