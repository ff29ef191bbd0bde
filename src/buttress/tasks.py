"""What "wrong", "loss" and "score" mean: for classes and for restored images."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from buttress import losses
from buttress.errors import UserError


class Task(ABC):
    """What a model's output is for."""

    loss: str  # the name of the loss that an attack maximises by default

    @abstractmethod
    def read(self, output: object) -> Tensor:
        """The model's raw output in this task's standard form, float32 or float64; refuses what is no such output."""

    @abstractmethod
    def check(self, output: Tensor, y: Tensor) -> None:
        """Refuse a truth ``y`` that cannot belong to this output."""

    def mean(self, outputs: Sequence[Tensor]) -> Tensor:
        """What several outputs of a randomised model for the same inputs say together."""
        return torch.stack(tuple(outputs)).mean(0)

    @abstractmethod
    def is_adversarial(self, output: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        """(N,) bool: whether the attacker has what it wants: a wrong output, or the target."""

    @abstractmethod
    def score(self, output: Tensor, y: Tensor) -> Tensor:
        """(N,) how good each output is, higher is better; its mean is what a report shows."""


def _tensor(output: object, wanted: str) -> Tensor:
    if not isinstance(output, Tensor):
        raise UserError(
            f"the model must return {wanted}; it returned a {type(output).__name__}: wrap it as "
            "models.Output(model, key), or --output KEY, to pick the logits out"
        )
    if not output.is_floating_point():
        raise UserError(
            f"the model must return {wanted}; it returned {str(output.dtype).removeprefix('torch.')} of shape "
            f"{tuple(output.shape)}: if these are numbers of classes, wrap it as models.FromLabels(model, classes)"
        )
    return output if output.dtype == torch.float64 else output.float()


@dataclass(frozen=True)
class Classification(Task):
    """One class per input; output: logits (N, C). One logit z, as (N,) or (N, 1), is read as the two (0, z)."""

    loss = "cross_entropy"

    def read(self, output: object) -> Tensor:
        """Logits (N, C) with C of 2 or more."""
        logits = _tensor(output, "logits (inputs, classes)")
        if logits.dim() == 1:
            logits = logits[:, None]
        if logits.dim() != 2:
            raise UserError(f"the model must return logits (inputs, classes); it returned shape {tuple(logits.shape)}")
        return torch.cat([torch.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits

    def check(self, output: Tensor, y: Tensor) -> None:
        """Labels must be class indices that the model knows; the output must not be probabilities or NaN.

        Raises:
            UserError: naming what came instead.
        """
        if y.dim() != 1 or y.dtype not in (torch.int64, torch.int32, torch.uint8, torch.int16):
            hint = ": use y.argmax(1)" if y.dim() == 2 else ""
            raise UserError(
                f"labels must be class indices (N,), integers; got {y.dtype} of shape {tuple(y.shape)}{hint}"
            )
        if len(y) != len(output):
            raise UserError(f"{len(output)} outputs need as many labels; got {len(y)}")
        if not len(y):
            return
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= output.shape[1]:
            raise UserError(f"labels must be 0 to {output.shape[1] - 1}, the model's classes; got {low} to {high}")
        nan = int((~torch.isfinite(output)).any(1).sum())
        if nan:
            raise UserError(
                f"the model's output is NaN or infinite for {nan} of the {len(output)} inputs it was first asked about"
            )
        output = output.detach()
        single = output.shape[1] == 2 and len(output) >= 8 and not bool(output[:, 0].any())
        if single and 0 <= float(output[:, 1].min()) < 0.25 and 0.75 < float(output[:, 1].max()) <= 1:
            warnings.warn(
                "the model's single output lies in [0, 1] for all inputs, as a probability would, and is read as a "
                "logit: "
                "if it is none, take the sigmoid off, or wrap the model as models.FromProbabilities(model)",
                stacklevel=2,
            )
        inside = bool((output >= -1e-6).all() and (output <= 1 + 1e-6).all())
        if inside and bool((output.sum(1) - 1).abs().max() < 1e-5):
            raise UserError(
                "the model returns probabilities, attacks need logits: take the softmax off, "
                "or wrap it as models.FromProbabilities(model)"
            )

    def mean(self, outputs: Sequence[Tensor]) -> Tensor:
        """Logits whose softmax is the mean of the outputs' softmax."""
        several = torch.stack([output.double().log_softmax(1) for output in outputs])
        return (several.logsumexp(0) - math.log(len(outputs))).to(outputs[0].dtype)

    def is_adversarial(self, output: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        """The class is not ``y``, or is ``target``; an output that is not a number is beaten unless targeted."""
        predicted = output.argmax(1)
        if target is not None:
            return (predicted == target) & ~output.isnan().any(1)
        return (predicted != y) | output.isnan().any(1)

    def score(self, output: Tensor, y: Tensor) -> Tensor:
        """1 for the right class, else 0."""
        return (~self.is_adversarial(output, y)).float()


@dataclass(frozen=True)
class Denoising(Task):
    """A restored image per input; ``y`` is the clean image, of the output's shape.

    Args:
        floor: an output of a lower peak signal-to-noise ratio, in dB, counts as beaten.
    """

    floor: float = 20.0
    loss = "mse"

    def read(self, output: object) -> Tensor:
        """The restored images."""
        return _tensor(output, "the restored images")

    def check(self, output: Tensor, y: Tensor) -> None:
        """The truth must have the output's shape.

        Raises:
            UserError: naming both shapes.
        """
        if output.shape != y.shape:
            raise UserError(f"the restored images are {tuple(output.shape)}, the clean ones {tuple(y.shape)}")

    def is_adversarial(self, output: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        """Below the floor; or, with a target image, at or above the floor as seen from that image."""
        return self.score(output, y) < self.floor if target is None else self.score(output, target) >= self.floor

    def score(self, output: Tensor, y: Tensor) -> Tensor:
        """Peak signal-to-noise ratio in dB, for images in [0, 1]."""
        return -10 * losses.mse(output, y).clamp(min=1e-12).log10()


classification = Classification()
