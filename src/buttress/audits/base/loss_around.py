"""A loss at points around inputs, and its gradient at its true length, as an audit measures them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.audits.base.subject import Subject
from buttress.engine.passes import led_back
from buttress.engine.preserved_model import preserved
from buttress.losses import Loss
from buttress.models import forward_checked


@dataclass(frozen=True)
class LossAround:
    """One loss of a network, in float64 of the network's outputs, in eval mode.

    What attacks climb may be scaled (`Loss.slope`), since directions are all they need; here lengths count.

    Attributes:
        subject: the network.
        loss: of an output and the truth.
    """

    subject: Subject
    loss: Loss

    def value(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) the loss at ``x`` (N, ...) of the truth ``y``."""
        return self.loss.value(self.subject.output(x).double(), y)

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, ...) its gradient at ``x``, float64; 0 where it is no number.

        Raises:
            NoGradientError: where the network gives none.
        """
        subject, found = self.subject, []
        with preserved(subject.model, "eval", subject.seed, x.device):
            for points, truth in zip(*(torch.split(part, subject.batch_size) for part in (x, y)), strict=True):
                start = points.detach().clone().requires_grad_()
                output = subject.task.read(forward_checked(subject.model, start))
                leaf = output.detach().double().requires_grad_()
                (slope,) = torch.autograd.grad(self.loss.value(leaf, truth).sum(), leaf)
                found.append(led_back(output, start, slope, False).double())
        return torch.cat(found)
