"""Operations on images that attacks and corruptions share: shifts, turns, blur and colour, all differentiable."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from buttress.errors import UserError
from buttress.threat import per_row

# Luminance and two axes of colour (NTSC), so that grey is (g, 0, 0).
_YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))


def check_images(name: str, x: Tensor) -> None:
    """Refuse what is no image.

    Raises:
        UserError: naming who needs images, and what came.
    """
    if x.dim() != 4:
        raise UserError(f"{name} needs images (N, C, H, W); got inputs {tuple(x.shape)}")


def displaced(x: Tensor, field: Tensor) -> Tensor:
    """Images whose pixels are taken from elsewhere, in between by bilinear interpolation; the edge is repeated outside.

    A whole number of pixels gives the bits of the pixels there.

    Args:
        x: (N, C, H, W).
        field: (N, 2, H, W) or (N, 2, 1, 1), how many pixels to the right of, and below, each place its value is taken.
    """
    height, width = x.shape[2:]
    rows = (torch.arange(height, device=x.device)[:, None] + field[:, 1]).clamp(0, height - 1)
    columns = (torch.arange(width, device=x.device) + field[:, 0]).clamp(0, width - 1)
    rows, columns = (part.expand(-1, height, width) for part in (rows, columns))
    top, left = rows.detach().floor(), columns.detach().floor()
    down, right = (rows - top)[:, None], (columns - left)[:, None]

    def at(row: Tensor, column: Tensor) -> Tensor:
        place = (row.long().clamp(max=height - 1) * width + column.long().clamp(max=width - 1)).flatten(1)
        return x.flatten(2).gather(2, place[:, None].expand(-1, x.shape[1], -1)).view_as(x)

    above = at(top, left) * (1 - right) + at(top, left + 1) * right
    below = at(top + 1, left) * (1 - right) + at(top + 1, left + 1) * right
    return above * (1 - down) + below * down


def turning(degrees: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, 2, H, W) field that turns images of this size about their middle, counterclockwise by (N,) degrees."""
    height, width = size
    angle = torch.deg2rad(degrees)[:, None, None]
    y = (torch.arange(height, device=degrees.device, dtype=degrees.dtype) - (height - 1) / 2)[:, None]
    x = torch.arange(width, device=degrees.device, dtype=degrees.dtype) - (width - 1) / 2
    return torch.stack([x * (angle.cos() - 1) - y * angle.sin(), x * angle.sin() + y * (angle.cos() - 1)], 1)


def blurred(x: Tensor, sigma: float) -> Tensor:
    """(N, C, H, W) images under a Gaussian of this standard deviation in pixels; the edge is repeated outside."""
    reach = math.ceil(4 * sigma)
    if reach == 0:
        return x
    place = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (place / sigma).square())
    kernel = kernel / kernel.sum()
    channels = x.shape[1]
    wide = F.pad(x, (reach,) * 4, mode="replicate")
    wide = F.conv2d(wide, kernel.view(1, 1, -1, 1).expand(channels, -1, -1, -1), groups=channels)
    return F.conv2d(wide, kernel.view(1, 1, 1, -1).expand(channels, -1, -1, -1), groups=channels)


def contrasted(x: Tensor, factor: float | Tensor) -> Tensor:
    """Images with distances from their own mean times a factor, one or (N,)."""
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (per_row(factor, x) if isinstance(factor, Tensor) else factor) * (x - mean)


def coloured(x: Tensor, turns: Tensor, factor: Tensor) -> Tensor:
    """(N, 3, H, W) images with their hues turned by (N,) shares of a circle, their saturation times (N,) a factor.

    Luminance stays, as far as the box allows.
    """
    mix = torch.tensor(_YIQ, device=x.device, dtype=x.dtype)
    back = torch.linalg.inv(mix.double()).to(x.dtype)
    grey, i, q = torch.einsum("ij,njhw->nihw", mix, x).unbind(1)
    cosine, sine = (per_row(factor * f(2 * math.pi * turns), i) for f in (torch.cos, torch.sin))
    return torch.einsum("ij,njhw->nihw", back, torch.stack([grey, cosine * i - sine * q, sine * i + cosine * q], 1))
