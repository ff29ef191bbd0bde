"""An attack in the styles and noises of a generator."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from buttress.attacks.corruptions.noises import Noise
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.errors import UserError
from buttress.losses import LossLike, resolve
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import Threat, per_row
from buttress.validation import not_negative, positive, whole

Level = Literal["high", "mid", "low", "all"]
LEVELS: tuple[Level, ...] = get_args(Level)


class Generator(Protocol):
    """A module that makes images in [0, 1] of styles and noises of three levels: high, mid, low.

    Attributes:
        spread: by level, (S,) how far each style usually varies.
    """

    @property
    def spread(self) -> Sequence[Tensor]:
        """By level, (S,), or one number for all."""
        ...

    def invert(self, x: Tensor, y: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """By level, styles (N, S) and noises (N, 1, h, w) that stand for images (N, C, H, W) of classes (N,)."""
        ...

    def generate(self, styles: Sequence[Tensor], noises: Sequence[Tensor]) -> Tensor:
        """(N, C, H, W) images."""
        ...


class Pyramid(nn.Module):
    """A generator without training: smooth additive patterns of three scales, as a control for trained ones.

    Its styles are the values of coarse maps of each channel, 2, 4 and 8 points a side, of an image that is grey where
    all are zero; its noises are finer maps shared by the channels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shape: tuple[int, ...] = (1, 8, 8)

    @property
    def spread(self) -> list[Tensor]:
        """0.5 for all."""
        return [torch.tensor(0.5)] * 3

    def invert(self, x: Tensor, y: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Zeros."""
        self.shape = tuple(x.shape[1:])
        styles = [x.new_zeros(len(x), x.shape[1] * side * side) for side in (2, 4, 8)]
        return styles, [x.new_zeros(len(x), 1, 2 * side, 2 * side) for side in (2, 4, 8)]

    def generate(self, styles: Sequence[Tensor], noises: Sequence[Tensor]) -> Tensor:
        """0.5 plus all maps, brought to the size of the images last inverted."""
        channels, *size = self.shape
        image = 0.5 * styles[0].new_ones(len(styles[0]), *self.shape)
        for side, style, noise in zip((2, 4, 8), styles, noises, strict=True):
            coarse = style.view(len(style), channels, side, side)
            image = image + F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
            image = image + 0.02 * F.interpolate(noise, size=size, mode="nearest")
        return image


@attack("latent")
@dataclass(frozen=True, kw_only=True)
class Latent(Noise):
    """Signed steps in the styles and noises of a generator, all levels or one (Poursaeed et al., ICCV 2021).

    An image x of class y is inverted to styles s and noises n; these move up the loss, styles by at most
    ``style_limit`` times their spread, noises within ``noise_limit``. The result is x + g(s', n') - g(s, n), in the
    box, which keeps what the generator does not show of x. It has no budget in any norm, and it may change what an
    image truly is: an accuracy under it is none of robustness in a norm. To attack a network that was trained by
    `gat`, take a generator of another seed.

    Step sizes and limits are ours; the paper's are not known to us. Cost per input: ``steps`` forwards and backwards
    through the model, and the generator's own.

    Args:
        generator: a `Generator`, such as ``defences.gat.generator_training.style_vae`` trains; `Pyramid` unless given.
        level: which styles and noises move: "high" is shape, "low" colour and texture.
        steps: at most; with 0 the inputs stay as they are, or become reconstructions where ``residue`` is off.
        style_step: length of a step, in spreads of each style.
        style_limit: how far styles may move, likewise.
        noise_step: length of a step of the noises.
        noise_limit: the largest size of a noise value.
        noises: where noises begin: "zero", or "normal" draws.
        stop: leave an input alone as soon as it fools the model.
        residue: add the change to the input; otherwise the result is the generated image.
        loss: the task's own unless given.
        box: the range (low, high) of the inputs; None is taken as [0, 1], and nothing is clipped.
    """

    generator: nn.Module | None = None
    level: Level = "all"
    steps: int = 10
    style_step: float = 0.05
    style_limit: float = 0.3
    noise_step: float = 0.1
    noise_limit: float = 2.0
    noises: Literal["zero", "normal"] = "zero"
    stop: bool = True
    residue: bool = True
    loss: LossLike | None = None

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        super().__post_init__()
        if self.generator is not None and not isinstance(self.generator, nn.Module):
            raise UserError(f"generator must be a torch module that makes images; got {type(self.generator).__name__}")
        if self.level not in LEVELS or self.noises not in ("zero", "normal"):
            values = f"{self.level!r} and {self.noises!r}"
            raise UserError(f"level must be one of {', '.join(LEVELS)}, noises zero or normal; got {values}")
        whole("steps", self.steps, 0)
        positive("style_step", self.style_step)
        positive("noise_step", self.noise_step)
        not_negative("style_limit", self.style_limit)
        not_negative("noise_limit", self.noise_limit)
        if self.loss is not None:
            resolve(self.loss)

    def search_passes(self, classes: int) -> PassCount:
        """A forward and a backward each step."""
        return PassCount(self.steps, self.steps)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The inputs after the last step of each."""
        if x.dim() != 4:
            raise UserError(f"latent attacks need images (N, C, H, W); got inputs {tuple(x.shape)}")
        with torch.autocast(x.device.type, enabled=False):
            return self._ascended(oracle, x, y, random)

    def _ascended(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        maker = self._maker(x)
        low, high = self._range(x)
        with torch.no_grad():
            styles, noises = maker.invert((x - low) / (high - low), y)
            if self.noises == "normal":
                limit = self.noise_limit
                noises = [random.normal(n.shape[1:], x.dtype).clamp(-limit, limit) for n in noises]
        start, points = [*styles, *noises], [v.clone() for v in (*styles, *noises)]
        bounds, lengths = self._bounds(maker, start)
        chosen = [k for k in range(6) if self.level in ("all", LEVELS[k % 3])]
        base, going = None, torch.ones(len(x), dtype=torch.bool, device=x.device)
        for _ in range(self.steps):
            if oracle.done:
                break
            points = [v.detach().requires_grad_(k in chosen) for k, v in enumerate(points)]
            image = maker.generate(points[:3], points[3:])
            base = image.detach() if base is None else base
            x_adv = self._placed(x, image, base)
            _, grad = oracle.loss_and_grad(x_adv.detach(), self.loss)
            slopes = torch.autograd.grad(x_adv, [points[k] for k in chosen], grad, allow_unused=True)
            going = going & ~oracle.success if self.stop else going
            for k, slope in zip(chosen, slopes, strict=True):
                if slope is not None:
                    step = per_row(going, slope) * lengths[k] * slope.sign()
                    points[k] = torch.clamp(points[k].detach() + step, *bounds[k])
        return self._finished(x, maker, start, [v.detach() for v in points], base)

    def _finished(
        self, x: Tensor, maker: Generator, start: list[Tensor], points: list[Tensor], base: Tensor | None
    ) -> Tensor:
        """The last images; an input whose styles and noises have not moved keeps its bits."""
        with torch.no_grad():
            if base is None and self.residue:
                return x
            image = maker.generate(points[:3], points[3:])
            if not self.residue or base is None:
                return self._placed(x, image, image)
            moved = torch.stack([(a != b).flatten(1).any(1) for a, b in zip(points, start, strict=True)]).any(0)
            return torch.where(per_row(moved, x), self._placed(x, image, base), x)

    def _placed(self, x: Tensor, image: Tensor, base: Tensor) -> Tensor:
        low, high = self._range(x)
        return self.clip(x + (high - low) * (image - base)) if self.residue else self.clip(low + (high - low) * image)

    def _range(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Black and white, which the generator's 0 and 1 stand for."""
        low, high = Threat(box=self.box or (0.0, 1.0)).limits(x)
        if not bool((high - low).isfinite().all()):
            raise UserError(f"latent attacks draw in a box with finite ends; got {self.box}: give the images' own")
        return low, high

    def _bounds(self, maker: Generator, start: list[Tensor]) -> tuple[list[tuple[Any, Any]], list[Tensor]]:
        """By style and noise, between what it must stay, and the length of a step."""
        spread = [s.to(start[0]) for s in maker.spread]
        styles = [(s - self.style_limit * w, s + self.style_limit * w) for s, w in zip(start[:3], spread, strict=True)]
        noises = [(torch.full_like(n, -self.noise_limit), torch.full_like(n, self.noise_limit)) for n in start[3:]]
        steps = [self.style_step * w for w in spread] + [n.new_tensor(self.noise_step) for n in start[3:]]
        return [*styles, *noises], steps

    def _maker(self, x: Tensor) -> Generator:
        """The generator where the inputs are, in their type, its weights out of reach of any gradient."""
        generator = Pyramid() if self.generator is None else self.generator
        missing = [name for name in ("invert", "generate", "spread") if not hasattr(generator, name)]
        if missing:
            raise UserError(
                f"generator must have {', '.join(missing)}; {type(generator).__name__} makes no images of styles"
            )
        weight = next(generator.parameters(), None)
        flags = any(module.training for module in generator.modules())
        if flags or (weight is not None and (weight.dtype, weight.device) != (x.dtype, x.device)):
            generator = copy.deepcopy(generator).to(x).eval()
        needing = [p for p in generator.parameters() if p.requires_grad]
        if needing:
            generator = copy.deepcopy(generator).requires_grad_(False)
        return cast(Generator, generator)
