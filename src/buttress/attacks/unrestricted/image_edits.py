"""An attack by edits that people would make: light, colour, blur and small movements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from buttress.attacks.corruptions.image_operations import (
    blurred,
    check_images,
    coloured,
    contrasted,
    displaced,
    turning,
)
from buttress.attacks.corruptions.noises import Noise
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.errors import UserError
from buttress.losses import LossLike, resolve
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import per_row
from buttress.validation import not_negative, positive, whole

Edit = Literal["brightness", "contrast", "hue", "saturation", "blur", "rotation", "translation", "elastic"]
EDITS: tuple[Edit, ...] = get_args(Edit)
_SHAPES: dict[str, tuple[int, ...]] = {"translation": (2,), "elastic": (2, 4, 4)}  # of the others one number each


@attack("semantic")
@dataclass(frozen=True, kw_only=True)
class Semantic(Noise):
    """Signed steps in the parameters of several edits at once, made one after the other.

    At ``strength`` 1: brightness by 0.2 of the box; distances from the mean and from grey times 0.6 to 1.4; hues by a
    tenth of a circle; a blur of 1 pixel, mixed in; turns by 15 degrees; shifts by 7 % of each side (2 pixels of 28); an
    elastic displacement by 4 % of it, bilinear between 4 x 4 points. Which edits and how far is our own choice; turns
    and shifts as an attack are those of Engstrom et al. (ICML 2019), here by first-order steps. Hue and saturation are
    for three channels and left out elsewhere. It has no budget in any norm.

    Cost per input: ``steps`` forwards and backwards.

    Args:
        edits: which, one or several; the order is always the same.
        strength: multiplies what each may do.
        steps: at most; with 0 the inputs stay as they are.
        step: length of a step, as a share of what an edit may do.
        start: "zero" at the input; "uniform" anywhere in what the edits may do.
        stop: leave an input alone as soon as it fools the model.
        loss: the task's own unless given.
        box: the range (low, high) of the inputs; None is taken as [0, 1], and nothing is clipped.
    """

    edits: Edit | Sequence[Edit] = EDITS
    strength: float = 1.0
    steps: int = 10
    step: float = 0.25
    start: Literal["zero", "uniform"] = "zero"
    stop: bool = True
    loss: LossLike | None = None

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        super().__post_init__()
        edits = (self.edits,) if isinstance(self.edits, str) else tuple(self.edits)
        if not edits or any(edit not in EDITS for edit in edits):
            raise UserError(f"edits must be some of {', '.join(EDITS)}; got {self.edits!r}")
        object.__setattr__(self, "edits", edits)
        whole("steps", self.steps, 0)
        if self.start not in ("zero", "uniform"):
            raise UserError(f"start must be zero or uniform; got {self.start!r}")
        positive("step", self.step)
        not_negative("strength", self.strength)
        if self.loss is not None:
            resolve(self.loss)

    def search_passes(self, classes: int) -> PassCount:
        """A forward and a backward each step."""
        return PassCount(self.steps, self.steps)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The inputs after the last step of each; one without an edit keeps its bits."""
        check_images("Semantic", x)
        with torch.autocast(x.device.type, enabled=False):
            values = {edit: self._begin(edit, x, random) for edit in self._known(x)}
            going = torch.ones(len(x), dtype=torch.bool, device=x.device)
            for _ in range(self.steps):
                if oracle.done:
                    break
                values = {edit: value.detach().requires_grad_() for edit, value in values.items()}
                x_adv = self.edited(x, values)
                _, grad = oracle.loss_and_grad(x_adv.detach(), self.loss)
                slopes = torch.autograd.grad(x_adv, list(values.values()), grad)
                going = going & ~oracle.success if self.stop else going
                for (edit, value), slope in zip(values.items(), slopes, strict=True):
                    step = self.step * (per_row(going, slope) * slope.sign())
                    values[edit] = (value.detach() + step).clamp(*_range(edit))
            with torch.no_grad():
                moved = torch.stack([(value != 0).view(len(x), -1).any(1) for value in values.values()]).any(0)
                return torch.where(per_row(moved, x), self.edited(x, values), x)

    def edited(self, x: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """Images under edits: by name (N, ...) shares of what each may do, in [-1, 1], of a blur in [0, 1]."""
        at = {edit: self.strength * value for edit, value in values.items()}
        field = self._field(x, at)
        x = x if field is None else displaced(x, field)
        if "blur" in at:
            x = x + per_row(at["blur"], x) * (blurred(x, 1.0) - x)
        if "hue" in at or "saturation" in at:
            none = x.new_zeros(len(x))
            x = coloured(x, 0.1 * at.get("hue", none), 1 + 0.4 * at.get("saturation", none))
        if "contrast" in at:
            x = contrasted(x, 1 + 0.4 * at["contrast"])
        if "brightness" in at:
            x = x + 0.2 * self.widths(x) * per_row(at["brightness"], x)
        return self.clip(x)

    def _field(self, x: Tensor, at: Mapping[str, Tensor]) -> Tensor | None:
        """How far pixels move, all movements together."""
        height, width = x.shape[2:]
        sides = torch.tensor([width, height], device=x.device, dtype=x.dtype)
        fields = []
        if "rotation" in at:
            fields.append(turning(15 * at["rotation"], (height, width)))
        if "translation" in at:
            fields.append((0.07 * sides * at["translation"])[:, :, None, None])
        if "elastic" in at:
            coarse = F.interpolate(at["elastic"], size=(height, width), mode="bilinear", align_corners=True)
            fields.append(0.04 * sides[:, None, None] * coarse)
        total: Tensor | None = None
        for field in fields:
            total = field if total is None else total + field
        return total

    def _known(self, x: Tensor) -> list[str]:
        known: list[str] = [e for e in EDITS if e in self.edits and (x.shape[1] == 3 or e not in ("hue", "saturation"))]
        if not known:
            raise UserError(f"hue and saturation need images of three channels; got {x.shape[1]}: add other edits")
        return known

    def _begin(self, edit: str, x: Tensor, random: Random) -> Tensor:
        shape = _SHAPES.get(edit, ())
        if self.start == "zero":
            return x.new_zeros(len(x), *shape)
        low, high = _range(edit)
        return low + (high - low) * random.uniform(shape, x.dtype)


def _range(edit: str) -> tuple[float, float]:
    return (0.0, 1.0) if edit == "blur" else (-1.0, 1.0)
