"""The parts of a vision transformer: token mixers, encoder blocks, the embedding and the head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Pool = Literal["mean", "class", "patches"]


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al., arXiv 1706.03762), scaled by 1 / sqrt(width / heads).

    Written out: torch's fused kernel has no derivative of second order and no forward-mode one on a CPU, and hides
    the attention weights, which here are the output of the layer ``softmax``.
    """

    def __init__(self, width: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias)
        self.softmax = nn.Softmax(dim=-1)
        self.projection = nn.Linear(width, width)

    def forward(self, z: Tensor) -> Tensor:
        """Tokens (N, T, width) of tokens (N, T, width)."""
        n, tokens, width = z.shape
        q, k, v = self.qkv(z).view(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        weights = self.softmax(q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5)
        mixed: Tensor = self.projection((weights @ v).transpose(1, 2).reshape(n, tokens, width))
        return mixed


class Convolution(nn.Module):
    """Multi-head 1-D convolution: each group of channels has one of its own along the tokens, and a linear layer."""

    def __init__(self, width: int, kernels: Sequence[int], bias: bool) -> None:
        super().__init__()
        group = width // len(kernels)
        self.heads = nn.ModuleList(nn.Conv1d(group, group, k, padding=k // 2, bias=bias) for k in kernels)
        self.projection = nn.Linear(width, width)

    def forward(self, z: Tensor) -> Tensor:
        """Tokens (N, T, width) of tokens (N, T, width)."""
        groups = z.transpose(1, 2).chunk(len(self.heads), dim=1)
        mixed = torch.cat([head(group) for head, group in zip(self.heads, groups, strict=True)], dim=1)
        out: Tensor = self.projection(mixed.transpose(1, 2))
        return out


class Block(nn.Module):
    """Pre-norm encoder block: z + mixer(norm(z)), then z + MLP(norm(z)) with one hidden layer and GELU."""

    def __init__(self, mixer: nn.Module, width: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.mixer = mixer
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def branches(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """The residual branches in order, each a function of the tokens that it is added to."""
        return {"mixer": lambda z: self.mixer(self.norm1(z)), "mlp": lambda z: self.mlp(self.norm2(z))}

    def forward(self, z: Tensor) -> Tensor:
        """Tokens (N, T, width) of tokens (N, T, width)."""
        for branch in self.branches().values():
            z = z + branch(z)
        return z


class Embedding(nn.Module):
    """From an image to tokens: its patches row by row, a class token before them if any, and learned positions."""

    def __init__(self, stem: nn.Module, patches: int, width: int, class_token: bool, std: float) -> None:
        super().__init__()
        self.stem = stem
        self.class_token = nn.Parameter(std * torch.randn(1, 1, width)) if class_token else None
        self.position = nn.Parameter(std * torch.randn(1, patches + class_token, width))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, T, width) of images (N, channels, image_size, image_size)."""
        z = self.stem(x).flatten(2).transpose(1, 2)
        if self.class_token is not None:
            z = torch.cat([self.class_token.expand(z.shape[0], -1, -1), z], dim=1)
        tokens: Tensor = z + self.position
        return tokens


class Head(nn.Module):
    """One token out of all, layer normalisation, and a linear layer."""

    def __init__(self, width: int, classes: int, pool: Pool) -> None:
        super().__init__()
        self.pool = pool
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, classes)

    def forward(self, z: Tensor) -> Tensor:
        """Logits (N, classes) of tokens (N, T, width)."""
        one = z[:, 0] if self.pool == "class" else z.mean(1)
        logits: Tensor = self.linear(self.norm(one))
        return logits
