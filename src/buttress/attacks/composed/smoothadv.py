"""Another attack on the smoothed network: the mean of its probabilities under normal noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from buttress.attacks.composed.eot import Seen, WrapperAttack
from buttress.attacks.gradient.pgd import PGD
from buttress.engine.attack import Attack
from buttress.engine.ledger import Rows
from buttress.engine.oracle import Inside, Oracle, Search
from buttress.engine.pass_count import PassCount
from buttress.engine.passes import Opened, Pull
from buttress.engine.runner import Precision
from buttress.random import Random
from buttress.registry import attack
from buttress.validation import positive, whole


def noise_of(random: Random, sample: int, sigma: float, like: Tensor) -> Tensor:
    """(N, ...) the normal noise of one sample of `SmoothAdv`, the same for every step."""
    return sigma * random.fork("smoothadv", sample).normal(like.shape[1:], like.dtype)


@attack("smoothadv")
@dataclass(frozen=True, kw_only=True)
class SmoothAdv(WrapperAttack):
    """Another attack on the smoothed network (Salman et al., NeurIPS 2019, "Provably robust deep learning ...").

    What the attack inside sees is the task's mean of the outputs for ``samples`` noisy inputs; of classes those logits
    whose softmax is the mean softmax, so that the loss is that of the smoothed network (their equation 6), and not the
    mean of losses that `EoT` climbs. As in the released code the noise is drawn once for each input and stays from step
    to step. The verdict, ``success``, is about the network without noise; what the smoothed network answers at the
    points found tell its votes (``certificates.Smoothed``), as in the audit ``smoothing``.

    Cost per input: that of the attack inside times ``samples``, whose passes are held in memory together.

    Args:
        attack: what asks the questions; its threat is this one's, in l2 for a network that is certified there.
        sigma: standard deviation of the noise, in input units; a quarter of the box's width unless given.
        samples: noisy copies of each input.
    """

    attack: Attack = PGD()
    sigma: float | None = None
    samples: int = 8

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        super().__post_init__()
        if self.sigma is not None:
            positive("sigma", self.sigma)
        whole("samples", self.samples)

    def search_passes(self, classes: int) -> PassCount | None:
        """Those of the attack inside, on each noisy copy."""
        passes = self.attack.search_passes(classes)
        return None if passes is None else Seen.passes(passes) * self.samples

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """What the attack inside finds."""
        rows = oracle.alive.nonzero().squeeze(1)
        if not len(rows):
            return x
        target = None if oracle.target is None else oracle.target[rows]
        part = _UnderNoise(oracle.runner, x[rows], y[rows], target)
        width = self.threat.widest if math.isfinite(self.threat.widest) else 1.0
        part.see(0.25 * width if self.sigma is None else self.sigma, self.samples, random.only(rows))
        return self.crafted(oracle, part, rows, random)


class _UnderNoise(Seen):
    """Answers with the mean output under noise. It keeps every input to the end: it never sees the network's own."""

    def see(self, sigma: float, samples: int, random: Random) -> None:
        """Look through so many samples of noise for each input."""
        self._sigma, self._samples, self._random = sigma, samples, random

    def only(self, rows: Tensor, *, inside: Inside | None = None, search: Search = "first") -> Oracle:
        """A part under the same noise; it keeps every input, too."""
        part = _UnderNoise(self.runner, self.x[rows], self.y[rows], self._target(rows))
        part.see(self._sigma, self._samples, self._random.only(rows))
        return part

    def _count(self, rows: Rows, forwards: int, backwards: int, output: Tensor) -> None:
        super()._count(rows, forwards * self._samples, backwards * self._samples, output)

    def _open(self, x: Tensor, rows: Rows, precision: Precision, draw: int | None, *, gradient: bool) -> Opened:
        """The passes of all noisy copies as one, whose output is their mean."""
        random, opened = self._random.only(rows), list[Opened]()
        for sample in range(self._samples):
            noisy = x + noise_of(random, sample, self._sigma, x)
            opened.append(super()._open(noisy, rows, precision, draw, gradient=gradient))
        with torch.set_grad_enabled(gradient):
            leaves = [output.detach().requires_grad_(gradient) for output, _ in opened]
            mean = leaves[0] if len(leaves) == 1 else self.task.mean(leaves)
        return mean.detach(), partial(_led_back, mean, leaves, [pull for _, pull in opened])


def _led_back(mean: Tensor, leaves: list[Tensor], pulls: list[Pull], slope: Tensor, more: bool) -> Tensor:
    """The slope at the mean, as slopes at the outputs that it is of, led back through each."""
    slopes = torch.autograd.grad(mean, leaves, slope.to(mean.dtype), retain_graph=more)
    return torch.stack([pull(one, more) for pull, one in zip(pulls, slopes, strict=True)]).sum(0)
