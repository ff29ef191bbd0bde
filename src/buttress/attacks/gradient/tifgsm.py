"""The translation-invariant method."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from buttress.attacks.gradient.difgsm import both_ways, plane
from buttress.attacks.gradient.mifgsm import MIFGSM, momentum_ascent
from buttress.engine.oracle import Oracle
from buttress.errors import UserError
from buttress.random import Random
from buttress.registry import attack
from buttress.validation import one_of, whole

Kernel = Literal["gaussian", "linear", "uniform"]


@attack("ti-fgsm")
@dataclass(frozen=True, kw_only=True)
class TIFGSM(MIFGSM):
    """MI-FGSM with each gradient convolved with a kernel (Dong et al., CVPR 2019, TI-MI-FGSM).

    This approximates the gradients at all small shifts of the image. Beyond the edges the gradient counts as 0. Inputs
    that are no images are rows of pixels: for features whose neighbours have nothing in common it makes no sense.

    Cost per input: ``steps`` forwards and backwards.

    Args:
        threat: what is allowed.
        steps: gradient steps.
        step_size: length of a step in input units; 2.5 eps / steps unless given (the paper: eps / steps).
        decay: what a step keeps of the sum of gradients so far.
        loss: name of a loss, or any callable (logits, y) -> (N,); the task's own unless given.
        kernel: "gaussian", of standard deviation (size - 1) / 6 pixels; "linear", falling to 0 one pixel beyond its
            edge; or "uniform".
        size: side of the kernel in pixels, an odd number; with 1 the attack is MI-FGSM.
    """

    kernel: Kernel = "gaussian"
    size: int = 15

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        super().__post_init__()
        one_of("kernel", self.kernel, get_args(Kernel))
        if whole("size", self.size) % 2 == 0:
            raise UserError(f"size must be an odd number of pixels; got {self.size}")

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The last iterate."""
        rows, columns = (self._smoothing(side, x) for side in plane(x))

        def smooth(x_adv: Tensor, total: Tensor, step_size: float) -> Tensor:
            return both_ways(oracle.loss_and_grad(x_adv, self.loss)[1], rows, columns)

        return momentum_ascent(self, oracle, x, smooth)

    def _smoothing(self, side: int, x: Tensor) -> Tensor:
        """(side, side) convolution of a line as a matrix; all three kernels are products of a line with itself."""
        reach = self.size // 2
        line = [self._weight(abs(shift) / (reach + 1), shift) for shift in range(-reach, reach + 1)]
        total = math.fsum(line)
        matrix = torch.zeros(side, side, dtype=x.dtype)
        for shift, weight in zip(range(-reach, reach + 1), line, strict=True):
            if abs(shift) < side:
                matrix.diagonal(shift).fill_(weight / total)
        return matrix.to(x.device)

    def _weight(self, share: float, shift: int) -> float:
        if self.kernel == "uniform" or self.size == 1:
            return 1.0
        if self.kernel == "linear":
            return 1 - share
        return math.exp(-0.5 * (6 * shift / (self.size - 1)) ** 2)
