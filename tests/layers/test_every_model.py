"""Layers of every registered model, found by discovery: what an input gives depends on no other input."""

import pytest
import torch
from tests.layers.zoo.network import Wave
from tests.models.test_every_model import every_model, inputs, make, scramble

from buttress import models
from buttress.layers import sustainability

# Wider, deeper or mixed from the blocks and solvers of the others.
ALIKE = {"alt-node", "cifs-resnet18", "cifs-wrn", "cnn", "lsa-a", "odenet-cnn", "preactresnet18", "vit-hybrid", "wrn"}


@pytest.mark.representatives(name=[name for name in models.names() if name not in ALIKE])
@every_model
def test_an_inputs_numbers_are_the_same_alone_and_among_others(name):
    model, x = make(name), inputs(name, count=2)
    scramble(model)
    data = [(x, torch.zeros(len(x), dtype=torch.int64))]
    together, alone = (sustainability(model, data, Wave(), "*", batch_size=size) for size in (len(x), 1))
    assert together.layers == alone.layers
    known = ~(together.values.isnan() | alone.values.isnan())
    torch.testing.assert_close(together.values[known], alone.values[known], rtol=1e-3, atol=1e-4)
    # An input that an ODE solver takes fewer steps for lacks the last ones, alone or in both passes.
    steps = {layer for profile in (together, alone) for layers in profile.unpaired.values() for layer in layers}
    differ = (together.values.isnan() != alone.values.isnan())[0].any(1)
    assert {layer for layer, one in zip(alone.layers, differ.tolist(), strict=True) if one} <= steps
