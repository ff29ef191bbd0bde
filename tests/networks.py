"""Networks that do as they like with their tensors, and what a caller may have switched on."""

from contextlib import contextmanager

import torch
from torch import nn


class Plain(nn.Module):
    """Inputs to [-2, 2], then the network."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner((x - 0.5) / 0.25)


class InPlace(Plain):
    """The same, written over its input."""

    def forward(self, x):
        return self.inner(x.sub_(0.5).div_(0.25))


class Reusing(Plain):
    """The same, its output always in the same memory, which the next call fills again."""

    memory = None

    def forward(self, x):
        logits = super().forward(x)
        if self.memory is None or self.memory.shape != logits.shape:
            self.memory = torch.empty_like(logits.detach())
        return self.memory.detach().copy_(logits)


class Squeezing(Plain):
    """The same, without the first axis where there is one input."""

    def forward(self, x):
        return super().forward(x).squeeze()


@contextmanager
def everything_switched_on():
    """Autocast, other default types and devices, no gradients, less precise products, deterministic algorithms."""
    torch.set_default_dtype(torch.float64)
    torch.set_float32_matmul_precision("medium")
    torch.use_deterministic_algorithms(True)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta"), torch.no_grad():
            yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_float32_matmul_precision("highest")
        torch.use_deterministic_algorithms(False)
