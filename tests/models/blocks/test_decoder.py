import pytest
import torch
from torch import nn

from buttress.errors import UserError
from buttress.models.blocks.decoder import Decoder


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 6, 6), (3, 32, 32), (2, 7, 13), (3, 1, 1), (5,), (64,)])
@pytest.mark.parametrize("box", [(0.0, 1.0), (-1.0, 3.0), None])
def test_it_makes_inputs_of_any_shape_inside_the_box(shape, box):
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        decoder = Decoder(11, shape, width=4, box=box)
    z = 1000 * torch.randn(3, 11, generator=torch.Generator().manual_seed(1))
    made = decoder(z)
    assert made.shape == (3, *shape)
    assert made.std() > 0
    low, high = (-float("inf"), float("inf")) if box is None else box
    assert ((made >= low) & (made <= high)).all()
    assert box is not None or made.abs().max() > 1
    made.sum().backward()
    assert decoder.layers[0].weight.grad.isfinite().all()


def test_the_generator_of_mnist_has_the_papers_sizes():
    layers = Decoder(500, (1, 28, 28)).layers
    sizes, hidden = [], torch.zeros(1, 500)
    with torch.no_grad():
        for layer in layers:
            hidden = layer(hidden)
            sizes.append(tuple(hidden.shape[1:]))
    assert sizes[1:] == [
        *((50, 4, 4), (50, 4, 4), (50, 14, 14), (20, 12, 12), (20, 12, 12)),
        *((20, 35, 35), (20, 32, 32), (1, 28, 28)),
    ]
    assert layers[0].bias is None
    assert isinstance(layers[0], nn.Linear)


@pytest.mark.parametrize(("latent", "shape", "width"), [(0, (5,), 4), (5, (2, 3), 4), (5, (1, 0, 4), 4), (5, (3,), 0)])
def test_other_sizes_are_refused(latent, shape, width):
    with pytest.raises(UserError, match="a decoder makes inputs"):
        Decoder(latent, shape, width)
