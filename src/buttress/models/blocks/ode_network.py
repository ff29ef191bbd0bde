"""What networks with an ODE are made of: convolutions before it, its dynamics, and the network around it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from buttress.errors import UserError
from buttress.models.blocks.ode import ADAPTIVE, ODEBlock
from buttress.validation import one_of, switch, whole

# Of each convolution: kernel, stride, padding.
EXTRACTORS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "published": ((3, 1, 0), (4, 2, 1)),
    "small": ((3, 1, 1), (4, 2, 1)),
    "deep": ((3, 1, 0), (4, 2, 1), (4, 2, 1)),
}


class Denoising(nn.Module):
    """z + conv(mean of z over all positions, weighted by likeness) (Xie et al., CVPR 2019, section 4).

    The weights are a softmax of <z_i, z_j> / sqrt(C), "non-local, Gaussian"; without the learned embeddings of that
    form, which the paper finds to matter little. The 1x1 convolution has PyTorch's initial weights and no normalisation
    after it, which is our choice: the networks that use the block here have no batch normalisation.

    Args:
        filters: channels of the feature map.
    """

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(filters, filters, 1)

    def forward(self, z: Tensor) -> Tensor:
        """Features (N, filters, H, W) of such features; H x W by H x W numbers are kept for each input."""
        flat = z.flatten(2)
        likeness = flat.transpose(1, 2) @ flat / z.shape[1] ** 0.5
        mean = flat @ likeness.softmax(2).transpose(1, 2)
        out: Tensor = z + self.conv(mean.view_as(z))
        return out


class Dynamics(nn.Module):
    """dz/dt, or the branch of a residual block: two 3x3 convolutions, each with group normalisation and ReLU after it.

    Args:
        width: channels of the state, an even number.
        timed: whether each convolution sees the time, as one more channel before the others, and has a bias.
    """

    def __init__(self, width: int, timed: bool) -> None:
        super().__init__()
        self.timed = timed
        self.conv1 = nn.Conv2d(width + timed, width, 3, padding=1, bias=timed)
        self.norm1 = nn.GroupNorm(width // 2, width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width + timed, width, 3, padding=1, bias=timed)
        self.norm2 = nn.GroupNorm(width // 2, width)
        self.relu2 = nn.ReLU()

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """(N, width, H, W), nowhere negative, at time ``t`` and state ``z`` (N, width, H, W)."""
        h = self.relu1(self.norm1(self.conv1(self._at(t, z))))
        out: Tensor = self.relu2(self.norm2(self.conv2(self._at(t, h))))
        return out

    def _at(self, t: Tensor, z: Tensor) -> Tensor:
        return torch.cat([t.to(z).expand(z.shape[0], 1, *z.shape[2:]), z], 1) if self.timed else z


class Residual(nn.Module):
    """z + func(z): what the matched CNN has where the ODE is, and one Euler step of length 1."""

    def __init__(self, func: nn.Module) -> None:
        super().__init__()
        self.func = func

    def forward(self, z: Tensor) -> Tensor:
        """Features of the shape of ``z``."""
        out: Tensor = z + self.func(z.new_zeros(()), z)
        return out


class BlockNet(nn.Module):
    """Convolutions, a block that keeps the shape, the mean over all positions, and a linear layer.

    Args:
        extractor: inputs -> the block's start, (N, width, H, W).
        block: keeps that shape.
        width: channels.
        classes: number of classes.
    """

    def __init__(self, extractor: nn.Module, block: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.extractor, self.block = extractor, block
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, classes)

    def classify(self, z: Tensor) -> Tensor:
        """Logits (N, classes) of the block's end."""
        logits: Tensor = self.fc(self.pool(z).flatten(1))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, channels, H, W)."""
        return self.classify(self.block(self.extractor(x)))


class ODENet(BlockNet):
    """A `BlockNet` whose block is an ODE (Yan et al., ICLR 2020)."""

    block: ODEBlock

    def attack_variants(self) -> dict[str, nn.Module]:
        """This network, on its own weights, with its ODE solved more exactly or in another way.

        Examples that fool one of these and not the network itself would show that its solver hides gradients.
        """
        block, variants = self.block, dict[str, ODEBlock]()
        if block.solver in ADAPTIVE:
            variants["tighter tolerance"] = block.altered(rtol=block.rtol / 10, atol=block.atol / 10, adjoint=False)
            variants["fixed steps"] = block.altered(solver="rk4", adjoint=False)
        else:
            variants["finer solver"] = block.altered(step=block.step / 2, adjoint=False)
            if block.solver != "rk4":
                variants["rk4"] = block.altered(solver="rk4", adjoint=False)
        if block.adjoint:
            variants["not adjoint"] = block.altered(adjoint=False)
        return {name: _Variant(self, variant) for name, variant in variants.items()}


class _Variant(nn.Module):
    """A network with another solver for its equation; its weights are the network's own."""

    def __init__(self, network: ODENet, block: ODEBlock) -> None:
        super().__init__()
        self.network, self.block = network, block

    def forward(self, x: Tensor) -> Tensor:
        """Logits as of the network."""
        return self.network.classify(self.block(self.network.extractor(x)))


def feature_extractor(name: str, channels: int, width: int, denoise: bool) -> nn.Sequential:
    """Convolutions with bias, each with group normalisation (2 channels a group) and ReLU after it."""
    if whole("width", width, 2) % 2:
        raise UserError(f"width must be even, since channels are normalised two by two; got {width}")
    switch("denoise", denoise)
    inputs, layers = whole("channels", channels, 1), list[nn.Module]()
    for kernel, stride, padding in EXTRACTORS[one_of("extractor", name, EXTRACTORS)]:
        layers += [nn.Conv2d(inputs, width, kernel, stride, padding), nn.GroupNorm(width // 2, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, *([Denoising(width)] if denoise else []))
