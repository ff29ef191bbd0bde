"""Training the generator of `buttress.models.blocks.style_vae` for defences and attacks that move in its styles."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from buttress.data.dataset import Split
from buttress.defences.base.pretraining import descend
from buttress.errors import UserError
from buttress.models.blocks.style_vae import StyleVAE, divergence, reconstruction
from buttress.random import derive, generator, own_draws
from buttress.validation import not_negative, whole


def style_vae(
    split: Split,
    classes: int,
    *,
    seed: int,
    epochs: int = 15,
    warmup: float = 5.0,
    beta: float | None = None,
    latent: int = 32,
    batch_size: int | None = None,
    lr: float = 1e-3,
    box: tuple[float, float] | None = (0.0, 1.0),
    device: torch.device | None = None,
) -> StyleVAE:
    """A generator trained on a split, frozen and in eval mode; the same seed gives the same bits.

    It minimises the binary cross-entropy summed over pixels plus ``beta`` times the KL divergence of the codes, with
    noise images drawn anew in each step. For attacks on a network that was trained with one generator, train
    another one with another seed: otherwise the training is tested on what it has seen.

    Cost: 3 forward passes' worth per input and epoch, of a network of about half a million weights at 28 x 28.

    Args:
        split: images, in the box.
        classes: that the generator is conditioned on; 0 for none.
        seed: of weights, order and draws; torch's global random state is left as it was.
        epochs: over the split.
        warmup: epochs over which the weight of the divergence rises from 0.
        beta: that weight; 1 unless given, for images of less than 784 values in proportion to these: otherwise their
            codes say almost nothing.
        latent: dimensions of the code.
        batch_size: inputs per step; `usual_batch` unless given.
        lr: Adam's learning rate.
        box: the range (low, high) of the images; None is taken as [0, 1].
        device: where it is trained.

    Raises:
        UserError: for inputs that are no images, and settings that mean nothing.
    """
    if split.x.dim() != 4:
        raise UserError(f"a generator of styles needs images (N, C, H, W); got inputs {tuple(split.x.shape)}")
    whole("epochs", epochs, 0)
    not_negative("warmup", warmup)
    if beta is not None:
        not_negative("beta", beta)
    low, high = box or (0.0, 1.0)
    weight = min(1.0, math.prod(split.shape) / 784) if beta is None else beta
    batch_size = usual_batch(len(split)) if batch_size is None else batch_size
    random = generator(seed, "draws of the generator")
    steps, step = max(1, -(-len(split) // batch_size)), 0
    with own_draws(derive(seed, "weights of the generator"), () if device is None else {device}):
        model = StyleVAE(tuple(split.x.shape[1:]), classes, latent)
        if device is not None:
            model.to(device)

        def objective(x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
            nonlocal step
            rise = 1.0 if warmup == 0 else min(1.0, step / (warmup * steps))
            step += 1
            return bound(model, (x - low) / (high - low), y, random, weight * rise)

        descend(
            model.parameters(), objective, split, epochs=epochs, seed=seed, batch_size=batch_size, lr=lr, device=device
        )
    model.eval().requires_grad_(False)
    if epochs:
        _measure(model, split, low, high, device)
    return model


def usual_batch(count: int) -> int:
    """128, or on small sets fewer, so that an epoch has about 64 steps; never below 16."""
    return max(16, min(128, count // 64))


def bound(model: StyleVAE, x: Tensor, y: Tensor, random: torch.Generator, beta: float) -> Tensor:
    """The mean, over images in [0, 1], of reconstruction plus ``beta`` times divergence, for one draw of each code."""
    mean, logvar = model.encode(x, y)
    code = mean + (0.5 * logvar).exp() * torch.randn(mean.shape, generator=random).to(mean)
    noises = [torch.randn(n.shape, generator=random).to(n) for n in model.noises(x)]
    logits = model.logits(model.styles(code, y), noises)
    return (reconstruction(logits, x.clamp(0, 1)) + beta * divergence(mean, logvar)).mean()


def _measure(model: StyleVAE, split: Split, low: float, high: float, device: torch.device | None) -> None:
    """Tell the generator how far its styles lie apart on this split."""
    parts = []
    with torch.no_grad():
        for index in torch.split(torch.arange(len(split)), 256):
            x, y, _ = (values if device is None else values.to(device) for values in split.take(index))
            parts.append((*model.invert((x - low) / (high - low), y)[0], y))
        *styles, labels = (torch.cat(rows) for rows in zip(*parts, strict=True))
        model.measure(styles, labels)
