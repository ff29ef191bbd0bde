"""Vision transformers: tokens mixed by attention, or by convolutions along the tokens (CoViT)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from torch import Tensor, nn

from buttress.errors import UserError
from buttress.models.blocks.transformer import Attention, Block, Convolution, Embedding, Head, Pool
from buttress.registry import model
from buttress.validation import one_of, positive, switch, whole

Mixer = Literal["attention", "convolution"]
Stem = Literal["patch", "cnn"]

_PATCHES = ((128, 16), (64, 8), (24, 4), (1, 2))  # from images of this side on, patches of that side


class VisionTransformer(nn.Module):
    """Embedding, encoder blocks, head."""

    def __init__(self, image_size: int, embedding: nn.Module, blocks: Sequence[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.image_size = image_size
        self.embedding = embedding
        self.blocks = nn.Sequential(*blocks)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, channels, image_size, image_size)."""
        logits: Tensor = self.head(self.blocks(self.embedding(x)))
        return logits


@model("vit")
def vit(
    *,
    classes: int = 10,
    channels: int = 3,
    image_size: int = 224,
    patch: int | None = None,
    width: int = 128,
    depth: int = 4,
    heads: int = 4,
    mlp_ratio: float = 4.0,
    mixer: Mixer = "attention",
    kernels: Sequence[int] = (3,),
    mixer_bias: bool = True,
    stem: Stem = "patch",
    pool: Pool = "mean",
    position_std: float = 1.0,
) -> nn.Module:
    """A vision transformer (Dosovitskiy et al., arXiv 2010.11929) in the form of Wang and Ruan, arXiv 2208.00906.

    As there, the head sees the mean over all tokens, the class token among them. For images of 8x8 (patch 2) to
    224x224 pixels (patch 16). Layers start as PyTorch makes them.

    For an attention and a convolution network of exactly as many parameters: ``heads=2``, ``mixer_bias=False``, and
    ``kernels=(5, 7)`` for the latter. In general the mixers have 3 width^2 and width^2 (sum of kernels) / heads^2
    weights before the common linear layer; three kernel sizes to a weight are evened out by heads=1 and kernels=(3,),
    heads=2 and (5, 7), heads=3 and (9,), heads=4 and (11, 11, 13, 13).

    Args:
        classes: number of classes.
        channels: channels of the images.
        image_size: height and width of the images in pixels, a multiple of ``patch``.
        patch: side of a patch in pixels; unless given 2, from 24 pixels on 4, from 64 on 8, from 128 on 16.
        width: numbers in a token, a multiple of ``heads``.
        depth: encoder blocks.
        heads: groups of channels, each with an attention or a convolution of its own.
        mlp_ratio: hidden units of a block's MLP over ``width``; their number is rounded.
        mixer: how tokens see each other: "attention" or "convolution".
        kernels: odd sizes of the convolutions in tokens, one for all heads or one each; not used by attention.
        mixer_bias: whether what comes before a mixer's last linear layer has biases.
        stem: "patch" for one convolution over each patch; "cnn" for 3x3 convolutions of stride 2 with batch
            normalisation and ReLU until the image has one place to a patch (a power of 2), and a 1x1 convolution
            (Xiao et al., arXiv 2106.14881; filters double up to ``width``).
        pool: what the head sees: "mean" over all tokens, the "class" token, or the mean over "patches", where there
            is no class token.
        position_std: standard deviation of the initial positions and class token; 1 for the source's "normal"
            initialisation. 0.02, usual elsewhere, gives small tokens, whose changes the first normalisation stretches.
    """
    sizes = {"classes": (classes, 2), "channels": (channels, 1), "image_size": (image_size, 1), "width": (width, 1)}
    for name, (count, least) in {**sizes, "depth": (depth, 1), "heads": (heads, 1)}.items():
        whole(name, count, least)
    for name, value, choices in (("mixer", mixer, Mixer), ("stem", stem, Stem), ("pool", pool, Pool)):
        one_of(name, value, get_args(choices))
    if width % heads:
        raise UserError(f"width must be a multiple of heads; got {width!r} for {heads} heads")
    switch("mixer_bias", mixer_bias)
    side = whole("patch", _patch(image_size) if patch is None else patch, 1)
    if image_size % side:
        raise UserError(f"image_size must be a multiple of patch; got {image_size} for patches of {side}")
    hidden = round(positive("mlp_ratio", mlp_ratio) * width)
    whole("the hidden units, mlp_ratio times width,", hidden, 1)
    own = pool != "patches"
    first = nn.Conv2d(channels, width, side, stride=side) if stem == "patch" else _cnn(channels, width, side)
    embedding = Embedding(first, (image_size // side) ** 2, width, own, positive("position_std", position_std))
    sizes_of = _kernels(kernels, heads)
    blocks = []
    for _ in range(depth):
        mixing = (
            Attention(width, heads, mixer_bias) if mixer == "attention" else Convolution(width, sizes_of, mixer_bias)
        )
        blocks.append(Block(mixing, width, hidden))
    return VisionTransformer(image_size, embedding, blocks, Head(width, classes, pool))


@model("covit")
def covit(
    *,
    classes: int = 10,
    channels: int = 3,
    image_size: int = 224,
    patch: int | None = None,
    width: int = 128,
    depth: int = 4,
    heads: int = 4,
    mlp_ratio: float = 4.0,
    kernels: Sequence[int] = (3,),
    mixer_bias: bool = True,
    stem: Stem = "patch",
    pool: Pool = "mean",
    position_std: float = 1.0,
) -> nn.Module:
    """CoViT: `vit` with 1-D convolutions along the tokens in the place of attention (Wang and Ruan, arXiv 2208.00906).

    Nothing else differs. With the published kernels of 3 and 4 heads it has fewer parameters than `vit`, which says
    what makes them equal. A convolution reaches no further than its kernel in one block: with pool "class" the
    head sees only what lies near the first token.

    Args:
        classes: number of classes.
        channels: channels of the images.
        image_size: as for `vit`, and so all that follow.
        patch: side of a patch in pixels.
        width: numbers in a token.
        depth: encoder blocks.
        heads: groups of channels.
        mlp_ratio: hidden units of a block's MLP over ``width``.
        kernels: odd sizes of the convolutions in tokens, one for all heads or one each, such as (1, 3, 5, 7).
        mixer_bias: whether the convolutions have biases.
        stem: "patch" or "cnn".
        pool: "mean", "class" or "patches".
        position_std: standard deviation of the initial positions and class token.
    """
    return vit(
        classes=classes,
        channels=channels,
        image_size=image_size,
        patch=patch,
        width=width,
        depth=depth,
        heads=heads,
        mlp_ratio=mlp_ratio,
        mixer="convolution",
        kernels=kernels,
        mixer_bias=mixer_bias,
        stem=stem,
        pool=pool,
        position_std=position_std,
    )


@model("vit-hybrid")
def vit_hybrid(
    *,
    classes: int = 10,
    channels: int = 3,
    image_size: int = 224,
    patch: int | None = None,
    width: int = 128,
    depth: int = 4,
    heads: int = 4,
    mlp_ratio: float = 4.0,
) -> nn.Module:
    """A vision transformer on the features of a few convolutions: `vit` with stem "cnn", for its usual options.

    Args:
        classes: number of classes.
        channels: channels of the images.
        image_size: as for `vit`, and so all that follow.
        patch: pixels that become one token, a power of 2.
        width: numbers in a token.
        depth: encoder blocks.
        heads: heads of the attention.
        mlp_ratio: hidden units of a block's MLP over ``width``.
    """
    shape: dict[str, Any] = {"classes": classes, "channels": channels, "image_size": image_size, "patch": patch}
    return vit(**shape, width=width, depth=depth, heads=heads, mlp_ratio=mlp_ratio, stem="cnn")


def _patch(image_size: int) -> int:
    return next(patch for least, patch in _PATCHES if image_size >= least)


def _kernels(kernels: Sequence[int], heads: int) -> tuple[int, ...]:
    """One odd size for each head."""
    known = isinstance(kernels, Sequence) and not isinstance(kernels, str)
    if not known or len(kernels) not in (1, heads) or any(whole("kernels", k, 1) % 2 == 0 for k in kernels):
        raise UserError(f"kernels must be one odd size, or one for each of the {heads} heads; got {kernels!r}")
    return tuple(kernels) if len(kernels) == heads else tuple(kernels) * heads


def _cnn(channels: int, width: int, patch: int) -> nn.Module:
    """Features (N, width, H / patch, W / patch) of images (N, channels, H, W)."""
    halvings = patch.bit_length() - 1
    if patch != 2**halvings or patch < 2:
        raise UserError(f"with stem 'cnn' patch must be a power of 2 from 2 on; got {patch}")
    layers: list[nn.Module] = []
    for left in reversed(range(halvings)):
        filters = max(1, width // 2**left)
        layers += [nn.Conv2d(channels, filters, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU()]
        channels = filters
    return nn.Sequential(*layers, nn.Conv2d(channels, width, 1))
