from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from buttress.layers import layer_names
from buttress.layers.outputs import first_tensor

Pair = namedtuple("Pair", ["first", "second"])


@dataclass(frozen=True)
class Result:
    indices: object
    hidden: object


VALUE, OTHER, NUMBERS = torch.ones(2), torch.zeros(2), torch.arange(2)
OUTPUTS = {
    "tensor": (lambda h: h, lambda out: out),
    "tuple": (lambda h: (h, OTHER), lambda out: out[0]),
    "None first": (lambda h: (None, h), lambda out: out[1]),
    "indices first": (lambda h: (NUMBERS, h, OTHER), lambda out: out[1]),
    "a list in a tuple": (lambda h: (3, [None, h]), lambda out: out[1][1]),
    "an empty tuple first": (lambda h: ((), h), lambda out: out[1]),
    "named tuple": (lambda h: Pair(None, h), lambda out: out.second),
    "mapping": (lambda h: OrderedDict(length=2, states=(NUMBERS, h)), lambda out: out["states"][1]),
    "dataclass": (lambda h: Result(NUMBERS, {"h": h}), lambda out: out.hidden["h"]),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_first_tensor_is_found_and_another_put_in_its_place(name):
    wrap, unwrap = OUTPUTS[name]
    output = wrap(VALUE)
    found, put = first_tensor(output)
    assert found is VALUE
    changed = put(nn.Identity(), OTHER + 7)
    assert type(changed) is type(output)
    assert torch.equal(unwrap(changed), OTHER + 7)
    assert unwrap(output) is VALUE


@pytest.mark.parametrize("output", [None, (), 3.0, [None, "a"], {}, (NUMBERS,), Result])
def test_there_may_be_none(output):
    assert first_tensor(output)[0] is None


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_module_that_returns_it_anywhere_is_a_layer(name):
    wrap, unwrap = OUTPUTS[name]

    class Part(nn.Linear):
        def forward(self, x):
            return wrap(super().forward(x))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = Part(3, 3)

        def forward(self, x):
            return unwrap(self.part(x))

    assert layer_names(Net(), torch.ones(2, 3), "learnable") == ["part"]
