"""Normalisation as part of the model, so that attacks and budgets stay in input units."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from buttress.errors import UserError


class Normalized(nn.Module):
    """``model((x - mean) / std)``, channel by channel (dimension 1).

    ``mean`` and ``std`` are buffers: they move with the model and are saved in its state dict.

    Args:
        model: the network that expects normalised inputs; kept as ``.model``.
        mean: one number for every channel, or a list with one number per channel, in input units.
        std: likewise, positive.

    Raises:
        UserError: when mean and std are not finite, std is not positive, or their lengths differ; when called, for
            inputs that are no floating-point tensor or have another number of channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, model: nn.Module, mean: float | Sequence[float] | Tensor, std: float | Sequence[float] | Tensor
    ) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", _statistic("mean", mean))
        self.register_buffer("std", _statistic("std", std))
        if not (self.std > 0).all():
            raise UserError(f"std must be positive in every channel; got {self.std.tolist()}")
        if self.mean.ndim and self.std.ndim and len(self.mean) != len(self.std):
            raise UserError(f"mean has {len(self.mean)} channels and std has {len(self.std)}: give one value for each")

    def forward(self, x: Tensor) -> Tensor:
        """The model's output for inputs of shape (N, channels, ...), (N, features) included."""
        if not x.is_floating_point():
            raise UserError(f"Normalized takes floating-point inputs in [0, 1]; got {x.dtype}: convert and scale them")
        shape = (-1,) + (1,) * (x.ndim - 2)
        for statistic in (self.mean, self.std):
            if statistic.ndim and (x.ndim < 2 or x.shape[1] != len(statistic)):
                raise UserError(
                    f"Normalized has a mean and std for {len(statistic)} channels, but the inputs have shape "
                    f"{'x'.join(map(str, x.shape))}: they must be (N, {len(statistic)}, ...)"
                )
        mean, std = (s.to(x.dtype).view(shape) if s.ndim else s.to(x.dtype) for s in (self.mean, self.std))
        output: Tensor = self.model((x - mean) / std)
        return output


def _statistic(name: str, value: float | Sequence[float] | Tensor) -> Tensor:
    try:
        tensor = torch.as_tensor(value, dtype=torch.float32).detach().clone()
    except (TypeError, ValueError, RuntimeError):
        raise UserError(f"{name} must be a number or a list of one number per channel; got {value!r}") from None
    if tensor.ndim > 1 or tensor.numel() == 0 or not tensor.isfinite().all():
        raise UserError(f"{name} must be a finite number or a list of one per channel; got {value!r}")
    return tensor
