"""A decoder: from a vector of any length back to an input of any shape."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from buttress.errors import UserError
from buttress.threat.box import Box


class Decoder(nn.Module):
    """Inputs from latent vectors: convolutional for images, two hidden layers for rows of features.

    Images of 1x28x28 get the generator of Zhou, Tsang and Yin (Machine Learning 2022) for MNIST: linear to 50x4x4,
    transposed convolutions of kernel 2 with strides 4 and 3, and plain ones of kernel 3, 4 and 5 in between and after.
    Those of another size get ours: linear to a quarter of the height and width, two transposed convolutions that double
    both, a 3x3 convolution, and what is too much at the lower and right edge is cut off.

    Args:
        latent: length of a vector.
        shape: of one input: (C, H, W) or (features,).
        width: channels of the hidden layers, twice as many in the first one; for rows, a sixteenth of the hidden units.
            MNIST's generator has its own.
        box: range that the values are brought into by a sigmoid, or clipped to where an end is infinite; None leaves
            them free.

    Raises:
        UserError: for sizes that are not positive, and for inputs that are neither images nor rows.
    """

    def __init__(
        self, latent: int, shape: Sequence[int], width: int = 32, box: tuple[float, float] | None = (0.0, 1.0)
    ) -> None:
        super().__init__()
        self.shape, self.box = tuple(int(size) for size in shape), Box.read(box)
        if len(self.shape) not in (1, 3) or min(latent, width, *self.shape) < 1:
            raise UserError(
                "a decoder makes inputs of shape (C, H, W) or (features,) from 1 or more numbers, with a width of 1 or "
                f"more; got {self.shape}, {latent} and {width}"
            )
        if self.shape == (1, 28, 28):
            self.layers = _mnist(latent)
        else:
            self.layers = (
                _images(latent, self.shape, width) if len(self.shape) == 3 else _rows(latent, self.shape[0], width)
            )

    def forward(self, z: Tensor) -> Tensor:
        """(N, *shape) inputs of (N, latent) vectors."""
        out: Tensor = self.layers(z)
        if len(self.shape) == 3:
            out = out[..., : self.shape[1], : self.shape[2]]
        if self.box is None:
            return out
        low, high = self.box.ends(out)
        closed = (high - low).isfinite()
        low, width = torch.where(closed, low, 0), torch.where(closed, high - low, 1)
        return torch.where(closed, low + width * torch.sigmoid(out), self.box.clip(out))


def _mnist(latent: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(latent, 800, bias=False),
        nn.Unflatten(1, (50, 4, 4)),
        nn.ReLU(),
        nn.ConvTranspose2d(50, 50, 2, stride=4),  # 14x14
        nn.Conv2d(50, 20, 3),  # 12x12
        nn.ReLU(),
        nn.ConvTranspose2d(20, 20, 2, stride=3),  # 35x35
        nn.Conv2d(20, 20, 4),  # 32x32
        nn.Conv2d(20, 1, 5),  # 28x28
    )


def _images(latent: int, shape: tuple[int, ...], width: int) -> nn.Sequential:
    channels, height, breadth = shape
    small = (2 * width, -(-height // 4), -(-breadth // 4))
    return nn.Sequential(
        nn.Linear(latent, small[0] * small[1] * small[2]),
        nn.Unflatten(1, small),
        nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(width, width, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, channels, 3, padding=1),
    )


def _rows(latent: int, features: int, width: int) -> nn.Sequential:
    hidden = 16 * width
    return nn.Sequential(
        nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, features)
    )
