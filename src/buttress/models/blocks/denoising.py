"""Feature denoising: each position of a feature map is drawn towards those that look like it."""

from __future__ import annotations

from torch import Tensor, nn


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
