"""Lending out the caller's model: it comes back exactly as it was, also after an exception."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from buttress.ambient_state import usual_state
from buttress.errors import UserError
from buttress.model_call import parameter_dtype
from buttress.random import derive, own_draws
from buttress.tensor_forms import copied, put_back

Model = Callable[[Tensor], Any]  # a module, or for attacks without gradients any callable
Mode = Literal["eval", "train"]

_unwatched: Any = torch._C.DisableTorchFunction


@contextmanager
def preserved(
    model: Model,
    mode: Mode,
    seed: int,
    device: torch.device,
    dtype: torch.dtype | None = None,
    *,
    move_statistics: bool = False,
) -> Iterator[None]:
    """Put ``model`` into ``mode`` with torch in its usual state and its random state seeded; undo all of it at the end.

    Restored: the training flag of every submodule, every buffer (its object and its values), torch's global random
    state, of the model's devices too, and what the caller has switched on (see `usual_state`). Parameters are not
    written to, so ``requires_grad`` and ``.grad`` need no care here. Programs whose mode cannot be switched (exported
    or frozen ones) are used as they were made.

    Args:
        model: the caller's.
        mode: of its modules meanwhile.
        seed: of torch's random state meanwhile.
        device: that is computed on.
        dtype: torch's default data type meanwhile, for a model whose parameters do not tell; left unless given.
        move_statistics: let buffers stay as the passes inside leave them.

    Raises:
        UserError: when a parameter was made under ``torch.inference_mode`` and so has no gradient; in mode "train"
            for a program whose mode cannot be switched.
    """
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    with _unwatched():  # nobody who follows the passes wants these questions, of which there are many
        _check_parameters(modules)
        dtype = parameter_dtype(model) or dtype
        devices = {device, *(parameter.device for parameter in parameters)}
    flags = [(module, module.training) for module in modules if hasattr(module, "training")]
    owned = [set(module._buffers.keys()) for module in modules]  # scripted modules list keys, and do not iterate
    with torch.inference_mode(False):
        buffers = [
            (module, name, buffer, copied(buffer))
            for module in modules
            for name, buffer in module._buffers.items()
            if not move_statistics and buffer is not None
        ]
    with usual_state(device, dtype), own_draws(derive(seed, "model"), devices), _without_cudnn(modules, mode, devices):
        try:
            if isinstance(model, nn.Module):
                switch_mode(model, mode)
            for module, name, buffer, value in buffers:
                if buffer.is_inference():  # autograd refuses it
                    module._buffers[name] = value
            yield
        finally:
            for module, flag in flags:
                module.training = flag
            for module, names in zip(modules, owned, strict=True):
                for name in set(module._buffers.keys()) - names:  # what a forward pass registered
                    del module._buffers[name]
            for module, name, buffer, value in buffers:
                # BatchNorm writes without counting versions, so there is no telling whether one changed.
                if not buffer.is_inference():
                    put_back(buffer, value)
                module._buffers[name] = buffer


def _check_parameters(modules: list[nn.Module]) -> None:
    for module in modules:
        for name, parameter in module._parameters.items():
            lazy: bool = parameter is not None and is_lazy(parameter)
            if lazy:
                kind = type(module).__name__
                raise UserError(
                    f"parameter {name!r} of a {kind} is not there yet: run the network once on a batch first"
                )
            if parameter is not None and parameter.is_inference():
                raise UserError(f"parameter {name!r} was made under torch.inference_mode: make the model outside of it")


def in_train_mode(model: object) -> bool:
    """Whether the model, or a part of it whose mode can be switched, is in train mode."""
    if not isinstance(model, nn.Module) or _fixed(model):
        return False
    return model.training or any(in_train_mode(child) for child in model.children())


def _fixed(module: nn.Module) -> bool:
    """Whether it is a program with one mode: a frozen one has no flag, an exported one has methods that refuse."""
    return not hasattr(module, "training") or "train" in vars(module)


def switch_mode(module: nn.Module, mode: Mode) -> None:
    """Put a module into the mode; where a program of one mode (an exported or frozen one) is a part of it, all else.

    Raises:
        UserError: in mode "train", for such a program.
    """
    if _fixed(module):
        if mode == "train":
            raise UserError(
                f"{type(module).__name__} is a program that was exported or frozen, so it cannot be put into train "
                "mode: give the network that it was made of"
            )
        return
    parts = list(module.modules())
    if not any(map(_fixed, parts)):
        if any(part.training != (mode == "train") for part in parts):
            module.train(mode == "train")
        return
    module.training = mode == "train"
    for child in module.children():
        switch_mode(child, mode)


@contextmanager
def _without_cudnn(modules: list[nn.Module], mode: Mode, devices: set[torch.device]) -> Iterator[None]:
    """For recurrent layers in eval mode: cuDNN refuses their backward pass there, torch's own kernels give it."""
    cudnn: Any = torch.backends.cudnn
    if mode == "train" or all(d.type != "cuda" for d in devices) or not any(isinstance(m, nn.RNNBase) for m in modules):
        yield
        return
    before = cudnn.enabled
    cudnn.enabled = False
    try:
        yield
    finally:
        cudnn.enabled = before
