"""What is found of layers does not depend on how many inputs are computed at once, for networks of every kind."""

import pytest
import torch
from tests.layers.zoo.every import NETWORKS
from tests.layers.zoo.network import Wave, inputs

from buttress.layers import patching, sustainability, tolerance

COUNT = 5
CLOSE = {"rtol": 1e-4, "atol": 1e-4, "equal_nan": True}
KINDS = ["experts by mask", "row by row", "slots"]


def analyses(network, size):
    """Layer -> its numbers for each input, and why others have none, of three analyses."""
    x = inputs(COUNT)
    with torch.no_grad():
        data = [(x, network(x).argmax(1))]
    profile = sustainability(network, data, Wave(), network.layers, batch_size=size)
    searched = tolerance(network, data, Wave(), network.layers, steps=1, bisections=1, batch_size=size)
    patched = patching(network, data, Wave(size=3.0), network.layers, doses=2, batch_size=size)
    numbers = {
        "displacement": dict(zip(profile.layers, profile.values[0], strict=True)),
        "tolerance": dict(zip(searched.layers, torch.stack([searched.rho, searched.displacement], 1), strict=True)),
        "right again": dict(zip(patched.layers, patched.right, strict=True)),
        "right again with few": dict(zip(patched.layers, patched.few, strict=True)),
        "paths": {(p.sender, p.receiver): torch.tensor([p.share, p.inputs]) for p in patched.paths},
    }
    return numbers, {"profile": profile.left_out, "tolerance": searched.left_out, "patching": patched.left_out}


def of_the_batch_alone(network, size):
    """Names that there are only where several inputs run together, which stand for no input's layer."""
    return network.left_out_of([COUNT]) - network.left_out_of([size])


@pytest.mark.representatives(name=KINDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_found_does_not_depend_on_the_size_of_batches(name, nets):
    network = nets.seeded(NETWORKS[name]).eval()
    whole, left_out = analyses(network, COUNT)
    for size in (2, 1):
        parts, also_left_out = analyses(network, size)
        others = of_the_batch_alone(network, size)
        for what, expected in whole.items():
            expected = {layer: numbers for layer, numbers in expected.items() if layer not in others}
            assert list(parts[what]) == list(expected), what
            for layer, numbers in expected.items():
                torch.testing.assert_close(
                    parts[what][layer].float(),
                    numbers.float(),
                    **CLOSE,
                    msg=lambda text, at=(what, layer): f"{at}: {text}",
                )
        for what, reasons in left_out.items():
            assert also_left_out[what] == {layer: why for layer, why in reasons.items() if layer not in others}
