"""The diverse-inputs method, and linear maps of rows and columns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.attacks.gradient.mifgsm import MIFGSM, momentum_ascent
from buttress.engine.oracle import Oracle
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import per_row
from buttress.validation import number, share


def plane(x: Tensor) -> tuple[int, int]:
    """Height and width of inputs (N, ..., H, W); those of fewer than four axes are rows of height 1."""
    return (1, x.shape[-1]) if x.dim() < 4 else (x.shape[-2], x.shape[-1])


def both_ways(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``rows @ image @ columns.T`` for every plane of ``x``.

    Args:
        x: (N, ...) inputs, see `plane`.
        rows: (H, H), or (N, H, H) with a matrix for each input.
        columns: (W, W) or (N, W, W).
    """
    height, width = plane(x)
    images = x.reshape(len(x), -1, height, width)
    rows, columns = (m if m.dim() == 2 else m[:, None] for m in (rows, columns))
    return (rows @ images @ columns.transpose(-1, -2)).view_as(x)


def resize_and_pad(size: int, smaller: Tensor, offset: Tensor, dtype: torch.dtype) -> Tensor:
    """(N, size, size) matrices that resize ``size`` values to fewer, bilinearly, and pad them with zeros.

    Pixels are areas whose centres lie half a pixel in, and there is no smoothing before.

    Args:
        size: values of a line, before and after.
        smaller: (N,) int64, how many they are resized to.
        offset: (N,) int64, zeros before them.
        dtype: of the result.
    """
    place = torch.arange(size, device=smaller.device)[None] - offset[:, None]
    source = ((place.to(dtype) + 0.5) * size / smaller[:, None] - 0.5).clamp(0, size - 1)
    weight = 1 - (source[..., None] - torch.arange(size, device=smaller.device, dtype=dtype)).abs()
    taken = (place >= 0) & (place < smaller[:, None])
    return weight.clamp(min=0) * taken[..., None]


@attack("di-fgsm")
@dataclass(frozen=True, kw_only=True)
class DIFGSM(MIFGSM):
    """MI-FGSM with gradients through random resizing and padding (Xie et al., CVPR 2019, M-DI2-FGSM).

    Each step and input draws anew: with chance ``p`` the image is resized to a random share of its sides and put at a
    random place in zeros, so that its shape stays. The gradient is that of the loss there, led back through both. What
    comes back is a point of the threat, without them. Inputs that are no images are rows of pixels.

    Cost per input: ``steps`` forwards and backwards.

    Args:
        threat: what is allowed.
        steps: gradient steps.
        step_size: length of a step in input units; 2.5 eps / steps unless given (the paper: eps / steps).
        decay: what a step keeps of the sum of gradients so far.
        loss: name of a loss, or any callable (logits, y) -> (N,); the task's own unless given.
        p: the chance that an input is resized at all; with 0 the attack is MI-FGSM.
        smallest: the smallest share of its sides that an image is resized to.
    """

    strays = True  # a resized input is none that the threat allows

    p: float = 0.5
    smallest: float = 0.9

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        super().__post_init__()
        share("p", self.p)
        number("smallest", self.smallest, "(0, 1]")

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The last iterate."""

        def diverse(x_adv: Tensor, total: Tensor, step_size: float) -> Tensor:
            chosen = per_row(random.uniform() < self.p, x)
            share, places = random.uniform(), random.uniform((2,))
            rows, columns = (self._line(size, share, places[:, i], x.dtype) for i, size in enumerate(plane(x)))
            there = torch.where(chosen, both_ways(x_adv, rows, columns), x_adv)
            grad = oracle.loss_and_grad(there, self.loss)[1]
            back = both_ways(grad, rows.transpose(1, 2), columns.transpose(1, 2))
            return torch.where(chosen, back, grad)

        return momentum_ascent(self, oracle, x, diverse)

    def _line(self, size: int, share: Tensor, place: Tensor, dtype: torch.dtype) -> Tensor:
        """The matrices for one axis: sizes from ``smallest`` of it up to one less than it, all places alike."""
        least = max(1, int(self.smallest * size))
        smaller = least + (share * max(size - least, 1)).long()
        offset = (place * (size - smaller + 1)).long()
        return resize_and_pad(size, smaller, offset, dtype)
