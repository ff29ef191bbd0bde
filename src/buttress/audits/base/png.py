"""Images as text that a web page can hold."""

from __future__ import annotations

import base64
import io

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from buttress.errors import UserError


def png(image: ArrayLike) -> str:
    """A ``data:image/png;base64,...`` address that holds the image, without loss.

    Args:
        image: (H, W) or (H, W, 3) uint8 array or CPU tensor.

    Raises:
        UserError: for another shape or another type.
    """
    from PIL import Image

    array = np.asarray(image)
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if not fits or array.size == 0 or array.dtype != np.uint8:
        raise UserError(f"an image is (H, W) or (H, W, 3) uint8; got {array.shape} {array.dtype}")
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def is_image(x: Tensor) -> bool:
    """Whether (N, ...) inputs are images that can be shown: (N, C, H, W) of one channel or three."""
    return x.dim() == 4 and x.shape[1] in (1, 3)


def pixels(image: Tensor) -> Tensor:
    """(H, W) or (H, W, 3) uint8 from (C, H, W); values outside of [0, 1] are cut off."""
    levels = (image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    return levels[0] if len(levels) == 1 else levels.permute(1, 2, 0)


def difference(x: ArrayLike, x_adv: ArrayLike, magnification: float) -> NDArray[np.uint8]:
    """What an attack changed, around mid-grey: 0.5 + magnification * (x_adv - x), cut off at 0 and 1.

    Args:
        x: (C, H, W) image in [0, 1], C being 1 or 3.
        x_adv: the perturbed image, of the same shape.
        magnification: grey levels for one unit of change; 0.5 / eps spans the range.

    Returns:
        (H, W) or (H, W, 3) pixels for `png`.
    """
    before, after = np.asarray(x, np.float64), np.asarray(x_adv, np.float64)
    if before.shape != after.shape or before.ndim != 3 or before.shape[0] not in (1, 3):
        raise UserError(
            f"two (1, H, W) or (3, H, W) images of one shape expected; got {before.shape} and {after.shape}"
        )
    levels = np.clip(0.5 + magnification * (after - before), 0.0, 1.0)
    pixels: NDArray[np.uint8] = np.rint(255 * levels).astype(np.uint8)
    return pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
