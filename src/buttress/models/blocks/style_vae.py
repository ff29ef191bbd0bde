"""A small conditional variational autoencoder whose decoder works by styles, as StyleGAN's generator does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from buttress.errors import UserError
from buttress.validation import whole

_POOLED = 8  # the largest side of the map that the encoder's linear layer sees


class StyleBlock(nn.Module):
    """Convolution, noise, leaky ReLU, instance norm, then the scale and shift of a style (AdaIN).

    Karras et al., CVPR 2019, section 3: the noise is one image, scaled for each channel by a learned factor.

    Args:
        channels: (in, out).
        noise: the factor that each channel begins with.
    """

    def __init__(self, channels: tuple[int, int], noise: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(*channels, 3, padding=1)
        self.strength = nn.Parameter(torch.full((channels[1], 1, 1), noise))

    def forward(self, h: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        """(N, out, H, W) of (N, in, H, W), a style (N, 2 out) and a noise image (N, 1, H, W)."""
        h = F.leaky_relu(self.conv(h) + self.strength * noise, 0.2)
        mean, variance = h.mean((2, 3), keepdim=True), h.var((2, 3), keepdim=True, unbiased=False)
        scale, shift = style[:, :, None, None].chunk(2, dim=1)
        return (1 + scale) * (h - mean) * (variance + 1e-5).rsqrt() + shift


class StyleVAE(nn.Module):
    """A conditional VAE (Sohn et al., NeurIPS 2015) with a decoder of three blocks, each under a style and a noise.

    The styles of the coarse, middle and fine block are the high, mid and low level of an image: shape, parts, and
    colour and texture. They are affine in the code and the class. For small images: the coarse block works at a quarter
    of their side; a side that four does not divide is decoded larger and cut.

    Args:
        shape: (channels, height, width) of the images, whose values are in [0, 1].
        classes: that the generator is conditioned on; 0 for none.
        latent: dimensions of the code.
        widths: channels of the coarse, the middle and the fine block.
        hidden: width of the encoder's linear layer.
        noise: what the noise images are multiplied by at first; learned from there.

    Raises:
        UserError: for a shape that is no image's, or widths that are not three.
    """

    levels = ("high", "mid", "low")
    spread_high: Tensor
    spread_mid: Tensor
    spread_low: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        classes: int = 10,
        latent: int = 32,
        widths: Sequence[int] = (64, 32, 16),
        hidden: int = 128,
        noise: float = 0.05,
    ) -> None:
        super().__init__()
        if len(shape) != 3 or len(widths) != 3:
            raise UserError(f"expected an image's (channels, height, width) and three widths; got {shape} and {widths}")
        channels, height, width = (whole("each side of the shape", side, 1) for side in shape)
        self.shape, self.classes, self.latent = (channels, height, width), whole("classes", classes, 0), latent
        coarse, middle, fine = (whole("each width", w, 1) for w in widths)
        sides = [max(2, -(-side // 4)) for side in (height, width)]
        self.sizes = tuple((sides[0] * k, sides[1] * k) for k in (1, 2, 4))
        small = [min(_POOLED, -(-side // 4)) for side in (height, width)]
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, 32, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.AdaptiveAvgPool2d((small[0], small[1])),
            nn.Flatten(),
        )
        self.joint = nn.Sequential(nn.Linear(64 * small[0] * small[1] + classes, hidden), nn.LeakyReLU(0.2))
        self.code = nn.Linear(hidden, 2 * latent)
        self.constant = nn.Parameter(torch.randn(1, coarse, *sides))
        turns = ((coarse, coarse), (coarse, middle), (middle, fine))
        self.blocks = nn.ModuleList([StyleBlock(pair, noise) for pair in turns])
        self.affine = nn.ModuleList([nn.Linear(latent + classes, 2 * out) for _, out in turns])
        self.image = nn.Conv2d(fine, channels, 1)
        for level, (_, out) in zip(self.levels, turns, strict=True):
            self.register_buffer(f"spread_{level}", torch.ones(2 * out))

    @property
    def spread(self) -> list[Tensor]:
        """By level, the (S,) standard deviation of each style within a class; 1 before `measure`."""
        return [self.get_buffer(f"spread_{level}") for level in self.levels]

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(N, latent) mean and logarithm of the variance of the code of (N, C, H, W) images of classes (N,).

        Raises:
            UserError: for images of another shape and unknown classes.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise UserError(f"the generator makes images of shape {self.shape}; got inputs {tuple(x.shape[1:])}")
        mean, logvar = self.code(self.joint(torch.cat([self.encoder(x), self._one_hot(x, y)], 1))).chunk(2, dim=1)
        return mean, logvar

    def styles(self, code: Tensor, y: Tensor) -> list[Tensor]:
        """By level, the (N, S) styles of (N, latent) codes in the classes (N,): first scales, then shifts."""
        conditioned = torch.cat([code, self._one_hot(code, y)], 1)
        return [affine(conditioned) for affine in self.affine]

    def noises(self, like: Tensor) -> list[Tensor]:
        """By level, (N, 1, h, w) noise images of zeros for as many inputs."""
        return [like.new_zeros(len(like), 1, *size) for size in self.sizes]

    def logits(self, styles: Sequence[Tensor], noises: Sequence[Tensor]) -> Tensor:
        """(N, C, H, W) log-odds of the pixels' values."""
        h = self.constant.expand(len(styles[0]), -1, -1, -1)
        for number, block in enumerate(self.blocks):
            if number:
                h = F.interpolate(h, scale_factor=2.0, mode="nearest")
            h = block(h, styles[number], noises[number])
        whole_image: Tensor = self.image(h)
        return whole_image[:, :, : self.shape[1], : self.shape[2]]

    def invert(self, x: Tensor, y: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The styles and noises of images: those of the mean code, and no noise."""
        return self.styles(self.encode(x, y)[0], y), self.noises(x)

    def generate(self, styles: Sequence[Tensor], noises: Sequence[Tensor]) -> Tensor:
        """(N, C, H, W) images in [0, 1]."""
        return self.logits(styles, noises).sigmoid()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The reconstructions of images."""
        return self.generate(*self.invert(x, y))

    def measure(self, styles: Sequence[Tensor], y: Tensor) -> None:
        """Set `spread` from the styles of many images: by level (N, S), of classes (N,)."""
        for spread, values in zip(self.spread, styles, strict=True):
            group = y if self.classes else torch.zeros_like(y)
            sums = values.new_zeros(int(group.max()) + 1, values.shape[1]).index_add_(0, group, values)
            count = torch.bincount(group).clamp(min=1).to(values)[:, None]
            spread.copy_((values - (sums / count)[group]).square().mean(0).sqrt())

    def _one_hot(self, like: Tensor, y: Tensor) -> Tensor:
        if not self.classes:
            return like.new_zeros(len(like), 0)
        if len(y) and not 0 <= int(y.min()) <= int(y.max()) < self.classes:
            raise UserError(
                f"the generator knows classes 0 to {self.classes - 1}; got {int(y.min())} to {int(y.max())}"
            )
        return F.one_hot(y, self.classes).to(like)


def divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """(N,) KL divergence of normal codes of this mean and log-variance, (N, latent), from the standard normal."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(1)


def reconstruction(logits: Tensor, x: Tensor) -> Tensor:
    """(N,) binary cross-entropy of images in [0, 1] under the pixels' log-odds, summed over pixels."""
    return F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)
