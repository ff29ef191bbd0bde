"""What the statistical perturbations share: a box to stay in, checked fields, and what a pixel is."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from buttress.engine.perturbation import Perturbation
from buttress.threat import Threat, per_row
from buttress.validation import share


@dataclass(frozen=True, kw_only=True)
class Noise(Perturbation):
    """A perturbation by chance alone: no budget and no passes but the verdict's.

    Args:
        box: the range (low, high) that inputs live in, or None for no limit.
    """

    box: tuple[float, float] | None = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Refuse an empty box, as a threat does."""
        object.__setattr__(self, "box", Threat(box=self.box).box)

    def clip(self, x: Tensor) -> Tensor:
        """``x`` put back into the box."""
        return x if self.box is None else x.clamp(*self.box)

    def extremes(self, x: Tensor) -> tuple[float, float] | tuple[Tensor, Tensor]:
        """Black and white: the ends of the box, or without one each input's own least and largest value."""
        if self.box is not None:
            return self.box
        rows = x.flatten(1)
        return per_row(rows.amin(1), x), per_row(rows.amax(1), x)


@dataclass(frozen=True, kw_only=True)
class Impulses(Noise):
    """Single pixels that lose their value, each with the same chance: salt, pepper or both.

    Args:
        amount: the chance of each pixel.
        box: the range (low, high) of the values; without one, an input's own least and largest value stand for it.
    """

    amount: float = 0.05

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        super().__post_init__()
        share("amount", self.amount)


def pixels(x: Tensor) -> tuple[int, ...]:
    """The shape of one draw per pixel: images (N, C, H, W) share it among their channels, other inputs have no such."""
    return (1, *x.shape[2:]) if x.dim() == 4 else tuple(x.shape[1:])
