"""Lending out the caller's model: it comes back exactly as it was, also after an exception."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from buttress.errors import UserError
from buttress.random import derive, seed_torch

Model = Callable[[Tensor], Any]  # a module, or for attacks without gradients any callable
Mode = Literal["eval", "train"]


@contextmanager
def preserved(model: Model, mode: Mode, seed: int, device: torch.device) -> Iterator[None]:
    """Put ``model`` into ``mode`` with gradients on and the global random state seeded; undo all of it at the end.

    Restored: the training flag of every submodule, every buffer (its object and its values) and torch's global random
    state. Parameters are not written to, so ``requires_grad`` and ``.grad`` need no care here.

    Raises:
        UserError: when the model was made under ``torch.inference_mode`` and so cannot give gradients.
    """
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    for module in modules:
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.is_inference():
                raise UserError(f"parameter {name!r} was made under torch.inference_mode: make the model outside of it")
    flags = [module.training for module in modules]
    owned = [set(module._buffers.keys()) for module in modules]  # scripted modules list keys, and do not iterate
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in modules
        for name, buffer in module._buffers.items()
        if buffer is not None and not buffer.is_inference()
    ]
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        seed_torch(derive(seed, "model"))
        try:
            if isinstance(model, nn.Module) and any(flag != (mode == "train") for flag in flags):
                model.train(mode == "train")
            yield
        finally:
            for module, flag, names in zip(modules, flags, owned, strict=True):
                module.training = flag
                for name in set(module._buffers.keys()) - names:  # what a forward pass registered
                    del module._buffers[name]
            for module, name, buffer, value in buffers:
                # Through .data: a caller's pending backward pass may hold the buffer and would refuse a new version.
                # BatchNorm itself writes without counting versions, so there is no telling whether one changed.
                buffer.data.copy_(value)
                module._buffers[name] = buffer
